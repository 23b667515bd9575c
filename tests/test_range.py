"""The range test: pairing, restoring, reading curves, and suggestions that do not move with the number of steps."""

import functools
import math

import numpy as np
import pytest

import fastlr
from fastlr import tune
from fastlr.demo import cases
from fastlr.tune import curve, fastai


def quiet(*arguments, **more):
    return tune.range_test(*arguments, progress=False, **more)


def bowl(w, step):
    return float(0.5 * w @ w), w.copy()


# ---- the curve -------------------------------------------------------------------------------------------------------


def test_a_loss_is_paired_with_the_rate_whose_update_it_follows():
    w = np.array([2.0])
    found = quiet(bowl, w, fastlr.SGD, low=1e-3, high=1.0, steps=40)
    p, expected = 2.0, []
    for lr in np.geomspace(1e-3, 1, 40):
        p -= lr * p
        expected.append(0.5 * p * p)
    assert found.start == 2
    np.testing.assert_allclose(found.losses[0], expected, rtol=1e-12)
    np.testing.assert_allclose(found.lrs[0], np.geomspace(1e-3, 1, 40))


def test_reset_starts_each_rate_anew():
    found = quiet(bowl, np.array([2.0]), fastlr.SGD, low=1e-2, high=1.0, steps=20, mode="reset", inner=3)
    lrs = np.geomspace(1e-2, 1, 20)
    np.testing.assert_allclose(found.losses[0], 2 * (1 - lrs) ** 6, rtol=1e-9, atol=1e-30)


def test_local_lines_are_exact_on_lines_and_do_not_lag():
    x = np.sort(np.random.default_rng(0).normal(size=50))
    value, slope = curve.local_line(x, 3 - 2 * x, 0.5)
    np.testing.assert_allclose(value, 3 - 2 * x, atol=1e-12)
    np.testing.assert_allclose(slope, -2, atol=1e-10)


def test_suggestion_is_below_the_stability_bound_and_near_it():
    objective = cases.diabetes()
    bound = 2 / objective.lipschitz
    found = quiet(objective, objective.params, fastlr.SGD)
    assert bound / 4 < found.suggestion < bound
    assert found.bracket[0] < found.suggestion < found.bracket[1]
    assert found.flags == ()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [-100.0, 0.0, 1e3])
def test_nothing_depends_on_where_the_loss_is_zero_or_on_its_unit(scale, shift):
    """Negative losses, where four times the best is no bound."""
    lrs = np.geomspace(1e-7, 10, 100)
    random = np.random.default_rng(1)
    falls = np.exp(-((np.log(lrs / 0.1) / 3) ** 2)) - np.minimum(1e3, (lrs / 2) ** 4) + 0.01 * random.normal(size=100)
    plain = curve.read(lrs, 3 - falls, 3.0)
    moved = curve.read(lrs, scale * (3 - falls) + shift * scale, 3 * scale + shift * scale)
    assert moved.suggestion == pytest.approx(plain.suggestion, rel=1e-6)
    assert moved.flags == plain.flags == ()
    assert moved.confidence == pytest.approx(plain.confidence, rel=1e-3)

    one, two = curve.Divergence(3.0, 10), curve.Divergence(3 * scale + shift * scale, 10)
    ends = [
        next(k for k, x in enumerate(3 - falls) if one(x)),
        next(k for k, x in enumerate(3 - falls) if two(scale * x + shift * scale)),
    ]
    assert ends[0] == ends[1] < 99
    assert lrs[ends[0]] > 2


def test_one_bad_batch_is_no_divergence_and_nan_is():
    diverged = curve.Divergence(1.0, 3)
    assert not any(diverged(x) for x in (1.0, 1.1, 0.9, 0.5, 1e9, 0.5, 1e9, 1e9, 0.4))
    assert diverged(math.nan)


@pytest.mark.parametrize("case", ["digits", "diabetes"])
@pytest.mark.parametrize("rule", [fastlr.SGD, functools.partial(fastlr.SGD, momentum=0.9), fastlr.Adam])
def test_ten_times_the_steps_give_the_same_suggestion_within_a_factor_of_three(case, rule):
    def suggestion(steps):
        objective = cases.CASES[case](0)
        return quiet(objective, objective.params, rule, steps=steps).suggestion

    assert 1 / 3 < suggestion(100) / suggestion(1000) < 3


@pytest.mark.parametrize("mode", ["ramp", "reset"])
def test_replicates_see_other_batches_and_agree(mode):
    objective = cases.digits(0)
    found = quiet(objective, objective.params, fastlr.SGD, low=1e-4, steps=40, replicates=3, mode=mode, inner=4)
    assert len(found.losses) == 3
    assert not np.array_equal(found.losses[0][:20], found.losses[1][:20])
    assert 0.05 < found.suggestion < 0.5
    assert found.confidence > 0.4


def test_flags_say_what_is_wrong():
    w = np.array([2.0])
    assert "no edge: raise high" in quiet(bowl, w, fastlr.SGD, high=0.5).flags
    flat = quiet(lambda w, step: (1.0, np.zeros(1)), w, fastlr.SGD)
    assert flat.flags == ("no descent",)
    assert math.isnan(flat.suggestion)
    assert flat.confidence == 0
    noise = quiet(lambda w, step: (float(np.random.default_rng(step).normal()), np.zeros(1)), w, fastlr.SGD, steps=300)
    assert noise.flags == ("no descent",)


def test_curves_that_disagree_are_not_trusted():
    readings = [curve.Reading(x, x, x, x, 1.0, ()) for x in (1e-3, 1e-2, 1e-1)]
    found = curve.agree(readings)
    assert found.suggestion == pytest.approx(1e-2)
    assert found.confidence < 0.05
    assert found.flags == ("replicates disagree",)


# ---- restoring -------------------------------------------------------------------------------------------------------


class Drawing:
    def __init__(self):
        self.rng = np.random.default_rng(3)

    def __call__(self, w, step):
        g = w + 0.1 * self.rng.normal(size=w.size) + 0.1 * np.random.normal(size=w.size)
        return float(g @ g), g


@pytest.mark.parametrize("mode", ["ramp", "reset"])
@pytest.mark.parametrize("rule", [fastlr.AdamW, functools.partial(fastlr.SGD, momentum=0.9)])
def test_parameters_state_and_generators_are_restored_exactly(mode, rule):
    def run(test):
        np.random.seed(5)
        w, objective = np.ones(4, np.float32), Drawing()
        objective32 = Wrapped(objective)
        opt = rule(w, lr=lambda step: 0.1 / (step + 1), weight_decay=0.1)
        for k in range(3):
            opt.step(objective32(w, k)[1])
        if test:
            quiet(objective32, w, opt, steps=30, mode=mode, inner=2, replicates=2)
        for k in range(3):
            opt.step(objective32(w, k)[1])
        return w, opt.step_count

    with_test, without = run(True), run(False)
    assert np.array_equal(with_test[0], without[0])
    assert with_test[1] == without[1] == 6


class Wrapped:
    """In float32."""

    def __init__(self, objective):
        self.objective, self.rng = objective, objective.rng

    def __call__(self, w, step):
        loss, g = self.objective(w, step)
        return loss, g.astype(np.float32)


def test_an_error_in_the_middle_restores_too():
    w = np.ones(2)

    def objective(w, step):
        if step == 9:
            raise RuntimeError("out of data")
        return bowl(w, step)

    with pytest.raises(RuntimeError, match="out of data"):
        quiet(objective, w, fastlr.SGD)
    assert np.array_equal(w, [1, 1])


def test_groups_keep_their_ratios_and_get_their_rates_back():
    params = {"a": np.ones(1), "b": np.ones(1)}
    opt = fastlr.SGD(params, lr=0.2, groups=[{"match": "a", "lr": 0.1}])
    moves = []

    def objective(p, step):
        moves.append((float(p["a"][0]), float(p["b"][0])))
        return 1.0, {"a": np.ones(1), "b": np.ones(1)}

    quiet(objective, params, opt, low=1e-3, high=1.0, steps=20)
    a, b = np.diff(moves[1:], axis=0).T
    np.testing.assert_allclose(a, b / 2)
    assert [g.lr for g in opt.groups] == [0.1, 0.2]


def test_an_optimizer_that_raises_at_nan_ends_the_ramp():
    w = np.ones(1, np.float32)

    def objective(w, step):
        with np.errstate(all="ignore"):
            return float(w[0] ** 4), 4 * w**3

    found = quiet(objective, w, fastlr.SGD(w, nonfinite="raise"), low=1e20, high=1e38)
    assert not math.isfinite(found.losses[0][-1])


# ---- fastai's rules --------------------------------------------------------------------------------------------------


def test_alternatives_by_hand():
    lrs = np.geomspace(1e-4, 1e2, 61)
    x = np.log10(lrs)
    losses = np.where(x < -2, 3.0, np.where(x < 0, 3 - (x + 2), 1 + 2 * x))
    assert fastai.minimum(lrs, losses) == pytest.approx(0.1)
    assert 1e-2 <= fastai.steep(lrs, losses) < 1
    assert 1e-2 < fastai.valley(lrs, losses) < 1
    assert fastai.slide(lrs, losses) < 10
    assert set(quiet(bowl, np.array([2.0]), fastlr.SGD).alternatives) == {"valley", "slide", "minimum", "steep"}


def test_valley_is_half_past_a_third_of_the_longest_descent():
    lrs = np.arange(20.0)
    losses = np.r_[5.0, 5.0, np.arange(10.0, 0.0, -1.0), np.arange(2.0, 10.0)]  # ten that fall, from the third on
    assert fastai.valley(lrs, losses) == lrs[1 + int(10 / 3) + int(10 / 6)]
    assert fastai.valley(lrs, np.arange(20.0)) == lrs[0]


def test_slide_is_the_last_place_whose_slope_differs_from_that_fifteen_further_on():
    lrs, k = np.arange(40.0), np.arange(40)
    # Slopes: 0 up to 19, ¼ at 20, k − 20 beyond.
    assert fastai.slide(lrs, 0.5 * np.maximum(k - 20.0, 0) ** 2) == lrs[20 - 15]
    assert fastai.slide(lrs, 0.5 * k**2) == lrs[0]
    assert fastai.slide(lrs, 1.0 * k) == lrs[39 - 15]


def test_alternatives_leave_out_a_tenth_of_all_steps_and_the_last_five_made():
    lrs = np.geomspace(1e-7, 10, 100)[:60]
    assert fastai.all_of(lrs, np.linspace(2, 1, 60), 100)["minimum"] == lrs[-6] / 10
    assert fastai.all_of(lrs, np.linspace(1, 2, 60), 100)["minimum"] == lrs[10] / 10
    assert math.isnan(fastai.all_of(lrs[:30], np.linspace(1, 2, 30), 100)["slide"])


def test_smoothing_of_alternatives_has_no_bias_at_the_start():
    np.testing.assert_allclose(fastai.smooth(np.full(50, 2.5)), 2.5)


# ---- the rest --------------------------------------------------------------------------------------------------------


def test_plot_is_a_picture(tmp_path):
    objective = cases.diabetes()
    quiet(objective, objective.params, fastlr.SGD).plot(tmp_path / "r.png")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"low": 1.0, "high": 0.1}, ValueError, r"low must be below high, got low=1.0 and high=0.1"),
        ({"low": 0.0}, ValueError, "low must be finite and > 0"),
        ({"high": math.inf}, ValueError, "high must be finite"),
        ({"steps": 5}, ValueError, "steps must be >= 20"),
        ({"mode": "slope"}, ValueError, "mode must be one of 'ramp', 'reset', got 'slope'"),
        ({"replicates": 0}, ValueError, "replicates must be >= 1"),
        ({"inner": 1.5}, TypeError, "inner must be an integer"),
        ({"rule": "adam"}, TypeError, "rule must be an optimizer, or build one"),
        ({"objective": None}, TypeError, "objective must be callable"),
        ({"objective": lambda w, step: (math.nan, w.copy())}, ValueError, "must be finite at the start"),
        ({"objective": lambda w, step: (1.0, np.ones(3))}, ValueError, r"expected shape \(2,\)"),
    ],
)
def test_bad_arguments_are_refused_before_any_step(more, error, message):
    w = np.ones(2)
    with pytest.raises(error, match=message):
        quiet(**{"objective": bowl, "params": w, "rule": fastlr.SGD, **more})
    assert np.array_equal(w, [1, 1])
