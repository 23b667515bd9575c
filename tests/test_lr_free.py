"""Rules that find their rate: what one estimate for a whole model means. The rules themselves: test_rules.py."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastlr
from tests.cases import CASES, nonzero

WHOLE = [c for c in CASES if c.numbers[:1] == ("d",)]
every_case = pytest.mark.parametrize("case", WHOLE, ids=str)


def gradients(steps, n=90, dtype=np.float64):
    """Of one side, so that d grows."""
    first = nonzero(n, dtype, 1)
    return [np.copysign(nonzero(n, dtype, 2 + k), first) for k in range(steps)]


def halves(x):
    return [x[:40].copy(), x[40:].copy()]


@every_case
def test_d_starts_at_d0_and_grows(case):
    p = nonzero(90, np.float64, 0)
    opt = case.build(p, lr=10)
    assert opt.d == case.kwargs["d0"]
    seen = [opt.d]
    for g in gradients(6):
        opt.step(g)
        seen.append(opt.d)
    assert seen[1] == seen[0]  # nothing is known before the second gradient
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


@every_case
def test_groups_with_rates_and_decays_of_their_own_share_one_estimate(case):
    """A group whose rate is half of another's is one whose terms of the sums are half as large: by hand, in NumPy."""
    p = nonzero(90, np.float64, 0)
    parts = halves(p)
    opt = case.build([{"params": parts[:1]}, {"params": parts[1:], "lr_scale": 0.5, "weight_decay": 0.3}], lr=10)
    decay = np.repeat([case.all_kwargs["weight_decay"], 0.3], [40, 50]).view(Decay)
    rate = np.repeat([10.0, 5.0], [40, 50])
    hyper = {**case.all_kwargs, "weight_decay": decay}
    state = {}
    for t, g in enumerate(gradients(6), 1):
        opt.step([halves(g)[:1], halves(g)[1:]])
        p, state = case.reference(p, g, state, t, lr=rate, **hyper)
        np.testing.assert_allclose(np.concatenate(parts), p, rtol=0, atol=1e-13 * abs(p).max())
    assert opt.d == pytest.approx(state["d"], rel=1e-12)
    assert opt.d > case.kwargs["d0"]


class Decay(np.ndarray):
    """Weight decay by element. The reference asks whether there is any."""

    def __ne__(self, other):
        return bool((np.asarray(self) != other).any())


OTHER = {"momentum": 0.3, "betas": (0.3, 0.4), "beta3": 0.3, "d0": 3.0, "d_coef": 3.0, "growth_rate": 1.9}


@every_case
def test_what_all_groups_share_must_be_the_same(case):
    parts = halves(nonzero(90, np.float64, 0))
    opt = case.build([{"params": parts[0]}, {"params": parts[1]}])
    for name in case.optimizer.shared:
        old = getattr(opt.groups[1], name)
        setattr(opt.groups[1], name, OTHER.get(name, not old))
        before = [x.copy() for x in parts]
        with pytest.raises(ValueError, match=f"groups: {name} must be the same in all"):
            opt.step(halves(gradients(1)[0]))
        np.testing.assert_array_equal(parts[0], before[0])
        setattr(opt.groups[1], name, old)
    opt.step(halves(gradients(1)[0]))


@every_case
def test_a_skipped_parameter_keeps_its_state_and_starts_from_where_it_is(case):
    one, other = halves(nonzero(90, np.float64, 0))
    alone = one.copy()
    both, single = case.build([one, other], lr=10), case.build(alone, lr=10)
    for g in gradients(3):
        both.step([halves(g)[0], None])
        single.step(halves(g)[0])
    np.testing.assert_array_equal(one, alone)
    assert both.d == single.d > case.kwargs["d0"]
    for key in both.states:
        assert not both.state[key][1].any()
    other[:] = 7  # it may still be set before its first gradient
    both.step(halves(gradients(1)[0]))
    if "x0" in both.states:
        assert (both.state["x0"][1] == 7).all()
        np.testing.assert_array_equal(both.state["x0"][0], single.state["x0"])
    assert (abs(other - 7) < 10 * both.d).all()


@every_case
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_leaves_the_others_and_d(case, bad):
    p = nonzero(90, np.float64, 0)
    opt = case.build(p, lr=10)
    for g in gradients(4):
        opt.step(g)
    before = opt._plan.numbers
    g = gradients(1)[0]
    g[33] = bad
    opt.step(g)
    assert opt._plan.numbers == before
    assert np.isfinite(np.delete(p, 33)).all()
    assert all(np.isfinite(np.delete(opt.state[key], 33)).all() for key in opt.states)
    kept = p.copy()
    opt.step(gradients(1)[0])
    assert (np.delete(p, 33) != np.delete(kept, 33)).all()


@every_case
@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_a_first_gradient_of_nothing(case, bad):
    """No division by its norm, or by the sum of what it leaves in s."""
    p = nonzero(90, np.float64, 0)
    opt = case.build(p, lr=10, weight_decay=0)
    g = np.zeros(90)
    g[33] = bad
    opt.step(g)
    assert opt.d == case.kwargs["d0"]
    before = np.delete(nonzero(90, np.float64, 0), 33)
    np.testing.assert_allclose(np.delete(p, 33), before, rtol=1e-15)  # (1 − μ) p + μ p
    for g in gradients(5):
        opt.step(g)
    assert np.isfinite(np.delete(p, 33)).all()
    assert (np.delete(p, 33) != before).all()
    assert bad != 0 or opt.d > case.kwargs["d0"]


@every_case
def test_resumed_with_the_estimate(case, tmp_path):
    p, q = halves(nonzero(90, np.float64, 0)), halves(nonzero(90, np.float64, 0))
    straight, first = case.build(p, lr=10), case.build(q, lr=10)
    for g in gradients(3):
        straight.step(halves(g))
        first.step(halves(g))
    first.save(tmp_path / "state")
    second = case.build(q, lr=10)
    second.load(tmp_path / "state")
    assert second.d == straight.d
    for g in gradients(3):
        straight.step(halves(g))
        second.step(halves(g))
    assert second.d == straight.d
    for a, b in zip(p, q, strict=True):
        np.testing.assert_array_equal(a, b)


@every_case
def test_a_rate_that_is_too_large_for_the_type_is_refused(case):
    p = nonzero(90, np.float32, 0)
    opt = case.build(p, lr=1e300)
    before = p.copy()
    with pytest.raises(ValueError, match="must stay finite in float32"):
        opt.step(gradients(1, dtype=np.float32)[0])
    np.testing.assert_array_equal(p, before)


@pytest.mark.parametrize("optimizer", [fastlr.DAdaptSGD, fastlr.DAdaptAdam, fastlr.Prodigy])
@pytest.mark.parametrize("distance", [0.01, 1.0, 100.0])
def test_the_distance_is_found_from_afar(optimizer, distance):
    """‖p − q‖₁ on a sphere around q: a convex loss with gradients that do not shrink. d0 is 1e-6."""
    rng = np.random.default_rng(0)
    way = rng.standard_normal(50)
    way *= distance / (np.linalg.norm(way) if optimizer is fastlr.DAdaptSGD else abs(way).max())
    p = way.copy()
    opt = optimizer(p)
    for _ in range(400):
        opt.step(np.sign(p) / 7)
    assert 0.05 * distance < opt.d < 2 * distance
    assert abs(p).max() < 0.5 * abs(way).max()
