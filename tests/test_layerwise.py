"""Rules that sum over tensors or groups: what a tensor and a group are. The rules themselves: test_rules.py."""

import numpy as np
import pytest

import fastlr
from tests.cases import nonzero

SHAPES = {"w": (30, 7), "none": (0,), "b": (5,), "v": (5000,)}


def model(seed):
    sizes = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}
    return {name: nonzero(n, np.float64, seed + n).reshape(SHAPES[name]) for name, n in sizes.items()}


def test_tensors_of_a_flat_buffer_are_its_names():
    """Their norms are numpy's, up to 5000 roundings, and those of the steps."""
    p, g = model(0), model(10)
    flat = fastlr.FlatBuffer.pack(p)
    fastlr.LARS(flat, lr=1.0, trust_coeff=0.5, eps=1e-300, always_adapt=True).step(fastlr.FlatBuffer.pack(g))
    for name in ("w", "b", "v"):
        ratio = 0.5 * np.linalg.norm(p[name]) / np.linalg.norm(g[name])
        np.testing.assert_allclose(flat[name], p[name] - ratio * g[name], rtol=1e-12, atol=1e-15)


def test_a_tensor_without_a_gradient_is_left_out():
    p, g = list(model(0).values()), list(model(10).values())
    q = [x.copy() for x in p]
    opt, other = fastlr.NovoGrad(p, lr=0.1), fastlr.NovoGrad([q[0], q[2]], lr=0.1)
    for _ in range(3):
        opt.step([g[0], None, g[2], None])
        other.step([g[0], g[2]])
    np.testing.assert_array_equal(p[0], q[0])
    np.testing.assert_array_equal(p[2], q[2])
    np.testing.assert_array_equal(p[3], q[3])
    assert [row for row in opt.state_dict()["numbers"] if row != [0.0]] == other.state_dict()["numbers"]


def test_a_group_is_one_sum_however_its_entries_are_mixed_with_others():
    p, g = model(0), model(10)
    matched = fastlr.FlatBuffer.pack(p)
    apart = [{"params": [p["w"].copy(), p["v"].copy()], "lr": 0.1}, {"params": p["b"].copy(), "lr": 0.2}]
    one = fastlr.SGDHD(matched, lr=0.1, hypergrad_lr=0.5, groups=[{"match": "[wv]"}, {"match": "b", "lr": 0.2}])
    two = fastlr.SGDHD(apart, hypergrad_lr=0.5)
    for k in range(4):
        grads = {name: x * (-1) ** (k // 2) for name, x in g.items()}
        one.step(fastlr.FlatBuffer.pack(grads))
        two.step([[grads["w"], grads["v"]], grads["b"]])
        assert one.rates[:2] == two.rates
    assert one.rates[0] != 0.1
    np.testing.assert_array_equal(matched["w"], apart[0]["params"][0])
    np.testing.assert_array_equal(matched["v"], apart[0]["params"][1])
    np.testing.assert_array_equal(matched["b"], apart[1]["params"])


def test_the_rate_is_a_multiple_of_the_schedule_and_in_rates():
    opt = fastlr.AdamHD(np.zeros(3), lr=lambda step: 0.1 * (step + 1), hypergrad_lr=0.5)
    for k in range(3):
        report = opt.step(np.ones(3))
        # The gradient stays the same, so the cosine is 1, and up to rounding x becomes ½, 5/4.
        assert opt.rates == pytest.approx([report.lr * 1.5**k], rel=1e-15)


@pytest.mark.parametrize("cls", [fastlr.LAMB, fastlr.LARS, fastlr.NovoGrad, fastlr.StableAdamW, fastlr.SGDHD])
@pytest.mark.parametrize("shape", [(), (0,), (1,)])
def test_empty_and_scalar_tensors(cls, shape):
    p = np.ones(shape, np.float32)
    for _ in range(3):
        cls(p, lr=0.1).step(np.ones(shape, np.float32))
    assert ((p < 1) & (p > 0)).all()


def test_zero_gradients_move_nothing():
    for opt in (fastlr.LAMB, fastlr.LARS, fastlr.NovoGrad, fastlr.StableAdamW, fastlr.AdamHD, fastlr.DoG, fastlr.DoWG):
        p = np.ones(3)
        opt(p, lr=0.1, weight_decay=0).step(np.zeros(3))
        np.testing.assert_array_equal(p, 1)


# ---- distance from the start -----------------------------------------------------------------------------------------


def test_average_is_beside_the_parameters_and_weighs_late_ones_more():
    p, g = nonzero(90, np.float64, 0), nonzero(90, np.float64, 1)
    opt, plain = fastlr.DoG(p, reps_rel=0.1, averaging=8), fastlr.DoG(q := p.copy(), reps_rel=0.1)
    average = 0
    for t in range(1, 6):
        opt.step(g)
        plain.step(g)
        np.testing.assert_array_equal(p, q)
        average = average + 9 / (t + 8) * (p - average)
        np.testing.assert_allclose(opt.eval_params(), average, rtol=1e-14)
    assert opt.eval_params() is opt.state["a"]
    with pytest.raises(ValueError, match="averaging must be a number for eval_params"):
        plain.eval_params()
    with pytest.raises(ValueError, match="averaging must be a number in all groups, or None in all"):
        fastlr.DoG([{"params": p, "averaging": 8}, {"params": q}])


def test_the_start_is_that_of_the_first_step_and_in_checkpoints():
    p, g = np.zeros(90), nonzero(90, np.float64, 1)
    opt = fastlr.LDoG([p])
    p[:] = start = nonzero(90, np.float64, 0)  # loaded after the optimizer was made
    opt.step([g])
    np.testing.assert_array_equal(opt.state["x0"][0], start)
    other = fastlr.LDoG([p.copy()])
    other.load_state_dict(opt.state_dict())
    opt.step([g])
    other.step([g])
    assert opt.rates == other.rates
    assert opt.rates != fastlr.LDoG([p.copy()]).rates


# ---- cautious --------------------------------------------------------------------------------------------------------


def test_cautious_is_for_all_groups_or_none():
    p = [np.ones(2), np.ones(2)]
    with pytest.raises(ValueError, match="cautious must be the same in all groups"):
        fastlr.Adam([{"params": p[0], "cautious": True}, {"params": p[1]}])
    with pytest.raises(ValueError, match="cautious needs momentum > 0"):
        fastlr.SGD([{"params": p[0], "momentum": 0.9}, {"params": p[1]}], cautious=True)
    with pytest.raises(ValueError, match="cautious needs momentum > 0"):
        fastlr.SGD(p, cautious=True)
    opt = fastlr.Adam(p)
    opt.groups[0].cautious = True
    with pytest.raises(ValueError, match="need the state of rule 'adam_cautious'"):
        opt.step(p)


def test_cautious_is_the_rule_itself_where_nothing_points_up():
    p, q, g = nonzero(300, np.float32, 0), nonzero(300, np.float32, 0), nonzero(300, np.float32, 1)
    plain, careful = fastlr.AdamW(p), fastlr.AdamW(q, cautious=True)
    for _ in range(3):
        plain.step(g)
        careful.step(g)
        np.testing.assert_array_equal(p, q)


def test_cautious_step_is_at_most_a_thousand_times_the_plain_one():
    p = np.zeros(4000)
    opt = fastlr.SGD(p, lr=1.0, momentum=0.5, cautious=True)
    opt.step(np.ones(4000))
    p[:] = 0
    g = np.full(4000, -0.25)
    g[0] = 0.25
    opt.step(g)  # b is ¼, but ¾ in one element of 4000: a share below 10⁻³
    np.testing.assert_array_equal(p[1:], 0)
    assert p[0] == -750


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_cautious_step_does_not_hide_what_is_not_finite(bad):
    p, g = np.zeros(3), np.ones(3)
    g[1] = bad
    fastlr.SGD(p, lr=1.0, momentum=0.5, cautious=True).step(g)
    assert not np.isfinite(p[1])
    assert np.isfinite(p[[0, 2]]).all()
