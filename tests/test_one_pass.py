"""What a step does beside its update, in the same pass: limits, sums, a running mean, copies; and the loss scaler."""

from __future__ import annotations

import numpy as np
import pytest

import fastlr
from fastlr import _core
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


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("held", ["float32", "float64"])
def test_copies_are_the_new_parameters(held, dtype):
    if dtype == "float64" and held == "float32":
        with pytest.raises(TypeError, match="copy_to must be float32, float16 or bfloat16 for float32 parameters"):
            fastlr.AdamW(values(N, 1, 1), copy_to=np.zeros(N))
        return
    p = values(N, 1, 1).astype(held)
    copy = stored(np.zeros(N, np.float32), dtype)
    opt = fastlr.AdamW(p, lr=0.01, copy_to=copy, dtype="bfloat16")
    plain = fastlr.AdamW(q := p.copy(), lr=0.01)
    for step in range(2):
        opt.step(values(N, 2 + step))
        plain.step(values(N, 2 + step))
        np.testing.assert_array_equal(p, q)
        np.testing.assert_array_equal(copy, stored(p, dtype))


WAYS = [{}, {"master": "float32"}, {"master": "split"}, {"rounding": "kahan"}, {"rounding": "stochastic", "seed": 5}]


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("held", "way"),
    [
        (held, way)
        for held in ("bfloat16", "float16")
        for way in WAYS
        if held == "bfloat16" or "split" not in way.values()
    ],
    ids=str,
)
def test_copies_and_means_are_of_what_the_step_made(held, way, dtype, ema):
    """Of narrow parameters before they are rounded to their own storage, beside whatever that is."""
    p, copy = stored(values(N, 1, 1), held), stored(np.zeros(N, np.float32), dtype)
    wide = to_float32(p)  # what the next step starts from
    opt = fastlr.AdamW(p, lr=0.01, dtype="bfloat16", copy_to=copy, ema=ema, **way)
    plain, mean, share = fastlr.AdamW(wide, lr=0.01), wide.copy(), np.float32(1 - 0.9)
    np.testing.assert_array_equal(copy, stored(wide, dtype))
    for step in range(4):
        g = stored(values(N, 2 + step, 1), held)
        opt.step(g)
        plain.step(to_float32(g))
        np.testing.assert_array_equal(copy, stored(wide, dtype))
        if ema:
            mean = (mean - share * mean) + share * wide
            np.testing.assert_array_equal(opt.ema, mean)
        if way.get("rounding") == "stochastic":
            ulp = np.abs(to_float32(p + np.uint16(1)) - to_float32(p)) if held == "bfloat16" else np.spacing(np.abs(p))
            assert (np.abs(to_float32(p) - wide) < ulp).all()
            assert (p != stored(wide, held)).any()
        elif way.get("master") == "split":
            np.testing.assert_array_equal(p, (wide.view(np.uint32) >> 16).astype(np.uint16))
        else:
            np.testing.assert_array_equal(p, stored(wide, held))
        if way.get("rounding") == "kahan":
            wide[:] = to_float32(p) + to_float32(to_bfloat16(wide - to_float32(p)))
        elif "master" not in way:
            wide[:] = to_float32(p)


@pytest.mark.parametrize("held", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_copies_begin_as_the_parameters_are_and_stay_where_no_step_is_made(held, dtype):
    params = {"a": stored(values(N, 1, 1), held), "b": stored(values(70, 2, 1).reshape(7, 10), held)}
    first = {key: stored(x if held in ("float32", "float64") else to_float32(x), dtype) for key, x in params.items()}
    copies = {key: np.ones_like(x) for key, x in first.items()}
    opt = fastlr.SGD(params, lr=1.0, dtype="bfloat16", copy_to=copies, nonfinite="skip", ema=0.5)
    for key in params:
        np.testing.assert_array_equal(copies[key], first[key])
    nothing = {"a": stored(np.full(N, np.nan, np.float32), held), "b": None}
    assert opt.step(nothing).skipped
    for key in params:
        np.testing.assert_array_equal(copies[key], first[key])
    mean = opt.ema["b"].copy()
    opt.step({"a": stored(np.ones(N, np.float32), held), "b": None})
    assert (copies["a"] != first["a"]).any()
    np.testing.assert_array_equal(copies["b"], first["b"])
    np.testing.assert_array_equal(opt.ema["b"], mean)


def as_torch(x):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if x.dtype == np.uint16 else torch.from_numpy(x)


def as_ml_dtypes(x):
    return x.view(pytest.importorskip("ml_dtypes").bfloat16) if x.dtype == np.uint16 else x


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("arrive", [as_torch, as_ml_dtypes, lambda x: x], ids=["torch", "ml_dtypes", "numpy"])
def test_copies_arrive_as_parameters_do(arrive, dtype):
    p, copies = (
        [values(N, 1, 1), values(70, 2, 1).reshape(7, 10)],
        [np.zeros(N, np.float32), np.zeros((7, 10), np.float32)],
    )
    copies = [stored(x, dtype) for x in copies]
    words = {"dtype": "bfloat16"} if arrive(copies[0]) is copies[0] else {}
    opt = fastlr.SGD(p, lr=1.0, copy_to=[arrive(x) for x in copies], **words)
    opt.step([np.ones(N, np.float32), np.ones((7, 10), np.float32)])
    for x, copy in zip(p, copies, strict=True):
        np.testing.assert_array_equal(copy, stored(x, dtype))


def test_copies_may_be_a_flat_buffer():
    p = fastlr.FlatBuffer({"a": (3, 4), "b": (5,)})
    p.data[:] = values(17)
    copy = fastlr.FlatBuffer(p.shapes, "bfloat16")
    fastlr.SGD(p, lr=1.0, copy_to=copy).step(p.like())
    np.testing.assert_array_equal(copy["b"], to_bfloat16(p["b"]))


@pytest.mark.parametrize(
    ("copies", "error", "message"),
    [
        ([None, np.zeros(N, np.float32)], TypeError, "copy_to must have an array for each parameter"),
        (
            [np.zeros(3, np.float32)] * 2,
            ValueError,
            r"copy_to\[0\]: expected shape \(9000,\) to match the parameter, got \(3",
        ),
        (
            [np.zeros(N, np.float32), np.zeros(N, np.float16)],
            TypeError,
            r"copy_to\[1\]: expected float32 to match the first",
        ),
        ([np.zeros(N, np.uint16)] * 2, TypeError, r'copy_to\[0\] must be .*; say dtype="bfloat16"'),
        ([np.zeros(N, np.int32)] * 2, TypeError, r"copy_to\[0\] must be float32"),
        ([np.zeros(N, np.float64)] * 2, TypeError, r"copy_to\[0\] must be float32, float16 or bfloat16 for float32"),
        ([np.zeros(2 * N, np.float32)[::2]] * 2, BufferError, r"copy_to\[0\] must be C-contiguous"),
        ([np.zeros(N, np.float32)] * 1, ValueError, "copy_to must have 2 entries"),
    ],
)
def test_copies_are_checked_before_anything_is_written(copies, error, message):
    p = [values(N, 1), values(N, 2)]
    with pytest.raises(error, match=message):
        fastlr.Adam(p, copy_to=copies)


def test_copies_must_not_overlap():
    p, copy = values(N, 1), np.zeros(2 * N, np.float32)
    with pytest.raises(ValueError, match="params and copy_to must not overlap"):
        fastlr.Adam(p, copy_to=p)
    with pytest.raises(ValueError, match=r"copy_to\[0\] and copy_to\[1\] must not overlap"):
        fastlr.Adam([p, p.copy()], copy_to=[copy[:N], copy[1 : N + 1]])
    assert not copy.any()


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
@pytest.mark.parametrize("held", ["float32", "float64"])
def test_clip_value_limits_each_element(held, dtype):
    p, q = values(N, 1, 1).astype(held), values(N, 1, 1).astype(held)
    opt, plain = fastlr.AdamW(p, lr=0.01, dtype="bfloat16"), fastlr.AdamW(q, lr=0.01)
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


def test_clip_value_of_float64_gradients_leaves_them_alone():
    p, q, g = values(N, 1).astype(float), values(N, 1).astype(float), values(N, 2).astype(float)
    opt, plain = fastlr.AdamW(p, ema=0.5), fastlr.AdamW(q)
    before, mean = g.copy(), q.copy()
    opt.step(g, clip_value=0.1)
    np.testing.assert_array_equal(g, before)
    plain.step(np.clip(g, -0.1, 0.1))
    np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(opt.ema, (mean - 0.5 * mean) + 0.5 * q)
    opt.step(g, clip_value=0.1, zero_grads=True)
    plain.step(np.clip(before, -0.1, 0.1))
    np.testing.assert_array_equal(p, q)
    assert not g.any()


def test_clip_value_is_not_for_rules_that_do_not_narrow():
    with pytest.raises(TypeError, match="clip_value must be None for Adafactor, got 1"):
        fastlr.Adafactor(np.zeros((3, 3))).step(np.zeros((3, 3)), clip_value=1.0)
    for dtype, least in [("float32", 1e-38), ("float64", 1e-308)]:
        with pytest.raises(ValueError, match=rf"clip_value / grad_scale must be a normal {dtype}, got {least}"):
            fastlr.AdamW(np.zeros(3, dtype)).step(np.zeros(3, dtype), clip_value=least)


# ---- accumulation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wide", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_accumulated_gradients_are_averaged_in_the_step(dtype, wide):
    if dtype == "float64":
        wide = np.float64
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


def test_accumulation_has_room_for_parameters_without_elements():
    """Of rules that treat each tensor by itself these are no part of the plan."""
    p = [np.ones((3, 0), np.float32) for _ in range(40)] + [np.ones(5, np.float32)]
    opt = fastlr.LARS(p, lr=1.0)
    opt.accumulate([np.ones_like(x) for x in p])
    opt.accumulate([np.ones_like(x) for x in p])
    twin = [x.copy() for x in p]
    opt.step()
    fastlr.LARS(twin, lr=1.0).step([np.ones_like(x) for x in p])
    np.testing.assert_array_equal(p[-1], twin[-1])


def test_accumulate_checks_before_it_adds():
    opt = fastlr.SGD([np.zeros(5, np.float32), np.zeros(5, np.float32)], lr=1.0)
    with pytest.raises(ValueError, match="expected shape"):
        opt.accumulate([np.ones(5, np.float32), np.ones(6, np.float32)])
    with pytest.raises(TypeError, match="grads must be given"):
        opt.step()
    opt.accumulate([np.ones(5, np.float32)] * 2)
    opt.step()
    assert (opt._structure.arrays[0] == -1).all()


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_sums_that_made_a_step_raise_can_be_dropped(bad):
    p = [np.zeros(N, np.float32), np.zeros(3, np.float32)]
    opt = fastlr.SGD(p, lr=1.0, nonfinite="raise")
    opt.discard()  # of nothing
    opt.accumulate([np.full(N, bad, np.float32), np.ones(3, np.float32)])
    for _ in range(2):
        with pytest.raises(FloatingPointError):
            opt.step()
    opt.discard()
    with pytest.raises(TypeError, match="grads must be given"):
        opt.step()
    opt.accumulate([np.full(N, 2, np.float32), None])
    opt.accumulate([np.full(N, 4, np.float32), None])
    opt.step()
    assert (p[0] == -3).all()
    assert (p[1] == 0).all()


# ---- denormals ------------------------------------------------------------------------------------------------------


def test_denormals_count_as_0_only_in_the_step_and_only_if_asked():
    for mode, expected in [("keep", np.float32(1e-40) * 1), ("flush", 0)]:
        p = np.zeros(100_000, np.float32)
        opt = fastlr.SGD(p, lr=1.0, momentum=0.5, denormals=mode)
        opt.step(np.full(p.size, 1e-40, np.float32))
        assert (opt.state["b"] == expected).all()
        assert np.float32(1e-40) * np.float32(0.5) > 0  # outside the step nothing has changed


def test_denormals_count_as_0_in_sums_and_steps_of_rows_too():
    """On every thread: there are rows for all of them. And in the steps of rules that are no sweep."""
    for mode, expected in [("keep", np.float32(1e-40)), ("flush", 0)]:
        p = np.zeros((4096, 64), np.float32)
        opt = fastlr.SGD(p, lr=1.0, momentum=0.5, denormals=mode)
        opt.step_rows(np.arange(4096), np.full(p.shape, 1e-40, np.float32))
        assert (opt.state["b"] == expected).all()
        assert np.float32(1e-40) * np.float32(0.5) > 0
        factored = fastlr.Adafactor(np.zeros(100_000, np.float32), denormals=mode)
        factored.step(np.full(100_000, 1e-21, np.float32))
        assert (factored.state["v"] > 0).all() == (mode == "keep")
        for wide in (np.float32, np.float64):
            least = np.finfo(wide).smallest_subnormal
            q = np.zeros(100_000, wide)
            sums = fastlr.SGD(q, lr=1.0, denormals=mode)
            for _ in range(3):
                sums.accumulate(np.full(q.size, least))
            assert (sums._sums[0] == (0 if mode == "flush" else 3 * least)).all()
            assert least / 1 > 0


@pytest.mark.parametrize("state", ["bfloat16", "int8"])
@pytest.mark.parametrize("size", [1, 1e-20], ids=["normal", "denormal"])
def test_what_is_stored_is_what_the_step_made_however_denormals_count(state, size):
    """State in fewer bits is float32's, rounded, with denormals flushed too. Squares of 1e-20 are denormal."""
    n, g = 3 * 4096, values(3 * 4096, 2, 1) * np.float32(size)
    narrow, wide = {}, {}
    for mode in ("flush", "keep"):
        p, q = values(n, 1), values(n, 1)
        opt = fastlr.AdamW(p, lr=0.01, state_dtype=state, denormals=mode)
        plain = fastlr.AdamW(q, lr=0.01, denormals=mode)
        opt.step(g)
        plain.step(g)
        np.testing.assert_array_equal(p, q)
        narrow[mode], wide[mode] = [opt._entries[key][0] for key in "mv"], [plain.state[key] for key in "mv"]
        for key, stored_as, x in zip("mv", narrow[mode], wide[mode], strict=True):
            expected = np.empty_like(stored_as)
            if state == "int8":
                _core.pack(x, expected, key == "v")
            else:
                expected = to_bfloat16(x)
            np.testing.assert_array_equal(stored_as, expected)
    if size == 1:
        np.testing.assert_array_equal(narrow["flush"], narrow["keep"])
    else:
        assert not wide["flush"][1].any()
        assert (wide["keep"][1] > 0).any()


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
