"""fastlr's rules as optax transformations."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")

import fastlr  # noqa: E402
import fastlr.jax  # noqa: E402
from fastlr import schedules  # noqa: E402
from fastlr.plain import plain  # noqa: E402

jnp = jax.numpy
ERRORS = (ValueError, jax.errors.JaxRuntimeError)  # what comes out of XLA; which it is depends on the call


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
    opt, own = fastlr.jax.transform(rule, **hyper), rule(arrays, **hyper)
    state = opt.init(params)

    def step(params, state, grads):
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if jit else step
    for t in range(1, 6):
        grads = tree(t)
        params, state = step(params, state, grads)
        own.step({key: np.array(x) for key, x in grads.items()})
    assert state.step == 5
    for key, x in arrays.items():
        np.testing.assert_allclose(params[key], x, rtol=2e-6, atol=2e-6)
        for name in own.states:
            np.testing.assert_allclose(state.states[name][key], own.state[name][key], rtol=5e-6, atol=5e-6)


RULES = [
    (fastlr.AdamW, {"weight_decay": 0.1}),
    (fastlr.SGD, {}),
    (fastlr.Adagrad, {"initial_accumulator_value": 0.1}),
    (fastlr.LAMB, {}),
    (fastlr.Adan, {"lr": schedules.cosine(0.1, 0.0, 20)}),
    (fastlr.Adam, {"betas": (schedules.linear(0.8, 0.9, 4), 0.99), "lr": lambda t: 0.1 / (1 + t)}),
]


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize(("rule", "hyper"), RULES)
def test_in_place_steps_have_the_bits_of_the_class(rule, hyper, x64):
    """Also of leaves without elements, and of scalars."""
    with jax.enable_x64(x64):
        dtype = jnp.float64 if x64 else jnp.float32
        sizes = ((70_000,), (3, 4), (), (0,))
        params = {key: x.astype(dtype) for key, x in tree(0, sizes).items()}
        arrays = {key: np.array(x) for key, x in params.items()}
        hyper = {"lr": 0.01, **hyper}
        opt, own = fastlr.jax.in_place(rule, **hyper), rule(arrays, **hyper)
        state = opt.init(params)
        step = jax.jit(opt.step, donate_argnums=(0, 2))
        for t in range(1, 5):
            grads = {key: x.astype(dtype) for key, x in tree(t, sizes).items()}
            params, state = step(params, grads, state)
            own.step({key: np.array(x) for key, x in grads.items()})
        assert state.step == 4
        for key, x in arrays.items():
            np.testing.assert_array_equal(params[key], x)
            for name in own.states:
                np.testing.assert_array_equal(state.states[name][key], own.state[name][key])


def pointers(values):
    return [x.unsafe_buffer_pointer() for x in jax.tree.leaves(values)]


def test_donated_buffers_are_updated_where_they_lie_and_no_others():
    opt = fastlr.jax.in_place(fastlr.Adam, lr=0.1)
    params = [jnp.ones(100_000), jnp.zeros((300, 70))]
    grads, state = [jnp.full_like(p, 0.5) for p in params], opt.init(params)
    before = pointers((params, state.states))
    kept, copy = params, jax.jit(opt.step)(params, grads, state)
    assert not set(pointers(copy)) & set(before)
    assert all((x == y).all() for x, y in zip(kept, [jnp.ones(100_000), jnp.zeros((300, 70))], strict=True))
    assert not any(x.any() for x in jax.tree.leaves(state.states))
    made, after = jax.jit(opt.step, donate_argnums=(0, 2))(params, grads, state)
    assert pointers((made, after.states)) == before
    assert all(x.is_deleted() for x in params)
    for x, y in zip(jax.tree.leaves(copy), jax.tree.leaves((made, after)), strict=True):
        np.testing.assert_array_equal(x, y)


def of_both(opt):
    def step(params, grads, state):
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def of_update(opt):
    return lambda params, grads, state: opt.update(grads, state, params)


@pytest.mark.parametrize(
    ("make", "donated", "lies"),
    [(of_both, (0, 2), True), (of_update, (1, 2), True), (of_both, (), False), (of_update, (2,), False)],
)
def test_the_state_of_a_transform_is_updated_where_it_lies(make, donated, lies):
    """Where it is donated, and no result of its shape comes before it without a buffer of its own."""
    opt = fastlr.jax.transform(fastlr.AdamW, lr=0.1)
    params = {"a": jnp.ones(100_000), "b": jnp.zeros((300, 70)), "c": jnp.full(100_000, 2.0)}
    grads, state = jax.tree.map(lambda p: jnp.full_like(p, 0.5), params), opt.init(params)
    expected = make(opt)(params, grads, state)
    before = pointers(params), pointers(state.states)
    made, after = jax.jit(make(opt), donate_argnums=donated)(params, grads, state)
    assert (pointers(after.states) == before[1]) == lies
    if 0 in donated:
        assert pointers(made) == before[0]
    for x, y in zip(jax.tree.leaves((made, after)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7)


def test_leaves_of_two_types():
    with jax.enable_x64(True):
        params = {"single": jnp.ones(5, jnp.float32), "double": jnp.ones(3, jnp.float64), "more": jnp.zeros(2)}
        opt = fastlr.jax.in_place(fastlr.Adam, lr=0.1)
        params, state = jax.jit(opt.step)(params, jax.tree.map(jnp.ones_like, params), opt.init(params))
        for key, x in params.items():
            np.testing.assert_allclose(x, 0.9 - (key == "more"), rtol=1e-6)
            assert state.states["m"][key].dtype == x.dtype


def test_an_error_of_a_schedule_comes_out_of_the_step():
    opt = fastlr.jax.in_place(fastlr.SGD, lr=lambda t: 0.1 - t)
    params = jnp.ones(3)
    params, state = jax.jit(opt.step)(params, params, opt.init(params))
    np.testing.assert_allclose(params, 0.9)
    with pytest.raises(ERRORS, match=r"ValueError: lr\(1\) must be finite and >= 0, got -0.9"):
        jax.block_until_ready(jax.jit(opt.step)(params, params, state))
    np.testing.assert_allclose(params, 0.9)


def test_handlers_check_their_call():
    """What only a program made by hand can get wrong."""
    from fastlr import _core

    fastlr.jax._ffi()
    numbers = np.array(plain(fastlr.SGD, {"lr": 0.1}).numbers(0))
    x, given = jnp.ones(3), {"key": "", "numbers": numbers, "rule": "sgd", "updates": np.int64(0)}
    shape, one = [jax.ShapeDtypeStruct((3,), jnp.float32)], jnp.int32(1)
    for arguments, changed, message in (
        ((one, x, x), {"rule": "sdg"}, "no such rule, or not its buffers"),
        ((one, x, x, x), {}, "no such rule, or not its buffers"),
        ((one, x, x), {"rule": "x" * 600}, "no such rule, or not its numbers"),
        ((one, x, x), {"numbers": numbers.astype(np.float32)}, "no such rule, or not its numbers"),
        ((one, x, x), {"numbers": np.zeros(2)}, "no such rule, or not its numbers"),
        ((one, x, x), {"numbers": np.append(numbers, 1)}, "hypers must be as many"),
        ((one, x, x), {"numbers": np.inf + numbers}, "must be finite"),
        ((jnp.int32(0), x, x), {}, "step"),
        ((one, x, x), {"key": "another process's"}, "KeyError"),
        ((one, x, x), {"key": "short"}, r"\d numbers are needed, got 1"),
        ((one, x, x), {"more": np.int64(1)}, "needs the attributes key, numbers, rule and updates"),
    ):
        _core.add_program("short", lambda t: (0.1,))
        with pytest.raises(ERRORS, match=message):
            jax.block_until_ready(jax.ffi.ffi_call(fastlr.jax.TARGET, shape)(*arguments, **{**given, **changed}))


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
