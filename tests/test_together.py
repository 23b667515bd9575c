"""What a step does beside its update, several at once: sums of gradients, limits, checks, scales, a mean and copies,
with numbers in fewer bits. Each is compared with its parts done one after the other.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastlr
from fastlr import _core
from fastlr.precision import Packed, to_float32
from tests.test_exact import ISAS, use
from tests.test_precision import stored, values

N = 9000
CUTS = [5000, 5300]
NARROW = ["float32", "bfloat16", "float16"]
STORED = [  # parameters and how they are kept
    ("float32", {}),
    ("float32", {"state_dtype": "int8"}),
    ("bfloat16", {}),
    ("bfloat16", {"state_dtype": "bfloat16"}),
    ("bfloat16", {"rounding": "stochastic", "seed": 5}),
    ("bfloat16", {"master": "split"}),
    ("float16", {"master": "float32"}),
]
LIMITS = [
    {},
    {"grad_scale": 0.3},
    {"clip_norm": 1.0},
    {"clip_norm": [1.0, None, 0.5]},
    {"clip_norm": [1.0, None, 0.5], "grad_scale": 0.3},
    {"clip_value": 0.25},
    {"clip_value": 0.25, "grad_scale": 0.3},
]
every_gradient = pytest.mark.parametrize("dtype", NARROW)
every_storage = pytest.mark.parametrize(("held", "options"), STORED, ids=str)
every_limit = pytest.mark.parametrize("limits", LIMITS, ids=str)


@pytest.fixture(autouse=True)
def machine():
    isa, threads = _core.isa(), _core.get_threads()
    yield
    use(isa, threads)


def groups(x):
    """Three groups: of several blocks, of less than one, and the rest."""
    return [{"params": part} for part in np.split(x, CUTS)]


def optimizer(held, options, **more):
    p = stored(values(N, 1, 1), held)
    return p, fastlr.AdamW(groups(p), lr=0.01, weight_decay=0.1, dtype="bfloat16", **options, **more)


def everything(p, opt):
    arrays = itertools.chain(*opt._entries.values(), *opt._beside.values())
    return [p.tobytes(), *(a.tobytes() for a in arrays), opt.step_count]


def same(a, b):
    assert everything(*a) == everything(*b)


def batches(first, dtype, count=3):
    return [stored(values(N, first + k, 1), dtype) for k in range(count)]


def gather(opt, grads):
    """Gives them to `accumulate`; their sum in float32, in order."""
    total = np.zeros(N, np.float32)
    for g in grads:
        opt.accumulate(np.split(g, CUTS))
        total += to_float32(g)
    return total


# ---- sums of gradients ----------------------------------------------------------------------------------------------


@every_storage
@every_gradient
@every_limit
def test_limits_are_of_the_mean_of_accumulated_gradients(held, options, dtype, limits):
    """And reports too; bit for bit those of a step with the sum and a third as its scale."""
    one, plain = optimizer(held, options), optimizer(held, options)
    for first in (2, 5, 8):
        total = gather(one[1], batches(first, dtype))
        found = one[1].step(**limits)
        expected = plain[1].step(np.split(total, CUTS), **{**limits, "grad_scale": limits.get("grad_scale", 1.0) / 3})
        assert (found.grad_norm, found.grad_norms) == (expected.grad_norm, expected.grad_norms)
        same(one, plain)


@every_limit
def test_limits_of_a_mean_are_what_they_say(limits):
    """In float64, without fastlr."""
    p = np.zeros(N, np.float32)
    opt = fastlr.SGD(groups(p), lr=1.0, dtype="bfloat16")
    mean = gather(opt, batches(2, "bfloat16")).astype(np.float64) / 3 * limits.get("grad_scale", 1.0)
    report = opt.step(**limits)
    parts = np.split(mean, CUTS)
    if "clip_value" in limits:
        parts = [np.clip(x, -0.25, 0.25) for x in parts]
    elif isinstance(limits.get("clip_norm"), list):
        norms = [np.linalg.norm(x) for x in parts]
        assert report.grad_norms == pytest.approx(norms, rel=1e-6)
        limit = [np.inf if x is None else x for x in limits["clip_norm"]]
        parts = [x * min(1, most / (norm + 1e-6)) for x, most, norm in zip(parts, limit, norms, strict=True)]
    elif "clip_norm" in limits:
        assert report.grad_norm == pytest.approx(np.linalg.norm(mean), rel=1e-6)
        parts = [x * min(1, limits["clip_norm"] / (np.linalg.norm(mean) + 1e-6)) for x in parts]
    np.testing.assert_allclose(-p, np.concatenate(parts), rtol=1e-5, atol=1e-7)


@every_gradient
@pytest.mark.parametrize("held", ["float32", "bfloat16", "float16"])
def test_accumulation_has_the_same_bits_everywhere(held, dtype):
    found = []
    for isa, threads in itertools.product(ISAS, (1, 2, 3)):
        use(isa, threads)
        one = optimizer(held, {"state_dtype": "bfloat16"})
        for first in (2, 5):
            total = gather(one[1], batches(first, dtype))
            np.testing.assert_array_equal(np.concatenate([x.reshape(-1) for x in one[1]._sums]), total)
            one[1].step(clip_norm=1.0)
        found.append(everything(*one))
    assert all(x == found[0] for x in found)


@every_gradient
@pytest.mark.parametrize("where", [0, 5100, N - 1])
def test_a_mean_that_is_not_finite_is_left_out_and_forgotten(dtype, where):
    one, plain = (optimizer("float32", {}, nonfinite="skip") for _ in range(2))
    before = everything(*one)
    grads = batches(2, dtype)
    grads[1][where] = stored(np.float32([np.inf]), dtype)[0]
    gather(one[1], grads)
    assert one[1].step(clip_value=0.5).skipped
    assert everything(*one) == before
    total = gather(one[1], batches(5, dtype))
    assert not one[1].step(clip_value=0.5).skipped
    plain[1].step(np.split(total, CUTS), clip_value=0.5, grad_scale=1 / 3)
    same(one, plain)


@every_gradient
def test_a_mean_that_is_not_finite_raises_and_nothing_was_written(dtype):
    p, opt = optimizer("float32", {}, nonfinite="raise")
    before = everything(p, opt)
    grads = batches(2, dtype)
    grads[2][7] = stored(np.float32([np.nan]), dtype)[0]
    gather(opt, grads)
    with pytest.raises(FloatingPointError):
        opt.step()
    assert everything(p, opt) == before


# ---- the loss scaler ------------------------------------------------------------------------------------------------


@every_storage
@every_gradient
def test_scaled_gradients_step_as_unscaled_ones(held, options, dtype):
    """A power of two changes no bit, wherever the gradients stay in range."""
    one, plain = optimizer(held, options, nonfinite="skip"), optimizer(held, options)
    scaler = fastlr.LossScaler(scale=64.0, interval=2)
    for k in range(4):
        g = np.float32(2.0**-4) * to_float32(stored(np.sign(values(N, 2 + k)) * (1 + np.arange(N) % 100), "bfloat16"))
        scaled = stored(g * np.float32(scaler.scale), dtype)
        np.testing.assert_array_equal(to_float32(scaled), g * np.float32(scaler.scale))
        assert not scaler.step(one[1], np.split(scaled, CUTS), clip_norm=3.0).skipped
        plain[1].step(np.split(g, CUTS), clip_norm=3.0)
        same(one, plain)
    assert scaler.scale == 256


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_scaler_finds_the_scale_that_fits(dtype):
    """Gradients of a loss in float16 overflow at 65520; those of bfloat16 where float32 does."""
    largest = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}[dtype]
    p = np.zeros(N, np.float32)
    opt = fastlr.SGD(p, lr=1.0, nonfinite="skip", dtype="bfloat16")
    scaler = fastlr.LossScaler(scale=2.0**10 * largest / 65504, interval=1000)
    g = np.full(N, 1.0, np.float32)
    g[-1] = 1000.0
    skipped = 0
    with np.errstate(over="ignore"):
        while scaler.step(opt, scaled := stored(g * np.float32(scaler.scale), dtype)).skipped:
            assert not np.isfinite(to_float32(scaled)).all()
            assert (p == 0).all()
            skipped += 1
    assert skipped == 4
    np.testing.assert_allclose(p, -g, rtol=2**-7)
    assert opt.step_count == scaler.good_steps == 1


@every_gradient
def test_the_scaler_takes_accumulated_gradients(dtype):
    one, plain = optimizer("bfloat16", {}, nonfinite="skip"), optimizer("bfloat16", {})
    scaler = fastlr.LossScaler(scale=8.0, backoff=0.25)
    grads = batches(2, dtype)
    bad = [g.copy() for g in grads]
    bad[0][N - 1] = stored(np.float32([-np.inf]), dtype)[0]
    before = everything(*one)
    gather(one[1], bad)
    assert scaler.step(one[1]).skipped
    assert (everything(*one), scaler.scale) == (before, 2.0)
    total = gather(one[1], grads)
    report = scaler.step(one[1], clip_norm=[1.0, None, 0.5])
    expected = plain[1].step(np.split(total, CUTS), clip_norm=[1.0, None, 0.5], grad_scale=1 / 2 / 3)
    assert (report.skipped, report.grad_norms) == (False, expected.grad_norms)
    same(one, plain)


# ---- gradients in fewer bits ----------------------------------------------------------------------------------------


@every_storage
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@every_limit
def test_limits_see_narrow_gradients_as_they_are_in_float32(held, options, dtype, limits):
    one, plain = optimizer(held, options), optimizer(held, options)
    for k in range(3):
        g = stored(values(N, 2 + k, 1), dtype)
        found = one[1].step(np.split(g, CUTS), **limits)
        expected = plain[1].step(np.split(to_float32(g), CUTS), **limits)
        assert (found.grad_norm, found.grad_norms) == (expected.grad_norm, expected.grad_norms)
        same(one, plain)


@every_storage
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_found_in_fewer_bits(held, options, dtype, bad):
    """In whole blocks, in short arrays and at the ends, on every instruction set."""
    skip, stop = optimizer(held, options, nonfinite="skip"), optimizer(held, options, nonfinite="raise")
    before = everything(*skip)
    for where, isa in itertools.product([0, 255, 4999, 5000, 5299, 5300, N - 1], ISAS):
        use(isa, 2)
        g = stored(values(N, 2, 1), dtype)
        g[where] = stored(np.float32([bad]), dtype)[0]
        for limits in ({}, {"clip_value": 0.5}, {"clip_norm": 1.0}):
            h = g.copy()
            report = skip[1].step(np.split(h, CUTS), zero_grads=True, **limits)
            assert report.skipped
            assert everything(*skip) == before
            assert (h == 0).all()  # also when the step is left out
            with pytest.raises(FloatingPointError):
                stop[1].step(np.split(g, CUTS), **limits)
            assert everything(*stop) == before


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_largest_finite_numbers_are_finite(dtype):
    _, opt = optimizer("float32", {}, nonfinite="skip")
    g = np.full(N, {"bfloat16": 0x7F7F, "float16": 0x7BFF}[dtype], np.uint16)
    g[::2] |= 0x8000
    assert not opt.step(np.split(g.view(np.float16) if dtype == "float16" else g, CUTS)).skipped


def test_infinity_in_fewer_bits_is_used_if_that_is_asked_for():
    for dtype in ("bfloat16", "float16"):
        p = np.zeros(N, np.float32)
        g = stored(np.float32([np.inf, -np.inf, np.nan] * (N // 3)), dtype)
        fastlr.SGD(p, lr=1.0, dtype="bfloat16").step(g)
        np.testing.assert_array_equal(p, np.float32([-np.inf, np.inf, np.nan] * (N // 3)))


# ---- the whole chain ------------------------------------------------------------------------------------------------


def kept(opt):
    """The state as float32."""
    states = [opt.state[key] for key in opt.states]
    wide = [x.unpack() if isinstance(x, Packed) else x for x in states]
    return [np.concatenate([to_float32(part) for part in x]) for x in wide]


@pytest.mark.parametrize("state", ["float32", "bfloat16", "int8"])
@every_gradient
@pytest.mark.parametrize("copied", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("limits", [{"clip_norm": 1.0}, {"clip_norm": [1.0, None, 0.5]}, {"clip_value": 0.25}], ids=str)
def test_the_chain_is_its_parts_in_numpy(state, dtype, copied, limits):
    """Clip, AdamW, zero, mean and copy: the formulas in float64 from the state that is kept, rounded as it is kept."""
    copy = stored(np.zeros(N, np.float32), copied)
    p, opt = optimizer("float32", {"state_dtype": state}, ema=0.9, copy_to=np.split(copy, CUTS))
    alone = optimizer("float32", {"state_dtype": state})
    mean, share = p.copy(), np.float32(1 - 0.9)
    for step in range(1, 5):
        g = stored(values(N, 1 + step, 1), dtype)
        wide, (m, v), x = to_float32(g).astype(np.float64), kept(opt), p.astype(np.float64)
        opt.step(np.split(g, CUTS), zero_grads=True, **limits)
        assert (g == 0).all()

        if "clip_value" in limits:
            d = np.clip(wide, -0.25, 0.25)
        else:
            norms = [np.linalg.norm(part) for part in np.split(wide, CUTS)]
            given = limits["clip_norm"]
            each = [np.inf if most is None else most for most in given] if isinstance(given, list) else None
            whole = 1.0 / (np.linalg.norm(norms) + 1e-6)
            factors = [most / (a + 1e-6) for most, a in zip(each, norms, strict=True)] if each else [whole] * 3
            d = np.concatenate([a * min(1, f) for a, f in zip(np.split(wide, CUTS), factors, strict=True)])
        m, v = 0.9 * m + 0.1 * d, 0.999 * v + 0.001 * d * d
        u = m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        np.testing.assert_allclose(p, x - 0.01 * (u + 0.1 * x), rtol=2e-6, atol=2e-7)

        mean = (mean - share * mean) + share * p
        np.testing.assert_array_equal(np.concatenate(opt.ema), mean)
        np.testing.assert_array_equal(copy, stored(p, copied))
        alone[1].step(np.split(wide.astype(np.float32), CUTS), **limits)
        np.testing.assert_array_equal(p, alone[0])
        for ours, theirs, new in zip(kept(opt), kept(alone[1]), (m, v), strict=True):
            np.testing.assert_array_equal(ours, theirs)
            if state != "int8":
                np.testing.assert_allclose(ours, new, rtol=2**-8 if state == "bfloat16" else 1e-5, atol=1e-7)
            else:  # what has no blocks is float32
                np.testing.assert_allclose(ours[5000:5300], new[5000:5300], rtol=1e-5, atol=1e-7)


@every_storage
def test_the_mean_follows_what_was_before_it_was_rounded(held, options):
    """Or the parameters in full, where what rounding loses is kept."""
    p, opt = optimizer(held, options, ema=0.9)
    wide = to_float32(p)
    plain = fastlr.AdamW(groups(wide), lr=0.01, weight_decay=0.1, state_dtype=options.get("state_dtype", "float32"))
    mean, share = wide.copy(), np.float32(1 - 0.9)
    for k in range(3):
        g = np.split(values(N, 2 + k, 1), CUTS)
        if not opt._beside.keys() & {"master", "low"}:
            wide[:] = to_float32(p)
        opt.step(g)
        plain.step(g)
        mean = (mean - share * mean) + share * wide
        np.testing.assert_array_equal(np.concatenate(opt.ema), mean)
