"""What a step does beside its update, in the same pass: limits, sums, a running mean, copies; and the loss scaler."""

from __future__ import annotations

import numpy as np
import pytest

import fastlr
from fastlr.precision import to_bfloat16, to_float32
from tests.test_precision import stored, values

N = 9000


def pair(**options):
    p = values(N, 1, 1)
    return p, fastlr.AdamW(p, lr=0.01, **options)


# ---- a running mean and copies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["float32", "bfloat16", "int8"])
def test_ema_follows_the_parameters(state):
    p, opt = pair(ema=0.9, state_dtype=state)
    mean = p.copy()
    share = np.float32(1 - 0.9)
    for step in range(5):
        opt.step(values(N, 2 + step))
        mean = (mean - share * mean) + share * p
    np.testing.assert_array_equal(opt.ema, mean)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_copies_are_the_new_parameters(dtype):
    p = values(N, 1, 1)
    copy = stored(np.zeros(N, np.float32), dtype)
    opt = fastlr.AdamW(p, lr=0.01, copy_to=copy, dtype="bfloat16")
    plain = fastlr.AdamW(q := p.copy(), lr=0.01)
    for step in range(2):
        opt.step(values(N, 2 + step))
        plain.step(values(N, 2 + step))
    np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(copy, stored(p, dtype))


def test_copies_must_not_overlap_parameters():
    p = np.zeros(N, np.float32)
    with pytest.raises(ValueError, match="params and copy_to must not overlap"):
        fastlr.Adam(p, copy_to=p)
    with pytest.raises(TypeError, match="copy_to must have an array for each parameter"):
        fastlr.Adam([p], copy_to=[None])
    with pytest.raises(ValueError, match="copy_to must have the size of params"):
        fastlr.Adam(p, copy_to=np.zeros(3, np.float32))


def test_the_chain_is_what_its_parts_are():
    """Clipping, the step, zeroing, the mean and the copy in one call, against one after the other."""
    p, q = values(N, 1, 1), values(N, 1, 1)
    copy = np.zeros(N, np.uint16)
    opt = fastlr.AdamW(p, lr=0.01, ema=0.99, copy_to=copy, dtype="bfloat16")
    plain, mean, share = fastlr.AdamW(q, lr=0.01), q.copy(), np.float32(1 - 0.99)
    for step in range(4):
        g = values(N, 2 + step)
        h = g.copy()
        report = opt.step(g, clip_norm=1.0, zero_grads=True)
        assert report.grad_norm == plain.step(h, clip_norm=1.0).grad_norm
        assert (g == 0).all()
        mean = (mean - share * mean) + share * q
    np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(opt.ema, mean)
    np.testing.assert_array_equal(copy, to_bfloat16(q))


# ---- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_clip_value_limits_each_element(dtype):
    p, opt = pair(dtype="bfloat16")
    q, plain = pair()
    g = stored(values(N, 2), dtype)
    wide = to_float32(g)
    opt.step(g, clip_value=0.5, grad_scale=0.25)
    plain.step(np.clip(wide, -2, 2), grad_scale=0.25)
    np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(to_float32(g), wide)
    h = values(N, 3)
    opt.step(h)  # the limit is of one step
    plain.step(h)
    np.testing.assert_array_equal(p, q)


def test_clip_value_leaves_what_is_not_finite_to_be_found():
    p, opt = pair(nonfinite="skip")
    g = np.ones(N, np.float32)
    g[7] = np.inf
    before = p.copy()
    assert opt.step(g, clip_value=1.0).skipped
    np.testing.assert_array_equal(p, before)


def test_each_group_may_be_clipped_by_its_own_norm():
    parts = [values(5000, 1), values(300, 2), values(7000, 3)]
    grads = [values(5000, 4), values(300, 5), values(7000, 6)]
    limits = [1.0, None, 0.5]
    opt = fastlr.SGD([{"params": a.copy()} for a in parts], lr=1.0)
    report = opt.step(grads, clip_norm=limits, grad_scale=0.5)
    for k, (a, g, limit) in enumerate(zip(parts, grads, limits, strict=True)):
        alone = a.copy()
        found = fastlr.SGD(alone, lr=1.0, nonfinite="skip").step(g, clip_norm=limit, grad_scale=0.5)
        np.testing.assert_array_equal(opt._structure.arrays[k], alone)
        assert report.grad_norms[k] == found.grad_norm
    assert report.grad_norm == pytest.approx(np.sqrt(np.square(report.grad_norms).sum()), rel=1e-12)
    assert opt.step(grads).grad_norms is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"clip_value": 0}, ValueError, "clip_value must be finite and > 0, got 0"),
        ({"clip_value": 1.0, "clip_norm": 1.0}, ValueError, "clip_norm and clip_value must not both be given"),
        ({"clip_norm": [1.0, 2.0]}, ValueError, "clip_norm must have 1 entries like the groups, got 2"),
        ({"clip_norm": [-1.0]}, ValueError, r"clip_norm\[0\] must be finite and > 0, got -1.0"),
    ],
)
def test_limits_are_checked(options, error, message):
    p, opt = pair()
    before = p.copy()
    with pytest.raises(error, match=message):
        opt.step(values(N, 2), **options)
    np.testing.assert_array_equal(p, before)
    assert opt.step_count == 0


def test_clip_value_is_for_float32():
    with pytest.raises(TypeError, match="clip_value must be None for AdamW with float64"):
        fastlr.AdamW(np.zeros(3)).step(np.zeros(3), clip_value=1.0)


# ---- accumulation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_accumulated_gradients_are_averaged_in_the_step(dtype):
    wide = np.float64 if dtype == "float64" else np.float32
    p, q = values(N, 1, 1).astype(wide), values(N, 1, 1).astype(wide)
    opt, plain = fastlr.AdamW(p, lr=0.01, dtype="bfloat16"), fastlr.AdamW(q, lr=0.01)
    for first in (2, 5):
        total = np.zeros(N, wide)
        for k in range(3):
            g = stored(values(N, first + k, 1), dtype)
            opt.accumulate(g)
            total += g if dtype == "float64" else to_float32(g)
        opt.step()
        plain.step(total, grad_scale=1 / 3)
    np.testing.assert_array_equal(p, q)


def test_accumulation_keeps_apart_what_had_no_gradient():
    p = {"a": np.ones(5, np.float32), "b": np.ones(5, np.float32)}
    opt = fastlr.SGD(p, lr=1.0, weight_decay=0.1)
    opt.accumulate({"a": np.ones(5, np.float32), "b": None})
    opt.accumulate({"a": np.ones(5, np.float32), "b": None})
    opt.step()
    np.testing.assert_allclose(p["a"], -0.1, rtol=1e-6)
    assert (p["b"] == 1).all()
    with pytest.raises(TypeError, match="grads must be given"):
        opt.step()


def test_accumulate_checks_before_it_adds():
    opt = fastlr.SGD([np.zeros(5, np.float32), np.zeros(5, np.float32)], lr=1.0)
    with pytest.raises(ValueError, match="expected shape"):
        opt.accumulate([np.ones(5, np.float32), np.ones(6, np.float32)])
    with pytest.raises(TypeError, match="grads must be given"):
        opt.step()
    opt.accumulate([np.ones(5, np.float32)] * 2)
    opt.step()
    assert (opt._structure.arrays[0] == -1).all()


# ---- denormals ------------------------------------------------------------------------------------------------------


def test_denormals_count_as_0_only_in_the_step_and_only_if_asked():
    for mode, expected in [("keep", np.float32(1e-40) * 1), ("flush", 0)]:
        p = np.zeros(100_000, np.float32)
        opt = fastlr.SGD(p, lr=1.0, momentum=0.5, denormals=mode)
        opt.step(np.full(p.size, 1e-40, np.float32))
        assert (opt.state["b"] == expected).all()
        assert np.float32(1e-40) * np.float32(0.5) > 0  # outside the step nothing has changed


# ---- the loss scaler ------------------------------------------------------------------------------------------------


def test_the_scaler_grows_shrinks_and_skips():
    p = np.zeros(N, np.float32)
    opt = fastlr.SGD(p, lr=1.0, nonfinite="skip")
    scaler = fastlr.LossScaler(scale=8.0, interval=2)
    g = np.ones(N, np.float32)
    seen = []
    for k in range(6):
        if k == 3:
            bad = g.copy()
            bad[-1] = np.nan
            assert scaler.step(opt, bad).skipped
        else:
            assert not scaler.step(opt, g * np.float32(scaler.scale)).skipped
        seen.append(scaler.scale)
    assert seen == [8, 16, 16, 8, 8, 16]
    assert (p == -5).all()


def test_the_scaler_is_saved_and_checks():
    scaler = fastlr.LossScaler(scale=8.0, interval=3)
    scaler.update(False)
    other = fastlr.LossScaler(interval=3)
    other.load_state_dict(scaler.state_dict())
    assert repr(other) == repr(scaler) == "LossScaler(scale=8.0, good_steps=1)"
    with pytest.raises(ValueError, match="must be built with nonfinite='skip'"):
        scaler.step(fastlr.SGD(np.zeros(3, np.float32)), np.zeros(3, np.float32))
    for bad in ({"growth": 1.0}, {"backoff": 1.0}, {"interval": 0}, {"scale": -1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            fastlr.LossScaler(**bad)
    with pytest.raises(ValueError, match="good_steps"):
        other.load_state_dict({"scale": 1.0, "good_steps": 3})
