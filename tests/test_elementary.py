"""kernels/elementary.h against numpy's long double, within the bounds that the header states."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastlr._core import elementary
from fastlr.functional import madgrad

LONG = np.longdouble
# What the references below are right to: 64 bits of mantissa or more, where the platform's long double has them.
pytestmark = pytest.mark.skipif(np.finfo(LONG).nmant < 63, reason="long double is double here")
PI = LONG(math.pi) + LONG("1.2246467991473531772e-16")
COUNT = 4000


def random(*bounds: float) -> np.ndarray:
    return np.random.default_rng(5).uniform(*bounds, COUNT)


def ulps(name: str, expected: np.ndarray, *arguments: np.ndarray) -> float:
    """The largest error, in ulps of the right answer."""
    found = np.array([elementary(name, *map(float, a)) for a in zip(*arguments, strict=True)])
    return float(np.max(np.abs(found.astype(LONG) - expected) / np.spacing(np.abs(expected.astype(float)))))


@pytest.mark.parametrize(("low", "high"), [(-708, 709.7), (-1, 1), (-1e-9, 1e-9)])
def test_exponential(low, high):
    x = random(low, high)
    assert ulps("exponential", np.exp(x.astype(LONG)), x) <= 1


@pytest.mark.parametrize(
    "x", [np.exp(random(-744, 709)), random(0.5, 2), 1 + random(-1e-9, 1e-9)], ids=["all", "1", "at 1"]
)
def test_logarithm(x):
    assert ulps("logarithm", np.log(x.astype(LONG)), x) <= 1


@pytest.mark.parametrize(("most", "bound"), [(1, 1), (10, 1), (30, 2), (100, 8), (700, 48)])
def test_power(most, bound):
    x = np.exp(random(-3, 3))
    y = np.random.default_rng(6).uniform(-most, most, COUNT) / np.log(x)
    assert ulps("power", x.astype(LONG) ** y.astype(LONG), x, y) <= bound


@pytest.mark.parametrize(("base", "last"), [(0.96, 1000), (1 - 1e-6, 1e6), (1 + 1e-3, 1e4), (1e-3, 8)])
def test_power_of_what_schedules_raise(base, last):
    x, y = np.full(COUNT, base), random(0, last)
    assert ulps("power", x.astype(LONG) ** y.astype(LONG), x, y) * 2.3e-16 <= 1e-14


@pytest.mark.parametrize("most", [1e-3, 0.5, 1, 1e6])
def test_cosine_and_sine(most):
    x = random(-most, most)
    r = x - np.rint(x)  # exact
    sign, size, r = np.where(np.rint(x) % 2 == 0, 1, -1), np.abs(r), r.astype(LONG)
    cosine = np.where(size > 0.25, np.sin(PI * (LONG(0.5) - np.abs(r))), np.cos(PI * r))
    assert ulps("cosine_pi", sign * cosine, x) <= 2
    assert ulps("sine_pi", sign * np.sin(PI * r), x) <= 2


def test_half_turns_are_exact():
    for n in (0, 1, 2, 3, 10**6, 10**6 + 1, -1, -7, 2**50, 2**50 - 1):
        assert (elementary("cosine_pi", n), elementary("sine_pi", n)) == ((-1) ** n, 0)
        if abs(n) < 2**49:
            assert (elementary("cosine_pi", n + 0.5), elementary("sine_pi", n + 0.5)) == (0, (-1) ** n)


@pytest.mark.parametrize("most", [1e-3, 0.5, 1, 25])
def test_tanh(most):
    x = random(-most, most)
    assert ulps("tanh_of", np.tanh(x.astype(LONG)), x) <= 3


INF, NAN, LEAST, MOST = math.inf, math.nan, 5e-324, 1.7976931348623157e308


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("exponential", (0,), 1),
        ("exponential", (-INF,), 0),
        ("exponential", (INF,), INF),
        ("exponential", (709.79,), INF),
        ("exponential", (-745.2,), 0),
        ("exponential", (-745,), LEAST),
        ("exponential", (NAN,), NAN),
        ("logarithm", (1,), 0),
        ("logarithm", (0,), -INF),
        ("logarithm", (INF,), INF),
        ("logarithm", (-1,), NAN),
        ("logarithm", (NAN,), NAN),
        ("logarithm", (LEAST,), math.log(LEAST)),
        ("power", (0, 2), 0),
        ("power", (0, 0), 1),
        ("power", (0, -1), INF),
        ("power", (INF, 0.5), INF),
        ("power", (INF, -0.5), 0),
        ("power", (INF, 0), 1),
        ("power", (3, 0), 1),
        ("power", (1, 1e300), 1),
        ("power", (2, 1e300), INF),
        ("power", (2, -1e300), 0),
        ("power", (0.5, INF), 0),
        ("power", (2, INF), INF),
        ("power", (2, -1074), LEAST),
        ("power", (MOST, 1), MOST),
        ("power", (-8, 2), NAN),
        ("power", (NAN, 0), NAN),
        ("power", (1, NAN), NAN),
        ("tanh_of", (INF,), 1),
        ("tanh_of", (-INF,), -1),
        ("tanh_of", (LEAST,), LEAST),
        ("tanh_of", (NAN,), NAN),
    ],
)
def test_the_edges(name, arguments, expected):
    found = elementary(name, *map(float, arguments))
    assert found == pytest.approx(expected, rel=4e-16, abs=0, nan_ok=True)


def test_an_unknown_name():
    with pytest.raises(ValueError, match="unknown function 'sine'"):
        elementary("sine", 0.0)


# ---- the cube root of kernels.h, in the buffers' type ----------------------------------------------------------------


def over_cube_root(x: np.ndarray) -> np.ndarray:
    """1 / ∛x as MADGRAD computes it: from 0, with s = −1, no gradient and the smallest ε."""
    p, s, none, x0 = np.zeros_like(x), np.full_like(x, -1), np.zeros_like(x), np.zeros_like(x)
    madgrad(p, none, s, x.copy(), x0, step=1, momentum=0.0, eps=1e-308)
    return p


def roundoffs(x: np.ndarray, reference: type) -> float:
    """The largest relative error of 1 / ∛x, in u."""
    error = abs(over_cube_root(x) * np.cbrt(x.astype(reference)) - 1).max()
    return float(error / np.finfo(x.dtype).epsneg)


# 1.71 for the root, 1 for the division, and what is of second order.
BOUND = 2.72


def test_cube_root_of_every_mantissa_in_float32():
    """In three binades: the root of 8x is twice that of x, in every operation of it."""
    for first in range(0x3F800000, 0x3F800000 + 3 * 2**23, 2**20):
        assert roundoffs(np.arange(first, first + 2**20, dtype=np.uint32).view(np.float32), np.float64) <= BOUND


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cube_root_of_every_exponent(dtype):
    info = np.finfo(dtype)
    normal = (2.0 ** random(info.minexp, info.maxexp)).astype(dtype)
    denormal = np.unique(np.round(2.0 ** random(0, info.nmant))).astype(dtype) * info.smallest_subnormal
    ends = np.array([info.smallest_subnormal, info.tiny, np.nextafter(info.tiny, dtype(0)), info.max], dtype)
    for x in normal, denormal, ends:
        assert roundoffs(x, LONG) <= BOUND


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cube_root_of_what_has_none(dtype):
    with np.errstate(divide="ignore"):
        found = 1 / over_cube_root(np.array([0, np.inf, np.nan], dtype))
    np.testing.assert_array_equal(found, [np.finfo(dtype).tiny, np.inf, np.nan])
