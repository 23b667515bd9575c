"""What 8 bits cost: codes as compiled loops have them, timed by Numba's on a block in the cache, on one thread."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from bench.cases import Array

f32, i32, u8 = np.float32, np.int32, np.uint8


class Number(NamedTuple):
    """One number: its code, and the number of a code; the largest of a block is `top`, by its scale.

    Signed ones have a code of magnitudes below 128, and a bit for the sign.
    """

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    top: float
    signed: bool = False


def linear() -> Number:
    """Signed. Adding 1.5 · 2²³ rounds: the lowest bits are the integer."""

    def encode(y: Any) -> Any:
        return u8(f32(y + f32(3 << 22)).view(i32) & i32(255))

    return Number(encode, lambda c: f32(i32(c ^ u8(128)) - i32(128)), 127)


def positive() -> Number:
    return Number(lambda y: u8(i32(y + f32(0.5))), lambda c: f32(c), 255)


def root(levels: int, least: int) -> Number:
    return Number(lambda y: u8(max(i32(np.sqrt(y) + f32(0.5)), i32(least))), lambda c: f32(c) * f32(c), levels**2)


def octaves(mantissa: int) -> Number:
    """Floats of 8 bits in all, without 0 and denormals: the float32's bits, rounded, with another bias."""
    shift = i32(23 - mantissa)
    half, lowest = i32(1 << (22 - mantissa)), i32((128 - 2 ** (8 - mantissa)) << 23)

    def encode(y: Any) -> Any:
        return u8(max(f32(y).view(i32) + half - lowest, i32(0)) >> shift)

    return Number(encode, lambda c: i32((i32(c) << shift) + lowest).view(f32), 2 - 2.0**-mantissa)


def table(values: Array) -> Callable[[Any], Any]:
    held = values.astype(f32)
    return lambda c: held[c]


def logarithmic(values: Array) -> Number:
    """Of values in equal ratios up to 1; the logarithm is exponent and a polynomial of the mantissa."""
    first = values[values > 0].min()
    steps = np.count_nonzero(values) - 1
    m = np.linspace(1, 2, 1000)
    a, b, c, d, e = (f32(x) for x in np.polynomial.Polynomial.fit(m, np.log2(m), 4).convert().coef)
    ratio, last = f32(steps / -np.log2(first)), f32(values.size - 1 + 0.5)

    def encode(y: Any) -> Any:
        bits = f32(y).view(i32)
        m = i32((bits & i32(0x7FFFFF)) | i32(0x3F800000)).view(f32)
        power = f32((bits >> i32(23)) - i32(127)) + ((((e * m + d) * m + c) * m + b) * m + a)
        return u8(i32(max(power * ratio + last, f32(0))))

    return Number(encode, table(values), 1)


def searched(values: Array) -> Number:
    """Of any 256 values in order: which is the nearest."""
    middle = ((values[1:] + values[:-1]) / 2).astype(f32)

    def encode(y: Any) -> Any:
        k = 0
        for half in (128, 64, 32, 16, 8, 4, 2, 1):
            k += half if y > middle[k + half - 1] else 0
        return u8(k)

    return Number(encode, table(values), 1)


def denormal_float(exponent: int, mantissa: int, values: Array) -> Number:
    """With denormals: below the least power, adding a power of two rounds to their unit."""
    shift = i32(23 - mantissa)
    half, lowest = i32(1 << (22 - mantissa)), i32((128 - 2**exponent) << 23)
    least = f32(2.0 ** (2 - 2**exponent))
    unit = f32(least * 2.0 ** (23 - mantissa))
    same = unit.view(i32)

    def encode(y: Any) -> Any:
        normal = (f32(y).view(i32) + half - lowest) >> shift
        return u8(normal if y >= least else f32(y + unit).view(i32) - same)

    top = 2 - 2.0**-mantissa
    return Number(encode, table(values * top), top)


def with_sign(encode: Callable[[Any], Any], decode: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], ...]:
    def encode_signed(y: Any) -> Any:
        return u8(encode(abs(y)) | (u8(128) if y < 0 else u8(0)))

    def decode_signed(c: Any) -> Any:
        x = decode(u8(c & u8(127)))
        return -x if c & u8(128) else x

    return encode_signed, decode_signed


def functions(number: Number, compiled: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], ...]:
    """Both, each function `compiled` before another calls it."""
    both = compiled(number.encode), compiled(number.decode)
    if number.signed:
        both = tuple(map(compiled, with_sign(*both)))
    return both


def nanoseconds(number: Number) -> float:
    """For one element of a state: decoding, an average with something else, and encoding; the best of several runs."""
    import numba

    jitted = numba.njit(error_model="numpy")
    encode, decode = functions(number, jitted)

    def step(x: Array, codes: Array, scale: Any, factor: Any, times: int) -> None:
        for _ in range(times):
            for k in range(x.size):
                codes[k] = encode((f32(0.9) * (decode(codes[k]) * scale) + x[k]) * factor)

    compiled, n, times = jitted(step), 256, 4000
    rng = np.random.default_rng(0)
    x = (0.1 * rng.random(n)).astype(f32)
    arguments = x, rng.integers(0, 256, n).astype(u8), f32(1 / number.top), f32(number.top)
    compiled(*arguments, 1)
    best = np.inf
    for _ in range(7):
        start = perf_counter()
        compiled(*arguments, times)
        best = min(best, perf_counter() - start)
    return best / (n * times) * 1e9
