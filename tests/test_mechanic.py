"""Mechanic about rules of every kind; its arithmetic, as that of all rules, is in test_rules.py and test_exact.py."""

from __future__ import annotations

import functools
import inspect

import numpy as np
import pytest

import fastlr
from fastlr.plain import overrides
from tests.cases import curvature, nonzero

SHAPES = [(40, 30), (7,), (5, 6)]
RULES = [
    fastlr.SGD,
    functools.partial(fastlr.SGD, momentum=0.9),
    fastlr.AdamW,
    functools.partial(fastlr.Adam, cautious=True),
    fastlr.Lion,
    fastlr.LAMB,
    fastlr.NAdam,
    fastlr.NovoGrad,
    fastlr.Adagrad,
    fastlr.Adafactor,
    fastlr.Yogi,
]


def mechanic(rule, **tuning):
    """Mechanic about a class, with its arguments."""
    cls, kwargs = (rule.func, rule.keywords) if isinstance(rule, functools.partial) else (rule, {})
    return functools.partial(fastlr.mechanize(cls, **{"s_init": 1e-2, **tuning}), **kwargs)


def name_of(rule):
    return rule.func.__name__ + "".join(f"-{key}" for key in rule.keywords) if hasattr(rule, "func") else rule.__name__


every_rule = pytest.mark.parametrize("rule", RULES, ids=name_of)


def start(dtype=np.float32):
    return [nonzero(int(np.prod(shape)), dtype, k).reshape(shape) for k, shape in enumerate(SHAPES)]


def gradients(p, t, dtype=np.float32):
    """Of ½‖p − 3‖², with noise."""
    noise = np.random.default_rng(t)
    return [(x - 3 + 0.1 * noise.standard_normal(x.shape)).astype(dtype) for x in p]


def run(opt, p, steps, first=0, **options):
    for t in range(first, first + steps):
        opt.step(gradients(p, t, p[0].dtype), **options)


def everything(opt, p):
    return [*p, *(x for key in opt.states for x in opt._entries[key]), *map(np.array, opt._plan.numbers)]


def assert_same(one, other):
    for x, y in zip(one, other, strict=True):
        np.testing.assert_array_equal(x, y)


@every_rule
def test_it_is_the_rules_own_steps_scaled(rule):
    """One step from x₀ is S times the rule's own; S is what it says."""
    p, alone = start(np.float64), start(np.float64)
    opt, plain = mechanic(rule)(p, lr=0.01), rule(alone, lr=0.01)
    run(opt, p, 1)
    run(plain, alone, 1)
    for x, y, x0, delta in zip(p, alone, start(np.float64), opt.state["delta"], strict=True):
        np.testing.assert_allclose(delta, y - x0, rtol=0, atol=1e-15)
        np.testing.assert_array_equal(x, x0 + opt.scale * delta)
    assert opt.scale > 0


WHOLE = [x for x in map(fastlr.__dict__.get, fastlr.__all__) if inspect.isclass(x) and issubclass(x, fastlr.Optimizer)]
WHOLE = [cls for cls in WHOLE if not inspect.isabstract(cls) and not cls.per_row]


def informing(cls, g):
    """What a step is given beside gradients."""
    return {"hessian": [curvature(x) for x in g]} if cls.informed and not overrides(cls, "derived") else {}


@pytest.mark.parametrize("cls", [cls for cls in WHOLE if cls.tunable], ids=lambda cls: cls.__name__)
def test_every_class_makes_its_own_steps_scaled(cls):
    """δ grows by the step that the rule makes from where p is, with its state to the bit; then p is x₀ + Sδ."""
    p, alone, resumed = ([x for x in start(np.float64) if x.ndim == 2] for _ in range(3))
    x0 = [x.copy() for x in p]
    opt, plain, again = mechanic(cls)(p, lr=0.01), cls(alone, lr=0.01), mechanic(cls)(resumed, lr=0.01)
    for t in range(3):
        g = gradients(p, t, np.float64)
        before, delta = [x.copy() for x in p], [x.copy() for x in opt.state["delta"]]
        for x, y, z in zip(p, alone, resumed, strict=True):
            y[...] = z[...] = x
        again.load_state_dict(opt.state_dict())
        for one in (plain, opt, again):
            one.step(g, **informing(cls, g))
        for k, x in enumerate(p):
            grown = opt.state["delta"][k] - delta[k]
            np.testing.assert_allclose(grown, alone[k] - before[k], rtol=0, atol=1e-14)
            np.testing.assert_array_equal(x, x0[k] + opt.scale * opt.state["delta"][k])
        for key in plain.states:
            assert_same(opt._entries[key], plain._entries[key])
        assert_same(everything(opt, p), everything(again, resumed))
    assert opt.scale > 0


@pytest.mark.parametrize("cls", [cls for cls in WHOLE if not cls.tunable], ids=lambda cls: cls.__name__)
def test_a_class_that_finds_its_rate_or_keeps_a_point_is_refused(cls):
    assert f"`{cls.__name__}`" in fastlr.mechanize.__doc__
    message = f"cls must keep no point beside the parameters and find no rate itself, got {cls.__name__}"
    with pytest.raises(TypeError, match=message):
        fastlr.mechanize(cls)
    with pytest.raises(TypeError, match=message):
        fastlr.functional.mechanize(fastlr.functional.BY_RULE[cls])


def test_no_other_class_is_said_to_be_refused():
    """Those that keep where they began, or a mean, are among them; what has a rate of its own is, too."""
    refused = {cls.__name__ for cls in WHOLE if not cls.tunable}
    assert len(refused) == 13
    for cls in WHOLE:
        finds = hasattr(cls, "rates") or hasattr(cls, "eval_params") or hasattr(cls, "d")
        keeps = bool({"x0", "z", "x"} & {*cls.states}) and cls is not fastlr.AMSGrad  # whose x is a maximum
        assert (cls.__name__ in refused) == (finds or keeps), cls.__name__


@every_rule
def test_a_rate_that_is_far_off_is_found(rule):
    p = start()
    opt = mechanic(rule)(p, lr=1e-3)
    before = sum(float(((x - 3) ** 2).sum()) for x in p)
    run(opt, p, 100)  # with the rate as it is they would have gone a tenth of the way, at most
    assert sum(float(((x - 3) ** 2).sum()) for x in p) < 0.3 * before
    assert opt.scale > 5


@every_rule
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_the_same_bits_for_any_number_of_threads(rule, threads):
    results = []
    for n in (1, threads):
        with fastlr.num_threads(n):
            p = start()
            opt = mechanic(rule)(p)
            run(opt, p, 5, clip_norm=1.0)
            results.append(everything(opt, p))
    assert_same(*results)


@every_rule
def test_checkpoints_resume_bit_for_bit(rule, tmp_path):
    p = start()
    opt = mechanic(rule)(p)
    run(opt, p, 4)
    saved = opt.state_dict()
    opt.save(tmp_path / "opt.safetensors")
    q = [x.copy() for x in p]
    again, third, r = mechanic(rule)(q), [x.copy() for x in p], None
    again.load_state_dict(saved)
    r = mechanic(rule)(third)
    r.load(tmp_path / "opt.safetensors")
    for other, x in ((opt, p), (again, q), (r, third)):
        run(other, x, 4, 4)
    assert_same(everything(opt, p), everything(again, q))
    assert_same(everything(opt, p), everything(r, third))


def test_a_checkpoint_of_another_kind_is_refused_and_changes_nothing():
    p = start()
    opt, plain = mechanic(fastlr.AdamW)(p), fastlr.AdamW(start())
    run(opt, p, 2)
    before = [np.copy(x) for x in everything(opt, p)]
    with pytest.raises(ValueError, match=r"state_dict\['numbers'\]|state_dict\['state'\]"):
        opt.load_state_dict(plain.state_dict())
    with pytest.raises(ValueError, match=r"state_dict\['numbers'\]"):
        opt.load_state_dict(mechanic(fastlr.AdamW, betas=(0.9,))(start()).state_dict())
    assert_same(everything(opt, p), before)


@every_rule
def test_functional_is_the_class(rule):
    """One array at a time, as all rules have it in test_rules.py, with the states of each."""
    cls, kwargs = (rule.func, rule.keywords) if isinstance(rule, functools.partial) else (rule, {})
    update = fastlr.functional.mechanize(fastlr.functional.BY_RULE[cls], betas=(0.9, 0.5), s_init=1e-2)
    p, q = start()[:1], start()[:1]
    opt = mechanic(rule, betas=(0.9, 0.5))(p, lr=0.01)
    state = {key: np.copy(opt.state[key][0]) for key in opt.states}
    numbers = np.concatenate(opt._plan.numbers)
    assert not numbers.any()
    for t in range(1, 6):
        (g,) = gradients(p, t)[:1]
        opt.step([g])
        update(q[0], g, **state, numbers=numbers, step=t, lr=0.01, **kwargs)
        assert_same(everything(opt, p), [*q, *(state[key] for key in opt.states), *numbers_like(opt, numbers)])
    assert opt.scale > 0


def numbers_like(opt, numbers):
    """A flat array as rows of the lengths of the optimizer's."""
    return np.split(numbers, np.cumsum([len(row) for row in opt._plan.numbers])[:-1])


def test_functional_refuses_what_the_class_does():
    f = fastlr.functional
    p = np.ones(3, np.float32)
    with pytest.raises(TypeError, match=r"update must be a function of fastlr\.functional, such as adamw, got <class"):
        f.mechanize(fastlr.AdamW)
    with pytest.raises(TypeError, match="not mechanized, got MechanicSGD"):
        f.mechanize(f.mechanize(f.sgd))
    with pytest.raises(TypeError, match="that step whole and are not mechanized, got RowAdagrad"):
        f.mechanize(f.row_adagrad)
    with pytest.raises(TypeError, match=r"betas must be 1 to 8 numbers in \[0, 1\)"):
        f.mechanize(f.sgd, betas=())
    update = f.mechanize(f.sgd)
    with pytest.raises(TypeError, match="numbers must be a writable float64 array of 25, got None"):
        update(p, p.copy(), p.copy(), p.copy(), step=1)
    with pytest.raises(ValueError, match="state must be delta, start for these hyper-parameters, got delta"):
        update(p, p.copy(), p.copy(), step=1, numbers=np.zeros(25))
    np.testing.assert_array_equal(p, 1)


def test_groups_share_one_scale_each_with_its_rate():
    p = start(np.float64)
    groups = [{"params": p[:1]}, {"params": p[1:], "lr": 0.0}]
    opt = mechanic(fastlr.SGD)(groups, lr=0.1)
    for t in range(4):
        g = gradients(p, t, np.float64)
        opt.step([g[:1], g[1:]])
    for x, x0 in zip(p[1:], start(np.float64)[1:], strict=True):
        np.testing.assert_array_equal(x, x0)
    assert (p[0] != start(np.float64)[0]).all()


def test_a_flat_buffer_is_the_list():
    p = start()
    flat = fastlr.FlatBuffer.pack({f"x{k}": x for k, x in enumerate(p)})
    opt, other = mechanic(fastlr.LAMB)(p), mechanic(fastlr.LAMB)(flat)
    for t in range(4):
        g = gradients(p, t)
        other.step(fastlr.FlatBuffer.pack({f"x{k}": x for k, x in enumerate(g)}))
        opt.step(g)
    for k, x in enumerate(p):
        np.testing.assert_array_equal(x, flat[f"x{k}"])


@every_rule
def test_a_parameter_without_a_gradient_stays(rule):
    """Its x₀ is where it was before its own first step, and its scale that of its last."""
    p = start()
    opt = mechanic(rule)(p)
    held = p[1].copy()
    for t in range(3):
        opt.step([gradients(p, t)[0], None, gradients(p, t)[2]])
    np.testing.assert_array_equal(p[1], held)
    np.testing.assert_array_equal(opt.state["start"][1], 0)
    p[1][:] = 7
    run(opt, p, 2, 3)
    np.testing.assert_array_equal(opt.state["start"][1], 7)
    held, scale = p[0].copy(), opt.scale
    for t in range(5, 8):
        opt.step([None, *gradients(p, t)[1:]])
    np.testing.assert_array_equal(p[0], held)
    assert opt.scale != scale
    delta = opt.state["delta"][0].copy()
    opt.groups[0].lr = 0.0
    run(opt, p, 1, 8)  # the rule's step is 0: δ stays, p is at the scale of now
    np.testing.assert_array_equal(opt.state["delta"][0], delta)
    np.testing.assert_array_equal(p[0], opt.state["start"][0] + np.float32(opt.scale) * delta)


def test_steps_without_any_gradient_change_nothing_but_the_count():
    p = start()
    opt = mechanic(fastlr.AdamW)(p)
    run(opt, p, 3)
    before = [np.copy(x) for x in everything(opt, p)]
    assert opt.step([None, None, None]).step == 4
    assert_same(everything(opt, p), before)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite(bad):
    """Skipped, nothing changes; raised, neither; propagated, the scale stays as it was."""
    for policy in ("skip", "raise", "propagate"):
        p = start()
        opt = mechanic(fastlr.AdamW)(p, nonfinite=policy)
        run(opt, p, 3)
        before, scale = [np.copy(x) for x in everything(opt, p)], opt.scale
        g = gradients(p, 3)
        g[0][3, 4] = bad
        if policy == "raise":
            with pytest.raises(FloatingPointError, match="grads must be finite"):
                opt.step(g)
        else:
            assert opt.step(g).skipped == (policy == "skip")
        if policy == "propagate":
            assert opt.scale == scale
            assert np.isnan(p[0][3, 4]) == np.isnan(bad)
            assert np.isfinite(p[1]).all()
        else:
            assert_same(everything(opt, p), before)


def test_clipping_scaling_and_zeroing_are_those_of_the_gradient():
    p, q = start(np.float64), start(np.float64)
    opt, other = mechanic(fastlr.SGD)(p), mechanic(fastlr.SGD)(q, maximize=True)
    for t in range(4):
        g = gradients(p, t, np.float64)
        h = [-4 * x for x in g]
        opt.step(g)
        other.step(h, grad_scale=0.25, zero_grads=True)
        assert all((x == 0).all() for x in h)
    assert_same(everything(opt, p), everything(other, q))


def test_an_error_changes_nothing():
    p = start()
    opt = mechanic(fastlr.AdamW)(p)
    run(opt, p, 2)
    before = [np.copy(x) for x in everything(opt, p)]
    with pytest.raises(ValueError, match="must not overlap"):
        opt.step([opt.state["delta"][0], *gradients(p, 0)[1:]])
    with pytest.raises(ValueError, match="must not overlap"):
        opt.step([opt.state["start"][0], *gradients(p, 0)[1:]])
    with pytest.raises(TypeError, match=r"grads\[2\]"):
        opt.step([*gradients(p, 0)[:2], gradients(p, 0, np.float64)[2]])
    assert_same(everything(opt, p), before)
    assert opt.step_count == 2


def test_rules_that_are_given_a_hessian():
    p = start()
    opt = fastlr.mechanize(fastlr.AdaHessian, s_init=1e-2)(p, lr=0.1)
    for t in range(3):
        g = gradients(p, t)
        opt.step(g, hessian=curvature(g))
    assert opt.scale > 0
    with pytest.raises(TypeError, match="hessian must be given"):
        opt.step(gradients(p, 0))


def test_rows_alone_are_refused():
    opt = fastlr.mechanize(fastlr.SGD)(np.zeros((4, 3), np.float32))
    with pytest.raises(TypeError, match="MechanicSGD has no step_rows"):
        opt.step_rows(np.array([1]), np.ones((1, 3), np.float32))
    with pytest.raises(TypeError, match="optimizers that step whole and are not mechanized, got RowAdagrad"):
        fastlr.mechanize(fastlr.RowAdagrad)
    with pytest.raises(TypeError, match="got MechanicSGD"):
        fastlr.mechanize(fastlr.mechanize(fastlr.SGD))
    with pytest.raises(TypeError, match=r"cls must be a class of optimizers, such as fastlr\.AdamW, got 3"):
        fastlr.mechanize(3)


@pytest.mark.parametrize(
    ("tuning", "error", "message"),
    [
        ({"betas": ()}, TypeError, r"betas must be 1 to 8 numbers in \[0, 1\), got \(\)"),
        ({"betas": (0.9,) * 9}, TypeError, r"betas must be 1 to 8 numbers"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must be in \[0, 1\), got 1\.0"),
        ({"s_init": 0.0}, ValueError, r"s_init must be finite and > 0, got 0\.0"),
        ({"s_decay": -1.0}, ValueError, r"s_decay must be finite and >= 0, got -1\.0"),
        ({"eps": 0.0}, ValueError, r"eps must be finite and > 0, got 0\.0"),
    ],
)
def test_bad_tuning_is_refused(tuning, error, message):
    with pytest.raises(error, match=message):
        fastlr.mechanize(fastlr.SGD, **tuning)


def test_train_and_schedules_take_it():
    from fastlr import schedules as S

    def objective(params, step):
        return 0.5 * float(((params - 1) ** 2).sum()), params - 1

    p = np.zeros(5, np.float32)
    opt = fastlr.mechanize(fastlr.AdamW, s_init=1e-3)(p, lr=S.cosine(1e-3, 0.0, 300))
    history = fastlr.train(objective, p, opt, steps=300)
    assert history.loss[-1] < 0.1 * history.loss[0]


def test_gradients_of_another_type_and_no_storage_in_fewer_bits():
    p, q = start(), start()
    cls = fastlr.mechanize(fastlr.AdamW, s_init=1e-2)
    opt, other = cls(p), cls(q)
    for t in range(3):
        g = [x.astype(np.float16) for x in gradients(p, t)]
        opt.step(g)
        other.step([x.astype(np.float32) for x in g])
    assert_same(everything(opt, p), everything(other, q))
    for options in {"state_dtype": "bfloat16"}, {"ema": 0.9}, {"copy_to": [x.copy() for x in p]}:
        with pytest.raises(TypeError, match="MechanicAdamW has float32 or float64 parameters and state"):
            cls(p, **options)
