"""Third opinions: torch and optax, where they are installed. What must hold without them is in test_rules.py.

In float64 both agree to 1e-12 of max(1, |x|), element by element: 20 steps of some ten roundings of 1e-16, with two
orders of magnitude for what bias correction and the derivative of a step amplify.
"""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import fastlr
from tests.cases import CASES
from tests.tolerance import WIDE, Bounded, hypers

STEPS = 20
N = 300
TOLERANCE = 1e-12

every_case = pytest.mark.parametrize("case", [c for c in CASES if c.torch])
optax_cases = pytest.mark.parametrize("case", [c for c in CASES if c.optax])


@pytest.fixture(scope="module")
def torch():
    """With float64 for the numbers that NAdam and ASGD keep beside their tensors, as fastlr has them."""
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(before)


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
    plain = case.torch[0] in ("RMSprop", "Adadelta", "Adamax", "RAdam", "NAdam", "Rprop", "ASGD")
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
    if decay is not None and case.torch[0] == "Rprop":
        pytest.skip("torch's Rprop has no weight decay")
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
    other = torch.nn.Parameter(torch.ones(1, dtype=torch.float32))
    theirs = torch_optimizer(torch, case, [other])
    for g in (1e25, 1.0, 1.0):
        other.grad = torch.tensor([g], dtype=torch.float32)
        theirs.step()
    assert np.isfinite(other.detach().numpy()).all()
    assert np.isinf(theirs.state[other][case.torch_state["v"]].numpy()).all()


@optax_cases
def test_optax_in_float64(jax, case):
    """With a rate that stays the same: optax keeps it inside RMSprop's momentum, torch and fastlr outside."""
    import optax
    import optax.contrib

    name, kwargs = case.optax
    kwargs = dict(kwargs)
    own = ("adamw", "lion", "ademamix", "lamb", "novograd", "schedule_free_adamw")
    coupled = kwargs.pop("weight_decay", 0.0) if name not in own else 0.0
    with jax.enable_x64(True):
        make = getattr(optax, name, None) or getattr(optax.contrib, name)
        theirs = optax.chain(optax.add_decayed_weights(coupled), make(0.01, **kwargs))
        p, gradients = data()
        other = jax.numpy.asarray(p.copy())
        assert other.dtype == np.float64
        state = theirs.init(other)
        opt = case.build(p, lr=0.01)
        if name == "madgrad":  # the root of an int32 is a float32
            state = jax.tree.map(lambda x: x.astype(np.int64) if x.dtype == np.int32 else x, state)
        if name == "yogi":
            opt.state["m"][...] = 1e-6  # optax starts it there too
        for t, g in enumerate(gradients):
            opt.step(g)
            updates, state = theirs.update(jax.numpy.asarray(g), state, other)
            other = optax.apply_updates(other, updates)
            close(p, np.asarray(other), f"p, step {t}")


BEYOND_TORCH = {("Rprop", "weight_decay"), ("RMSprop", "initial_accumulator_value")}  # arguments torch's class lacks


def test_reference_has_torchs_defaults(torch):
    """A case without arguments is compared at the defaults of both: they must be the same."""
    for case in CASES:
        if not case.torch:
            continue
        theirs = inspect.signature(getattr(torch.optim, case.torch[0])).parameters
        ours = inspect.signature(case.reference).parameters
        for name, x in ours.items():
            if name in ("eps_mode", "cautious") or (case.torch[0], name) in BEYOND_TORCH:
                continue
            if x.kind is x.KEYWORD_ONLY:
                assert theirs[name].default == x.default, f"{case.id}: {name}"
                assert inspect.signature(case.optimizer).parameters[name].default == x.default, f"{case.id}: {name}"


# ---- the authors' own packages --------------------------------------------------------------------------------------

ESTIMATES = {
    "DAdaptSGD": (fastlr.DAdaptSGD, "dadaptation", {}),
    "DAdaptSGD-momentum": (fastlr.DAdaptSGD, "dadaptation", {"momentum": 0.9, "growth_rate": 1.5, "d0": 1e-3}),
    "DAdaptAdam": (fastlr.DAdaptAdam, "dadaptation", {}),
    "DAdaptAdam-coupled": (fastlr.DAdaptAdam, "dadaptation", {"weight_decay": 0.1, "growth_rate": 1.5, "d0": 1e-3}),
    "DAdaptAdam-decoupled": (
        fastlr.DAdaptAdam,
        "dadaptation",
        {"weight_decay": 0.1, "decouple": True, "use_bias_correction": True, "betas": (0.8, 0.99)},
    ),
    "Prodigy": (fastlr.Prodigy, "prodigyopt", {}),
    "Prodigy-coupled": (
        fastlr.Prodigy,
        "prodigyopt",
        {"weight_decay": 0.1, "decouple": False, "growth_rate": 1.5, "d0": 1e-3, "use_bias_correction": True},
    ),
    "Prodigy-odd": (
        fastlr.Prodigy,
        "prodigyopt",
        {"betas": (0.8, 0.99), "beta3": 0.7, "d_coef": 2.0, "weight_decay": 0.1, "safeguard_warmup": True},
    ),
}


def pulled(steps=60):
    """A model of two tensors, and its gradient: noisy, to a point about three away."""
    rng = np.random.default_rng(0)
    target, weight = 3 * rng.standard_normal(N), rng.uniform(0.1, 3, N)
    noise = 0.3 * rng.standard_normal((steps, N))
    return rng.standard_normal(N), lambda p, t: weight * (p - target) + noise[t], steps


@pytest.mark.parametrize("matched", [True, False], ids=["matched", "as it is"])
@pytest.mark.parametrize("name", ESTIMATES)
def test_authors_package_in_float64(torch, name, matched):
    """Two groups, one of them without decay, a rate that changes and a gradient that is missing at times.

    prodigyopt has the d of after the step in d ε. Matched, its ε is set such that the product is ours: then all agree
    to 1e-11, after 60 steps in which d grew a million times. As it is, to 1e-4.
    """
    optimizer, module, hyper = ESTIMATES[name]
    package = pytest.importorskip(module)
    p, gradient, steps = pulled()
    parts = [p[:100].copy(), p[100:].copy()]
    others = [torch.nn.Parameter(torch.from_numpy(x.copy())) for x in parts]
    absent = 7 if not hyper.get("use_bias_correction") else None  # its t is the model's, ours the parameter's
    bare = {} if optimizer is fastlr.DAdaptSGD else {"weight_decay": 0.0}  # the whole model's there

    def schedule(t):
        return 1.0 if t < 5 else 0.8

    opt = optimizer([{"params": parts[:1]}, {"params": parts[1:], **bare}], lr=schedule, **hyper)
    theirs = getattr(package, optimizer.__name__)([{"params": others[:1]}, {"params": others[1:], **bare}], **hyper)
    tolerance = 1e-11 if matched or module == "dadaptation" else 1e-4
    for t in range(steps):
        g = gradient(np.concatenate(parts), t)
        given = [[g[:100].copy()], [None if t == absent else g[100:].copy()]]
        for other, x in zip(others, (given[0][0], given[1][0]), strict=True):
            other.grad = None if x is None else torch.from_numpy(x.copy())
        d = opt.d
        opt.step(given)
        set_rate(theirs, schedule(t))
        if matched and module == "prodigyopt":
            for group in theirs.param_groups:
                group["eps"] = 1e-8 * d / opt.d
        theirs.step()
        assert opt.d == pytest.approx(theirs.param_groups[0]["d"], rel=tolerance)
        for x, other in zip(parts, others, strict=True):
            error = abs(x - other.detach().numpy()) / np.maximum(1, abs(x))
            assert error.max() <= tolerance, f"step {t}: off by {error.max():.3g}"
    assert opt.d > 0.1


@pytest.mark.parametrize(
    "hyper",
    [
        {},
        {"momentum": 0.6, "eps": 0.01, "weight_decay": 0.1},
        {"weight_decay": 0.1, "decouple_decay": True},
        {"momentum": 0.0},
    ],
    ids=["default", "coupled", "decoupled", "no momentum"],
)
def test_madgrad_in_float64(torch, hyper):
    package = pytest.importorskip("madgrad")
    p, gradients = data()
    other = torch.nn.Parameter(torch.from_numpy(p.copy()))
    ours = {{"decouple_decay": "decoupled_weight_decay"}.get(key, key): x for key, x in hyper.items()}
    opt, theirs = fastlr.MADGRAD(p, lr=rate, **ours), package.MADGRAD([other], **hyper)
    for t, g in enumerate(gradients):
        opt.step(g)
        set_rate(theirs, rate(t))
        other.grad = torch.from_numpy(g.copy())
        theirs.step()
        close(p, other.detach().numpy(), f"p, step {t}")
        for key, name in ("s", "s"), ("v", "grad_sum_sq"):
            close(opt.state[key], theirs.state[other][name].numpy(), f"{key}, step {t}")


@pytest.mark.parametrize(
    ("name", "hyper"), [("SGD", {"momentum": 0.9}), ("AdamW", {"weight_decay": 0.1}), ("RMSprop", {})]
)
def test_mechanic_in_float64(torch, name, hyper):
    """Without its decay, for which theirs has p of after the step. To 1e-9: δ is made of differences of p."""
    package = pytest.importorskip("mechanic_pytorch")
    p, gradient, steps = pulled()
    other = torch.nn.Parameter(torch.from_numpy(p.copy()))
    tuning = {"s_decay": 0.0, "s_init": 1e-4}
    opt = fastlr.mechanize(getattr(fastlr, name), **tuning)(p, lr=0.1, **hyper)
    theirs = package.mechanize(getattr(torch.optim, name), store_delta=True, **tuning)([other], lr=0.1, **hyper)
    for t in range(steps):
        g = gradient(p, t)
        opt.step(g)
        other.grad = torch.from_numpy(g.copy())
        theirs.step()
        its = theirs.state["_mechanic"]
        assert opt.scale == pytest.approx(float(its["s"].sum()), rel=1e-9)
        np.testing.assert_allclose(p, other.detach().numpy(), rtol=0, atol=1e-9)
        np.testing.assert_allclose(opt.state["delta"], its[other]["delta"].numpy(), rtol=0, atol=1e-9)
    assert opt.scale > 0.01


OPTAX_ESTIMATES = {"dadapt_adamw": fastlr.DAdaptAdam, "prodigy": fastlr.Prodigy}


@pytest.mark.parametrize("name", OPTAX_ESTIMATES)
def test_optax_estimates_in_float64(jax, name):
    """With the bias correction that it always has. Its prodigy has the new d in d ε too: 1e-4."""
    import optax.contrib

    with jax.enable_x64(True):
        p, gradient, steps = pulled()
        other = jax.numpy.asarray(p.copy())
        opt = OPTAX_ESTIMATES[name](p, weight_decay=0.1, decouple=True, use_bias_correction=True)
        theirs = getattr(optax.contrib, name)(weight_decay=0.1)
        state = theirs.init(other)
        tolerance = 1e-4 if name == "prodigy" else 1e-11
        for t in range(steps):
            g = gradient(p, t)
            opt.step(g)
            updates, state = theirs.update(jax.numpy.asarray(g), state, other)
            other = optax.apply_updates(other, updates)
            assert opt.d == pytest.approx(float(state.estim_lr), rel=tolerance)
            error = abs(p - np.asarray(other)) / np.maximum(1, abs(p))
            assert error.max() <= tolerance, f"step {t}: off by {error.max():.3g}"
        assert opt.d > 0.1


def test_optax_sophia_in_float64(jax):
    """It takes a diagonal in after the step, for the next: here, then, one step later."""
    import optax.contrib

    with jax.enable_x64(True):
        p, gradients = data()
        diagonals = [x[::-1].copy() for x in gradients]  # of either sign
        other = jax.numpy.asarray(p.copy())
        given = optax.GradientTransformationExtraArgs(
            lambda params: (), lambda g, state, params=None, diagonal=None, **_: (diagonal, state)
        )
        hyper = {"weight_decay": 0.1, "eps": 1e-3}
        theirs = optax.contrib.sophia(0.01, gamma=0.5, hessian_diagonal_fn=given, update_interval=3, **hyper)
        opt = fastlr.Sophia(p, lr=0.01, rho=0.5, use_bias_correction=True, **hyper)
        state, last = theirs.init(other), None
        for t, (g, diagonal) in enumerate(zip(gradients, diagonals, strict=True)):
            opt.step(g, hessian=last)
            updates, state = theirs.update(jax.numpy.asarray(g), state, other, diagonal=jax.numpy.asarray(diagonal))
            other = optax.apply_updates(other, updates)
            last = diagonal if t % 3 == 0 else None
            close(p, np.asarray(other), f"p, step {t}")


def test_optax_rprop_in_float64(jax):
    """It finds the same steps, and makes them one late: what it applies is the move of the step before."""
    import optax

    with jax.enable_x64(True):
        p, gradients = data()
        other = jax.numpy.asarray(p.copy())
        theirs, opt = optax.rprop(0.01), fastlr.Rprop(p, lr=0.01)
        state, last = theirs.init(other), np.zeros(N)
        for t, g in enumerate(gradients):
            before = p.copy()
            opt.step(g)
            updates, state = theirs.update(jax.numpy.asarray(g), state, other)
            (found,) = [x for x in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "step_sizes")) if x != ()]
            close(opt.state["s"], np.asarray(found.step_sizes), f"s, step {t}")
            close(before - p, np.asarray(found.prev_updates), f"move, step {t}")
            applied = np.where((np.sign(last) == -np.sign(g)) & (last != 0), 0, last)
            close(-np.asarray(updates), applied, f"what it applies, step {t}")
            last = before - p


@pytest.mark.parametrize("shape", [(20, 15), (15, 20), (300,)], ids=str)
@pytest.mark.parametrize("scaled", [True, False])
def test_optax_adafactor_in_float64(jax, shape, scaled):
    """fairseq's form with its rate as it is, without decay, which has no rate there.

    The chain is what optax.adafactor makes, but for 1 − t^−0.8, which that narrows to float32.
    """
    import optax

    with jax.enable_x64(True):
        p, gradients = data()
        p = p.reshape(shape)
        other = jax.numpy.asarray(p.copy())
        theirs = optax.chain(
            optax.scale_by_factored_rms(
                min_dim_size_to_factor=1, decay_rate_fn=lambda t, power: 1 - (t + np.float64(1)) ** -power
            ),
            optax.clip_by_block_rms(1.0),
            optax.scale(0.03),
            optax.scale_by_param_block_rms() if scaled else optax.identity(),
            optax.scale(-1),
        )
        opt = fastlr.Adafactor(p, lr=0.03, form="fairseq", relative_step=False, scale_parameter=scaled)
        state = theirs.init(other)
        for t, g in enumerate(gradients):
            opt.step(g.reshape(shape))
            updates, state = theirs.update(jax.numpy.asarray(g.reshape(shape)), state, other)
            other = optax.apply_updates(other, updates)
            close(p, np.asarray(other), f"p, step {t}")


@pytest.mark.parametrize("adjusted", [None, "match_rms_adamw"])
@pytest.mark.parametrize("shape", [(20, 15), (15, 20)], ids=str)
def test_optax_muon_in_float64(jax, shape, adjusted):
    """Transposed, since it has columns for outputs; without Nesterov, for which it corrects b and g each by itself."""
    import optax
    import optax.contrib

    with jax.enable_x64(True):
        p, gradients = data()
        p = p.reshape(shape)
        other = jax.numpy.asarray(p.T.copy())
        rms = {None: None, "match_rms_adamw": 0.2}[adjusted]
        theirs = optax.contrib.muon(0.01, weight_decay=0.1, nesterov=False, eps=1e-30, consistent_rms=rms)
        hyper = {"weight_decay": 0.1, "nesterov": False, "eps": 1e-30, "precision": "float64", "adjust_lr_fn": adjusted}
        opt = fastlr.Muon(p, lr=0.01, **hyper)
        state = theirs.init(other)
        for t, g in enumerate(gradients):
            opt.step(g.reshape(shape))
            updates, state = theirs.update(jax.numpy.asarray(g.reshape(shape).T), state, other)
            other = optax.apply_updates(other, updates)
            close(p, np.asarray(other).T, f"p, step {t}")


def cautious_adamw(torch, p, grad, m, v, t, lr, betas, eps, decay):
    """The step of timm's AdamW with caution=True, and of the authors' C-AdamW, in torch."""
    p.mul_(1 - lr * decay)
    m.lerp_(grad, 1 - betas[0])
    v.mul_(betas[1]).addcmul_(grad, grad, value=1 - betas[1])
    mask = (m * grad > 0).to(grad.dtype)
    mask.div_(mask.mean().clamp_(min=1e-3))
    denominator = (v.sqrt() / (1 - betas[1] ** t) ** 0.5).add_(eps)
    p.addcdiv_(m * mask, denominator, value=-lr / (1 - betas[0] ** t))


def timm_lars(torch, p, grad, buffer, t, lr, momentum, decay, coefficient, eps):
    """The step of timm's Lars, with weight decay and momentum, in torch."""
    long, steep = p.norm(), grad.norm()
    ratio = coefficient * long / (steep + long * decay + eps)
    grad = grad.add(p, alpha=decay) * torch.where((long > 0) & (steep > 0), ratio, 1.0)
    buffer.copy_(grad) if t == 1 else buffer.mul_(momentum).add_(grad)
    p.add_(buffer, alpha=-lr)


def authors_sgd_hd(p, grad, last, lr, beta):
    """The step of the authors' SGDHD, in torch; the new rate."""
    lr += beta * float(grad @ last)
    last.copy_(grad)
    p.add_(grad, alpha=-lr)
    return lr


def test_what_timm_and_the_authors_do_written_in_torch(torch):
    """Those packages are not installed; these are their steps, for two tensors, so that norms are a tensor's."""
    start, gradients = data()
    for name in ("AdamW", "LARS", "SGDHD"):
        parts = np.split(start.copy(), [100])
        theirs = [torch.from_numpy(x.copy()) for x in parts]
        a, b = ([torch.zeros_like(x) for x in theirs] for _ in range(2))
        rates = [1e-3, 1e-3]
        if name == "AdamW":
            opt = fastlr.AdamW(parts, lr=0.01, weight_decay=0.1, cautious=True)
        elif name == "LARS":
            opt = fastlr.LARS(parts, lr=0.5, momentum=0.9, weight_decay=0.1, trust_coeff=0.1)
        else:
            groups = [{"params": x} for x in parts]
            opt = fastlr.SGDHD(groups, lr=1e-3, hypergrad_lr=1e-9, additive=True)
        for t, g in enumerate(gradients, 1):
            given = np.split(g.copy(), [100])
            opt.step(given)
            for k, x in enumerate(theirs):
                grad = torch.from_numpy(given[k].copy())
                if name == "AdamW":
                    cautious_adamw(torch, x, grad, a[k], b[k], t, 0.01, (0.9, 0.999), 1e-8, 0.1)
                elif name == "LARS":
                    timm_lars(torch, x, grad, a[k], t, 0.5, 0.9, 0.1, 0.1, 1e-8)
                else:
                    rates[k] = authors_sgd_hd(x, grad, a[k], rates[k], 1e-9)
                    assert opt.rates[k] == pytest.approx(rates[k], rel=1e-12)
                close(parts[k], x.numpy(), f"{name}, p[{k}], step {t}")
        assert name != "SGDHD" or abs(rates[0] - 1e-3) > 1e-6
