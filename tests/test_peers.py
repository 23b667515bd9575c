"""Third opinions: torch and optax, where they are installed. What must hold without them is in test_rules.py.

In float64 both agree to 1e-12 of max(1, |x|), element by element: 20 steps of some ten roundings of 1e-16, with two
orders of magnitude for what bias correction and the derivative of a step amplify.
"""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from tests.cases import CASES
from tests.tolerance import WIDE, Bounded, hypers

STEPS = 20
N = 300
TOLERANCE = 1e-12

every_case = pytest.mark.parametrize("case", [c for c in CASES if c.torch])
optax_cases = pytest.mark.parametrize("case", [c for c in CASES if c.optax])


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def jax():
    pytest.importorskip("optax")
    return pytest.importorskip("jax")


def rate(step):
    return 0.01 * (1 + 0.5 * np.sin(step)) if step != 5 else 0.0


def data(dtype=np.float64, seed=0):
    """Parameters of about one, and gradients of magnitudes from 1e-4 to 1e2 that change from step to step."""
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((STEPS, N)) * 10.0 ** rng.uniform(-4, 2, N)
    return rng.standard_normal(N).astype(dtype), g.astype(dtype)


def close(actual, expected, what):
    error = abs(actual - expected) / np.maximum(1, abs(expected))
    assert error.max() <= TOLERANCE, f"{what}: off by {error.max():.3g} at {error.argmax()}"


def without_fused(case, options):
    # These have no fused implementation, and no such argument.
    plain = case.torch[0] in ("RMSprop", "Adadelta", "Adamax", "RAdam")
    return {key: x for key, x in options.items() if not plain or key != "fused"}


def torch_optimizer(torch, case, params, **options):
    name, kwargs = case.torch
    plain = without_fused(case, {"foreach": False, "fused": False})
    return getattr(torch.optim, name)(params, **{"lr": 0.01, **kwargs, **plain, **options})


def set_rate(opt, lr):
    for group in opt.param_groups:
        group["lr"] = lr


def states(case, opt, theirs, param):
    """(letter, ours, torch's) for each state of one parameter."""
    found = theirs.state[param]
    for key in opt.states:
        yield key, opt.state[key], found[case.torch_state[key]].numpy()


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("decay", [None, 0.05])
@every_case
def test_torch_in_float64(torch, case, decay, maximize):
    p, gradients = data()
    other = torch.nn.Parameter(torch.from_numpy(p.copy()))
    extra = {} if decay is None else {"weight_decay": decay}
    opt = case.build(p, lr=rate, maximize=maximize, **extra)
    theirs = torch_optimizer(torch, case, [other], maximize=maximize, **extra)
    for t, g in enumerate(gradients):
        opt.step(g)
        set_rate(theirs, rate(t))
        other.grad = torch.from_numpy(g.copy())
        theirs.step()
        close(p, other.detach().numpy(), f"p, step {t}")
        for key, mine, its in states(case, opt, theirs, other):
            close(mine, its, f"{key}, step {t}")


@every_case
def test_torch_with_gradients_that_are_none(torch, case):
    """Step numbers, first buffers and decay are each parameter's own."""
    p, gradients = data()
    arrays = [p[:100].copy(), p[100:].copy()]
    others = [torch.nn.Parameter(torch.from_numpy(x.copy())) for x in arrays]
    opt, theirs = case.build(arrays, lr=0.01), torch_optimizer(torch, case, others)
    for t, g in enumerate(gradients):
        given = [None if t % 3 == 0 else g[:100].copy(), None if t in (2, 3) else g[100:].copy()]
        opt.step(given)
        for other, x in zip(others, given, strict=True):
            other.grad = None if x is None else torch.from_numpy(x.copy())
        theirs.step()
        for x, other in zip(arrays, others, strict=True):
            close(x, other.detach().numpy(), f"p, step {t}")


@every_case
@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_torch_clipping(torch, case, limit):
    p, gradients = data()
    arrays = [p[:100].copy(), p[100:].copy()]
    others = [torch.nn.Parameter(torch.from_numpy(x.copy())) for x in arrays]
    opt, theirs = case.build(arrays, lr=0.01), torch_optimizer(torch, case, others)
    for t, g in enumerate(gradients):
        report = opt.step([g[:100].copy(), g[100:].copy()], clip_norm=limit)
        for other, x in zip(others, (g[:100], g[100:]), strict=True):
            other.grad = torch.from_numpy(x.copy())
        norm = float(torch.nn.utils.clip_grad_norm_(others, limit))
        theirs.step()
        assert report.grad_norm == pytest.approx(norm, rel=1e-14)
        for x, other in zip(arrays, others, strict=True):
            close(x, other.detach().numpy(), f"p, step {t}")


@every_case
def test_torch_in_float32(torch, case):
    """Within four of our bounds: one for us, three for torch.

    It narrows β where we narrow 1 − β (2 u β |v| for u |v|), and rounds p (1 − ηλ) twice before it subtracts (3 u |p|
    for u |p|).
    """
    p, gradients = data(np.float32)
    other = torch.nn.Parameter(torch.from_numpy(p.copy()))
    expected, state = Bounded(p.copy(), np.float32), {}
    opt, theirs = case.build(p, lr=rate), torch_optimizer(torch, case, [other])
    for t, g in enumerate(gradients, 1):
        opt.step(g)
        set_rate(theirs, rate(t - 1))
        other.grad = torch.from_numpy(g.copy())
        theirs.step()
        call = hypers({**case.all_kwargs, "lr": rate(t - 1)})
        expected, state = case.reference(expected, Bounded(g, np.float32), state, t, **call)
        assert (abs(p.astype(WIDE) - other.detach().numpy()) <= 4 * expected.error).all()
        for key, mine, its in states(case, opt, theirs, other):
            assert (abs(mine.astype(WIDE) - its) <= 4 * state[key].error).all(), key


@pytest.mark.parametrize("case", [c for c in CASES if c.id in ("RMSprop", "Adam", "AdamW", "AMSGrad")])
def test_torch_where_a_square_overflows(torch, case):
    """What torch does there: v = ∞, and the element stands still. fastlr's v is a large number: test_rules.py."""
    other = torch.nn.Parameter(torch.ones(1))
    theirs = torch_optimizer(torch, case, [other])
    for g in (1e25, 1.0, 1.0):
        other.grad = torch.tensor([g])
        theirs.step()
    assert np.isfinite(other.detach().numpy()).all()
    assert np.isinf(theirs.state[other][case.torch_state["v"]].numpy()).all()


@optax_cases
def test_optax_in_float64(jax, case):
    """With a rate that stays the same: optax keeps it inside RMSprop's momentum, torch and fastlr outside."""
    import optax

    name, kwargs = case.optax
    kwargs = dict(kwargs)
    coupled = kwargs.pop("weight_decay", 0.0) if name not in ("adamw", "lion") else 0.0
    with jax.enable_x64(True):
        theirs = optax.chain(optax.add_decayed_weights(coupled), getattr(optax, name)(0.01, **kwargs))
        p, gradients = data()
        other = jax.numpy.asarray(p.copy())
        assert other.dtype == np.float64
        state = theirs.init(other)
        opt = case.build(p, lr=0.01)
        for t, g in enumerate(gradients):
            opt.step(g)
            updates, state = theirs.update(jax.numpy.asarray(g), state, other)
            other = optax.apply_updates(other, updates)
            close(p, np.asarray(other), f"p, step {t}")


def test_reference_has_torchs_defaults(torch):
    """A case without arguments is compared at the defaults of both: they must be the same."""
    for case in CASES:
        if not case.torch:
            continue
        theirs = inspect.signature(getattr(torch.optim, case.torch[0])).parameters
        ours = inspect.signature(case.reference).parameters
        for name, x in ours.items():
            if x.kind is x.KEYWORD_ONLY:
                assert theirs[name].default == x.default, f"{case.id}: {name}"
                assert inspect.signature(case.optimizer).parameters[name].default == x.default, f"{case.id}: {name}"
