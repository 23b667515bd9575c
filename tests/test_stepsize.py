"""Rates computed from the objective, and Newton's method: their formulas, and how fast they converge on real data."""

import math

import numpy as np
import pytest

import fastlr
from fastlr.demo import cases
from fastlr.demo.objectives import LeastSquares
from fastlr.training.callbacks import Checkpoint

RULES = [fastlr.Armijo, fastlr.BarzilaiBorwein, fastlr.Polyak, fastlr.AdGD]


def quiet(objective, params, optimizer, steps, *callbacks, **more):
    return fastlr.train(objective, params, optimizer, steps, callbacks, progress=False, **more)


def quadratic(h):
    h = np.asarray(h, float)
    return lambda w, step: (float(0.5 * w @ (h * w)), h * w)


# ---- formulas --------------------------------------------------------------------------------------------------------


def test_armijo_takes_the_first_rate_that_decreases_enough():
    w = np.array([1.0])
    history = quiet(quadratic([10.0]), w, fastlr.Armijo(w, shrink=0.5, grow=2.0), 1)
    # f(1 − 10η) ≤ f(1) − c·100η  ⇔  η ≤ 0.2 (1 − c): 1, ½, ¼ fail, ⅛ does not
    assert history.lr == [0.125]
    assert w[0] == 1 - 10 * 0.125
    w = np.array([1.0])
    assert quiet(quadratic([0.5]), w, fastlr.Armijo(w, max_lr=3.0, grow=2.0), 4).lr[-1] == 3.0


def test_armijo_gives_up_at_a_wall():
    w = np.array([1.0])
    opt = fastlr.Armijo(w, max_backtracks=3)
    report = opt.step(np.array([1.0]), loss=0.0, evaluate=lambda: (1.0, None))
    assert (report.lr, w[0]) == (0.0, 1.0)


def test_barzilai_borwein_by_hand():
    h = np.array([1.0, 4.0])
    for kind in ("long", "short", "alternate"):
        w = np.array([1.0, 1.0])
        history = quiet(quadratic(h), w, fastlr.BarzilaiBorwein(w, lr=0.1, kind=kind), 3)
        x, g, lrs = np.array([1.0, 1.0]), h.copy(), [0.1]
        for k in range(1, 3):
            new = x - lrs[-1] * g
            s, y = new - x, h * new - g
            long = kind == "long" or (kind == "alternate" and k % 2 == 1)
            lrs.append(s @ s / (s @ y) if long else s @ y / (y @ y))
            x, g = new, h * new
        np.testing.assert_allclose(history.lr, lrs, rtol=1e-12)


def test_barzilai_borwein_keeps_its_rate_where_the_curvature_is_negative():
    w = np.array([1.0])
    assert quiet(lambda w, step: (float(-(w[0] ** 2)), -2 * w), w, fastlr.BarzilaiBorwein(w, lr=0.1), 3).lr == [0.1] * 3


def test_polyak_by_hand():
    w = np.array([3.0, 4.0])
    history = quiet(quadratic([1.0, 1.0]), w, fastlr.Polyak(w), 2)
    assert history.lr == [pytest.approx(0.5)] * 2
    assert fastlr.Polyak(w, f_star=1e9).step(np.ones(2), loss=0.0).lr == 0
    assert fastlr.Polyak(w, max_lr=0.25).step(np.ones(2), loss=100.0).lr == 0.25
    assert fastlr.Polyak(w).step(np.zeros(2), loss=1.0).lr == 0


def test_adgd_by_hand():
    h = np.array([1.0, 4.0])
    w = np.array([1.0, 1.0])
    history = quiet(quadratic(h), w, fastlr.AdGD(w, lr=1e-3), 4)
    x, lrs, theta = np.array([1.0, 1.0]), [1e-3], math.inf
    for _ in range(3):
        new = x - lrs[-1] * h * x
        lr = min(math.sqrt(1 + theta) * lrs[-1], np.linalg.norm(new - x) / (2 * np.linalg.norm(h * new - h * x)))
        theta = lr / lrs[-1]
        lrs.append(lr)
        x = new
    np.testing.assert_allclose(history.lr, lrs, rtol=1e-12)


# ---- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda w, f: fastlr.Armijo(w, max_lr=100.0),
        lambda w, f: fastlr.BarzilaiBorwein(w),
        lambda w, f: fastlr.Polyak(w, f_star=f),
        lambda w, f: fastlr.AdGD(w),
    ],
)
@pytest.mark.parametrize("case", ["diabetes", "breast cancer"])
def test_without_a_rate_they_reach_the_solution(make, case):
    """As far as gradient descent with its best constant rate would, or farther."""
    objective = cases.CASES[case](0)
    solution = solve(objective)
    best, _ = objective(solution, 0)
    start, _ = objective(objective.params, 0)
    # Polyak's rate halves the distance to f* at best where it is flat; give all of them the same number of steps.
    quiet(objective, objective.params, make(objective.params, best), 800)
    assert objective(objective.params, 0)[0] - best < 1e-4 * (start - best)


def solve(objective):
    if isinstance(objective, LeastSquares):
        return objective.solution()
    w = np.zeros_like(objective.params)
    quiet(objective, w, fastlr.Newton(w, objective, objective.hvp), 12)
    assert np.abs(objective(w, 0)[1]).max() < 1e-12
    return w


@pytest.mark.parametrize("rule", [fastlr.Newton, fastlr.NewtonCG])
@pytest.mark.parametrize("given", [False, True])
def test_newton_converges_quadratically_on_logistic_regression(rule, given):
    """‖g‖ at each step is about the square of that of the step before: its digits double."""
    objective = cases.breast_cancer()
    w = objective.params
    history = quiet(objective, w, rule(w, objective, objective.hvp if given else None), 14)
    norms = np.array(history.grad_norm)
    # Where it is neither far from the minimum nor at the limit of rounding (and of differences).
    here = [k for k in range(len(norms) - 1) if 1e-5 < norms[k] < 2e-2]
    assert len(here) >= 2
    assert all(norms[k + 1] < 60 * norms[k] ** 2 for k in here)
    assert norms[-1] < 1e-12 if given else norms[-1] < 1e-10
    assert history.lr[-1] == 1 or norms[-1] < 1e-13


def test_newton_leaves_a_saddle_downhill():
    def objective(w, step):
        return float(w[0] ** 2 - w[1] ** 2 + w[1] ** 4), np.array([2 * w[0], -2 * w[1] + 4 * w[1] ** 3])

    for rule in (fastlr.Newton, fastlr.NewtonCG):
        w = np.array([0.5, 1e-2])
        history = quiet(objective, w, rule(w, objective), 30)
        assert objective(w, 0)[0] == pytest.approx(-0.25, abs=1e-9)
        assert all(np.diff(history.loss) <= 1e-15)


def test_newton_cg_on_many_parameters_needs_few_products():
    n = 5000
    h = np.geomspace(1, 10, n)
    products = []

    def hvp(w, v, step):
        products.append(1)
        return h * v

    def objective(w, step):
        return float(0.5 * w @ (h * w) - w.sum()), h * w - 1

    w = np.zeros(n)
    quiet(objective, w, fastlr.NewtonCG(w, objective, hvp), 8)
    np.testing.assert_allclose(w, 1 / h, atol=1e-6)
    assert len(products) < n / 20


def test_newton_alone_without_train():
    w = np.array([3.0])
    opt = fastlr.Newton(w, quadratic([2.0]), damping=0.0)
    report = opt.step(np.array([6.0]))
    assert abs(w[0]) < 1e-6
    assert (report.step, report.lr, report.grad_norm) == (1, 1.0, 6.0)


# ---- structures, checkpoints, errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_structures_give_the_same_steps(rule):
    h = np.array([1.0, 2.0, 5.0])

    def parts(p, step):
        w = np.r_[p["a"], p["b"]]
        return float(0.5 * w @ (h * w)), {"a": h[:1] * p["a"], "b": h[1:] * p["b"]}

    whole, params = np.ones(3), {"a": np.ones(1), "b": np.ones(2)}
    buffer = fastlr.FlatBuffer.pack({"a": np.ones(1), "b": np.ones(2)})

    def flat(p, step):
        loss, g = parts(p, step)
        return loss, fastlr.FlatBuffer.pack(g)

    one = quiet(quadratic(h), whole, rule(whole), 8)
    two = quiet(parts, params, rule(params), 8)
    three = quiet(flat, buffer, rule(buffer), 8)
    np.testing.assert_allclose(two.lr, one.lr, rtol=1e-10)
    np.testing.assert_allclose(three.lr, one.lr, rtol=1e-10)


def test_objectives_that_reuse_their_buffer_do_not_disturb_the_line_search():
    h, g = np.array([1.0, 30.0]), np.empty(2)

    def reuses(w, step):
        np.multiply(h, w, out=g)
        return float(0.5 * w @ g), g

    one, two = np.ones(2), np.ones(2)
    quiet(reuses, one, fastlr.Armijo(one), 10)
    quiet(quadratic(h), two, fastlr.Armijo(two), 10)
    assert np.array_equal(one, two)


@pytest.mark.parametrize("rule", RULES)
def test_checkpoints_go_on_bit_for_bit(rule, tmp_path):
    def run(resume=None):
        objective = cases.diabetes()
        opt = rule(objective.params)
        quiet(objective, objective.params, opt, 20, Checkpoint(tmp_path / "{step}", 7), resume=resume)
        return objective.params, opt.lr

    whole, part = run(), run(tmp_path / "7")
    assert np.array_equal(whole[0], part[0])
    assert whole[1] == part[1]
    with pytest.raises(ValueError, match="rule"):
        (fastlr.Polyak if rule is not fastlr.Polyak else fastlr.AdGD)(np.ones(3)).load_state_dict(
            rule(np.ones(3)).state_dict()
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fastlr.Armijo(np.ones(2), c=1.0), r"c must be in \(0, 1\)"),
        (lambda: fastlr.Armijo(np.ones(2), grow=0.5), "grow must be >= 1"),
        (lambda: fastlr.Armijo(np.ones(2), max_lr=0.0), "max_lr must be"),
        (lambda: fastlr.BarzilaiBorwein(np.ones(2), kind="x"), "kind must be one of"),
        (lambda: fastlr.AdGD(np.ones(2), lr=0.0), "lr must be"),
        (lambda: fastlr.Polyak([]), "at least one array"),
        (lambda: fastlr.Armijo(np.ones(2)).step(np.ones(2)), "Armijo.step needs loss= and evaluate="),
        (lambda: fastlr.Polyak(np.ones(2)).step(np.ones(2)), "Polyak.step needs loss="),
        (lambda: fastlr.AdGD(np.ones(2)).step(np.ones(2), clip_norm=1.0), "clip_norm must be None"),
        (lambda: fastlr.AdGD(np.ones(2)).step(np.ones(3)), r"grads: expected shape \(2,\) to match"),
        (lambda: fastlr.Newton(np.ones(2), quadratic([1.0]), damping=-1.0), "damping must be"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_gradients_that_are_not_finite_change_nothing():
    w = np.ones(2)
    opt = fastlr.AdGD(w)
    with pytest.raises(FloatingPointError):
        opt.step(np.array([1.0, math.nan]))
    assert np.array_equal(w, [1, 1])
    assert opt.step_count == 0
    with pytest.raises(TypeError, match="objective must be callable"):
        fastlr.Newton(w, 3)
    with pytest.raises(TypeError, match="grads: expected float64 to match the parameters, got float32"):
        opt.step(np.ones(2, np.float32))
