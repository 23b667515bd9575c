"""fastlr's rules as optax transformations."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import fastlr  # noqa: E402
import fastlr.jax  # noqa: E402
from fastlr import schedules  # noqa: E402

jnp = jax.numpy


def tree(seed, sizes=((5,), (3, 4), ())):
    rng = np.random.default_rng(seed)
    return {str(k): jnp.asarray(rng.standard_normal(shape), jnp.float32) for k, shape in enumerate(sizes)}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("rule", "hyper"),
    [
        (fastlr.AdamW, {"weight_decay": 0.1}),
        (fastlr.SGD, {"momentum": 0.9}),
        (fastlr.SGD, {}),
        (fastlr.Adagrad, {"initial_accumulator_value": 0.1}),
        (fastlr.Lion, {}),
        (fastlr.LAMB, {}),
        (fastlr.Adan, {"lr": schedules.cosine(0.1, 0.0, 20)}),
    ],
)
def test_same_steps_as_the_class(rule, hyper, jit):
    params = tree(0)
    arrays = {key: np.array(x) for key, x in params.items()}
    hyper = {"lr": 0.01, **hyper}
    opt, plain = fastlr.jax.transform(rule, **hyper), rule(arrays, **hyper)
    state = opt.init(params)

    def step(params, state, grads):
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if jit else step
    for t in range(1, 6):
        grads = tree(t)
        params, state = step(params, state, grads)
        plain.step({key: np.array(x) for key, x in grads.items()})
    assert state.step == 5
    for key, x in arrays.items():
        np.testing.assert_allclose(params[key], x, rtol=2e-6, atol=2e-6)
        for name in plain.states:
            np.testing.assert_allclose(state.states[name][key], plain.state[name][key], rtol=5e-6, atol=5e-6)


def test_trains_under_jit_with_large_arrays():
    """Of a size at which callbacks of jax have waited for themselves."""
    x = jnp.linspace(-1, 1, 1_000_000)
    opt = fastlr.jax.transform(fastlr.SGD, lr=0.25)

    @jax.jit
    def train(w, state):
        def one(carry, _):
            w, state = carry
            grads = jax.grad(lambda w: jnp.sum((w - x) ** 2))(w)
            updates, state = opt.update(grads, state, w)
            return (optax.apply_updates(w, updates), state), jnp.sum((w - x) ** 2)

        return jax.lax.scan(one, (w, state), None, length=5)

    w = jnp.zeros_like(x)
    (w, state), losses = train(w, opt.init(w))
    np.testing.assert_allclose(w, x * (1 - 0.5**5), rtol=1e-5)
    assert losses[-1] < losses[0] / 100
    assert state.step == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fastlr.jax.transform(optax.adam), "must be a class of fastlr's"),
        (lambda: fastlr.jax.transform(fastlr.Prodigy), "unlike Prodigy"),
        (lambda: fastlr.jax.transform(fastlr.Adafactor), "unlike Adafactor"),
        (lambda: fastlr.jax.transform(fastlr.Sophia), "unlike Sophia"),
        (lambda: fastlr.jax.transform(fastlr.Adam, momentum=1), "momentum"),
    ],
)
def test_bad_rules(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_bad_calls():
    opt = fastlr.jax.transform(fastlr.Adam)
    params = tree(0)
    state = opt.init(params)
    with pytest.raises(ValueError, match="params must be given"):
        opt.update(params, state)
    with pytest.raises(TypeError, match="leaf 0: parameter and gradient must be float32 or float64"):
        opt.update(jax.tree.map(lambda x: x.astype(jnp.float16), params), state, params)
