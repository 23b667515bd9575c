"""What an optimizer is: structures of parameters, groups, schedules, reports, clipping, non-finite gradients."""

import math

import numpy as np
import pytest

import fastlr
from fastlr.groups import matched
from fastlr.structure import structure_of


def data(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ---- structures ------------------------------------------------------------------------------------------------------


def test_state_has_the_structure_of_the_parameters():
    opt = fastlr.Adam(data(3, 2))
    assert opt.state["m"].shape == (3, 2)
    opt = fastlr.Adam([data(3), data(2, 2)])
    assert [s.shape for s in opt.state["v"]] == [(3,), (2, 2)]
    opt = fastlr.Adam({"w": data(3), "b": data(1)})
    assert {k: s.shape for k, s in opt.state["v"].items()} == {"w": (3,), "b": (1,)}
    buf = fastlr.FlatBuffer({"w": (3, 2), "b": (2,)})
    opt = fastlr.Adam(buf)
    assert isinstance(opt.state["m"], fastlr.FlatBuffer)
    assert opt.state["m"].shapes == buf.shapes
    opt = fastlr.Adam([{"params": data(3)}, {"params": {"w": data(2)}}, {"params": [data(1)]}])
    m = opt.state["m"]
    assert (m[0].shape, m[1]["w"].shape, m[2][0].shape) == ((3,), (2,), (1,))
    assert fastlr.SGD(data(3)).state == {}


def test_every_structure_gives_the_same_update():
    w, b, gw, gb = data(5, 3), data(3, seed=1), data(5, 3, seed=2), data(3, seed=3)
    buf = fastlr.FlatBuffer.pack({"w": w, "b": b})
    grads = fastlr.FlatBuffer.pack({"w": gw, "b": gb})
    models = [
        ([w.copy(), b.copy()], [gw, gb]),
        ((w.copy(), b.copy()), (gw, gb)),
        ({"w": w.copy(), "b": b.copy()}, {"b": gb, "w": gw}),
        ([{"params": w.copy()}, {"params": b.copy()}], [gw, gb]),
        ([{"params": {"w": w.copy(), "b": b.copy()}}], [{"w": gw, "b": gb}]),
        (buf, grads),
    ]
    results = []
    for params, grads in models:
        opt = fastlr.AdamW(params, lr=0.1)
        for _ in range(3):
            opt.step(grads)
        results.append([np.ravel(a) for a in opt._structure.arrays])
    for result in results:
        np.testing.assert_array_equal(np.concatenate(result), np.concatenate(results[0]))
    np.testing.assert_array_equal(buf["w"], models[0][0][0])


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (1, 1, 1)])
@pytest.mark.parametrize("cls", [fastlr.SGD, fastlr.Adagrad, fastlr.RMSprop, fastlr.Adam, fastlr.AdamW, fastlr.AMSGrad])
def test_empty_and_scalar_arrays(cls, shape):
    p = np.ones(shape, np.float32)
    report = cls(p, lr=0.1).step(np.ones(shape, np.float32), clip_norm=1e9)
    assert report.step == 1
    assert report.grad_norm == math.sqrt(p.size)
    assert (p < 1).all()


def test_an_empty_array_among_others():
    ps = [data(0), data(3), data(0), data(2), data(0)]
    qs = [p.copy() for p in ps]
    fastlr.SGD(ps, lr=1).step([np.ones_like(p) for p in ps])
    for p, q in zip(ps, qs, strict=True):
        np.testing.assert_array_equal(p, q - np.float32(1))


def test_none_skips_an_entry_wholly():
    a, b = np.ones(2, np.float32), np.ones(2, np.float32)
    opt = fastlr.AdamW([a, b], lr=0.1, weight_decay=0.5)
    opt.step([None, np.ones(2, np.float32)])
    np.testing.assert_array_equal(a, 1)  # no decay either
    np.testing.assert_array_equal(opt.state["m"][0], 0)
    opt.step([np.ones(2, np.float32), None])
    np.testing.assert_array_equal(a, b)  # the first update of each, wherever it came
    assert opt.step_count == 2
    assert opt.step([None, None]).step == 3


def test_buffers_other_than_arrays():
    p = bytearray(np.ones(4, np.float32).tobytes())
    opt = fastlr.SGD(memoryview(p).cast("f"), lr=1)
    opt.step(memoryview(np.ones(4, np.float32)))
    assert p == bytes(16)


def test_torch_tensors_are_updated_in_place():
    torch = pytest.importorskip("torch")
    p, q = torch.ones(3, 2), torch.ones((), requires_grad=True)
    opt = fastlr.SGD([p, q], lr=1)
    opt.step([torch.ones(3, 2), torch.ones(())])
    assert p.tolist() == [[0, 0], [0, 0], [0, 0]]
    assert q.item() == 0
    with pytest.raises(BufferError, match="C-contiguous"):
        fastlr.SGD(torch.ones(3, 2).T)
    with pytest.raises(TypeError, match="params must be a dense tensor of floats on the CPU"):
        fastlr.SGD(torch.ones(3).to_sparse())
    with pytest.raises(TypeError, match="int32"):
        fastlr.SGD(torch.ones(3, dtype=torch.int32))


# ---- groups ----------------------------------------------------------------------------------------------------------


def test_groups_by_pattern():
    shapes = {"backbone.w": (4,), "backbone.bias": (2,), "head.w": (3,), "head.bias": (1,)}
    buf = fastlr.FlatBuffer(shapes)
    buf.data[:] = 1
    opt = fastlr.AdamW(
        buf,
        lr=0.1,
        weight_decay=0.5,
        groups=[{"match": "*.bias", "weight_decay": 0.0}, {"match": "backbone.*", "lr_scale": 0.1}],
    )
    assert len(opt.groups) == 3
    report = opt.step(buf.like())  # gradients of zero: only decay moves
    assert report.lrs == pytest.approx((0.1, 0.01, 0.1))
    assert report.lr == report.lrs[0]
    np.testing.assert_array_equal(buf["backbone.bias"], 1)
    np.testing.assert_array_equal(buf["head.bias"], 1)
    np.testing.assert_allclose(buf["backbone.w"], 1 - 0.01 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(buf["head.w"], 1 - 0.1 * 0.5, rtol=1e-6)


def test_groups_by_pattern_equal_explicit_groups():
    a, b, c = data(5), data(3, seed=1), data(4, seed=2)
    ga, gb, gc = data(5, seed=3), data(3, seed=4), data(4, seed=5)
    named = {"x.w": a.copy(), "x.b": b.copy(), "y.w": c.copy()}
    opt = fastlr.Adam(named, lr=0.1, groups=[{"match": "x.*", "lr": 0.2, "betas": (0.5, 0.9)}])
    opt.step({"x.w": ga, "x.b": gb, "y.w": gc})
    explicit = [{"params": [a, b], "lr": 0.2, "betas": (0.5, 0.9)}, {"params": c}]
    fastlr.Adam(explicit, lr=0.1).step([[ga, gb], gc])
    for p, q in zip([a, b, c], named.values(), strict=True):
        np.testing.assert_array_equal(p, q)


def test_neighbours_of_one_group_are_one_piece():
    buf = fastlr.FlatBuffer({"a": (2,), "b": (2,), "c": (2,), "d": (2,)})
    given = [{"match": "[ab]"}, {"match": "d"}]
    labels, pieces = matched(given, structure_of(buf), lambda label, own: label)
    assert labels == ["groups[0].", "groups[1].", "groups[2]."]
    assert pieces == [(0, 0, 4, 0), (0, 4, 2, 2), (0, 6, 2, 1)]


def test_groups_can_be_set_between_steps():
    p = np.zeros(1, np.float32)
    opt = fastlr.SGD(p, lr=1)
    opt.step(np.ones(1, np.float32))
    opt.groups[0].lr = 0.5
    assert opt.step(np.ones(1, np.float32)).lr == 0.5
    assert p[0] == -1.5


def test_groups_with_and_without_momentum():
    a, b = np.zeros(2, np.float32), np.zeros(2, np.float32)
    opt = fastlr.SGD([{"params": a, "momentum": 0.5}, {"params": b, "dampening": 0.9}], lr=1)
    plain = np.zeros(2, np.float32)
    other = fastlr.SGD(plain, lr=1)
    for k in range(4):
        opt.step([data(2, seed=k), data(2, seed=k)])
        other.step(data(2, seed=k))
    np.testing.assert_array_equal(b, plain)
    assert (a != b).all()


# ---- schedules -------------------------------------------------------------------------------------------------------


def test_a_callable_lr_is_called_with_the_0_based_step():
    calls = []

    def lr(step):
        calls.append(step)
        return 1 / (1 + step)

    opt = fastlr.SGD(np.zeros(1, np.float32), lr=lr)
    assert [opt.step(np.ones(1, np.float32)).lr for _ in range(3)] == [1, 1 / 2, 1 / 3]
    assert calls == [0, 1, 2]


def test_a_schedule_that_fails_leaves_all_as_it_was():
    p = np.ones(2, np.float32)

    def lr(step):
        raise RuntimeError("no rate")

    opt = fastlr.SGD(p, lr=lr)
    with pytest.raises(RuntimeError, match="no rate"):
        opt.step(p.copy())
    np.testing.assert_array_equal(p, 1)
    assert opt.step_count == 0


def test_lr_scale_multiplies_a_schedule():
    opt = fastlr.SGD({"a": data(1), "b": data(1)}, lr=lambda n: 0.5, groups=[{"match": "a", "lr_scale": 0.5}])
    assert opt.step({"a": data(1), "b": data(1)}).lrs == (0.25, 0.5)


# ---- clipping, scaling, non-finite gradients -------------------------------------------------------------------------


def test_grad_norm_is_measured_when_asked_for():
    p = np.zeros(2, np.float32)
    g = np.float32([3, 4])
    opt = fastlr.SGD(p, lr=1)
    assert opt.step(g).grad_norm is None
    assert opt.step(g, clip_norm=100).grad_norm == 5
    assert opt.step(g, grad_scale=0.5, clip_norm=100).grad_norm == 2.5
    assert fastlr.SGD(p, nonfinite="skip").step(g).grad_norm == 5


def test_clipping_is_over_all_parameters():
    ps = [np.zeros(1, np.float32), np.zeros(1, np.float32)]
    fastlr.SGD(ps, lr=1).step([np.float32([3]), np.float32([4])], clip_norm=1)
    np.testing.assert_allclose(ps, [[-0.6], [-0.8]], rtol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", [0, 4095, 4096, 9999])
def test_nonfinite_skip_and_raise_change_nothing(bad, where):
    for nonfinite in ("skip", "raise"):
        p, g = data(10_000), data(10_000, seed=1)
        opt = fastlr.AdamW(p, nonfinite=nonfinite)
        opt.step(g)
        before = p.copy(), opt.state["m"].copy(), opt.state["v"].copy()
        g[where] = bad
        given = g.copy()
        if nonfinite == "skip":
            report = opt.step(g)
            assert report.skipped
            assert report.step == opt.step_count == 1
            assert not math.isfinite(report.grad_norm)
        else:
            with pytest.raises(FloatingPointError, match="nothing was changed"):
                opt.step(g, zero_grads=True)
        for now, then in zip((p, opt.state["m"], opt.state["v"]), before, strict=True):
            np.testing.assert_array_equal(now, then)
        np.testing.assert_array_equal(g, given)
        g[where] = 1
        assert not opt.step(g).skipped
        assert opt.step_count == 2


def test_a_skipped_step_still_zeroes_the_gradients_if_asked():
    g = [data(3), np.float32([math.inf]), None]
    opt = fastlr.SGD([data(3), data(1), data(2)], nonfinite="skip")
    assert opt.step(g, zero_grads=True).skipped
    np.testing.assert_array_equal(g[0], 0)
    np.testing.assert_array_equal(g[1], 0)


def test_a_gradient_that_overflows_when_scaled_is_not_finite():
    p = np.ones(1, np.float32)
    opt = fastlr.SGD(p, nonfinite="skip")
    assert opt.step(np.float32([1e38]), grad_scale=100).skipped
    assert not opt.step(np.float32([1e38]), grad_scale=1e-38).skipped


def test_propagate_uses_what_it_is_given():
    p = np.zeros(3, np.float32)
    fastlr.SGD(p, lr=1).step(np.float32([1, math.nan, math.inf]))
    np.testing.assert_array_equal(p, [-1, math.nan, -math.inf])
    p = np.zeros(2, np.float32)
    fastlr.SGD(p, lr=1).step(
        np.float32([1, math.nan]), clip_norm=1
    )  # as torch: the norm is NaN, and so is every element
    assert np.isnan(p).all()


def test_zero_grads():
    p, q, g, h = data(9), data(9), data(9, seed=1), data(9, seed=1)
    fastlr.Adam(p).step(g)
    fastlr.Adam(q).step(h, zero_grads=True)
    np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(g, data(9, seed=1))
    np.testing.assert_array_equal(h, 0)


def test_decay_survives_float32():
    """lr * wd of 1e-8 is lost in 1 - lr * wd, which is 1 in float32; taken off beside the step it is not."""
    assert np.float32(1 - 1e-8) == 1
    p = np.full(100_000, 3, np.float32)
    q = p.copy()
    decayed = fastlr.AdamW(p, lr=1e-6, weight_decay=1e-2)
    plain = fastlr.AdamW(q, lr=1e-6, weight_decay=0)
    for k in range(50):
        decayed.step(data(100_000, seed=k))
        plain.step(data(100_000, seed=k))
    moved = np.mean(p.astype(np.float64) - q)
    assert moved == pytest.approx(-3 * 50 * 1e-8, rel=0.1)


# ---- reports and words -----------------------------------------------------------------------------------------------


def test_repr():
    opt = fastlr.SGD(data(2), lr=0.5)
    assert repr(opt).startswith("SGD(Group(")
    assert "step_count=0" in repr(opt)
    assert repr(opt.step(data(2))) == "Report(step=1, lr=0.5, grad_norm=None, skipped=False)"


def test_nbytes():
    assert fastlr.SGD(data(10)).nbytes == 0
    assert fastlr.AdamW([data(10), data(5)]).nbytes == 2 * 4 * 15
    assert fastlr.AMSGrad(np.zeros(10)).nbytes == 3 * 8 * 10


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        fastlr.Optimizer(data(2))
