"""`python -m bench.codes`: ways to keep a moment of Adam in 8 bits, each with a scale for a block of 256.

The error of each on the moments of a model in training; the time that decoding and encoding both moments of an
element takes (`code_cost.py`); and what training gives: the character model of `bench.quality`, in plain NumPy, so that
only the code differs. For the pair that is fastlr's, the kernel's own code is called. Codes "above 0" have no 0.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bench import code_cost, machine
from bench.cases import Array
from bench.code_cost import Number
from bench.compare import render
from bench.quality import Text
from fastlr import _core
from fastlr.bitsandbytes import dynamic_map

BLOCK = 256
LEAST = 1e-7  # of logarithmic codes: as bitsandbytes' maps have about


Rounding = Callable[[Array], Array]


class Code(NamedTuple):
    stored: Rounding  # what is left of the numbers of a tensor
    number: Number


def mapped(values: Array, by: Rounding = np.asarray) -> Rounding:
    """To the nearest of values in order, as `by` spaces them."""
    spaced = by(values)
    middle = (spaced[1:] + spaced[:-1]) / 2
    return lambda x: values[np.searchsorted(middle, by(x))]


def scaled(code: Rounding) -> Rounding:
    """By a code of numbers of at most 1 in magnitude, block by block; the tail stays as it is."""

    def stored(x: Array) -> Array:
        n = x.size // BLOCK * BLOCK
        blocks = x.reshape(-1)[:n].reshape(-1, BLOCK)
        scale = np.abs(blocks).max(1, keepdims=True)
        safe = np.where(scale > 0, scale, 1)
        kept = np.where(scale > 0, code(blocks / safe) * safe, 0).astype(np.float32)
        return np.concatenate([kept.reshape(-1), x.reshape(-1)[n:]]).reshape(x.shape)

    return stored


def kernel(squares: bool) -> Rounding:
    """What fastlr keeps of a moment: a tensor of fewer than 4,096 elements as it is."""

    def stored(x: Array) -> Array:
        packed, back = np.zeros(_core.packed_size(x.size), np.uint8), np.empty(x.size, np.float32)
        _core.pack(np.ascontiguousarray(x, np.float32).reshape(-1), packed, squares)
        _core.unpack(packed, back, squares)
        return back.reshape(x.shape)

    return stored


def of_values(values: Array, number: Number, by: Rounding = np.asarray) -> Code:
    return Code(scaled(mapped(values, by)), number)


def of_magnitudes(values: Array, number: Number, by: Rounding = np.asarray) -> Code:
    """128 magnitudes, the least of them 0, of either sign."""
    nearest = mapped(values, by)
    return Code(scaled(lambda x: np.copysign(nearest(np.abs(x)), x)), number._replace(signed=True))


def powers(count: int) -> Array:
    """From `LEAST` to 1 in equal ratios."""
    return LEAST ** np.linspace(1, 0, count)


def floats(exponent: int, mantissa: int) -> Array:
    """8-bit floats that are not negative, in order, the largest of them 1; with denormals."""
    e, m = np.divmod(np.arange(2 ** (exponent + mantissa)), 2**mantissa)
    return (
        (m + 2**mantissa * (e > 0)) * 2.0 ** np.maximum(e, 1) / ((2 ** (mantissa + 1) - 1) * 2.0 ** (2**exponent - 1))
    )


def octaves(exponent: int, mantissa: int) -> Array:
    """8-bit floats without 0 and denormals."""
    e, m = np.divmod(np.arange(2 ** (exponent + mantissa)), 2**mantissa)
    return (m + 2**mantissa) * 2.0**e / ((2 ** (mantissa + 1) - 1) * 2.0 ** (2**exponent - 1))


def exponent(x: Array) -> Array:
    """0 counts as one step of 126 below `LEAST`."""
    return np.log(np.maximum(x, LEAST ** (127 / 126)))


LINEAR = of_values(np.linspace(-1, 1, 255), code_cost.linear())
LINEAR_V = of_values(np.linspace(0, 1, 256), code_cost.positive())
ROOT = of_magnitudes(np.linspace(0, 1, 128) ** 2, code_cost.root(127, least=0), np.sqrt)
ROOT_WITH_0_V = of_values(np.linspace(0, 1, 256) ** 2, code_cost.root(255, least=0), np.sqrt)
ROOT_V = of_values(np.linspace(0, 1, 256)[1:] ** 2, code_cost.root(255, least=1), np.sqrt)
LOG = of_magnitudes(np.append(0, powers(127)), code_cost.logarithmic(np.append(0, powers(127))), exponent)
LOG_V = of_values(powers(256), code_cost.logarithmic(powers(256)), exponent)
FLOAT = of_magnitudes(floats(4, 3), code_cost.denormal_float(4, 3, floats(4, 3)))
MAP, MAP_V = (of_values(dynamic_map(x), code_cost.searched(dynamic_map(x))) for x in (True, False))

PAIRS: dict[str, tuple[Code, Code]] = {  # of m and of v
    "linear, linear": (LINEAR, LINEAR_V),
    "linear, root": (LINEAR, ROOT_WITH_0_V),
    "linear, root above 0": (LINEAR, ROOT_V),
    "root, root above 0": (ROOT, ROOT_V),
    "linear, log above 0": (LINEAR, LOG_V),
    "log, log above 0": (LOG, LOG_V),
    "float 4+3, float 4+4 above 0": (FLOAT, of_values(octaves(4, 4), code_cost.octaves(4))),
    "linear, float 5+3 above 0": (LINEAR, of_values(octaves(5, 3), code_cost.octaves(3))),
    "linear, float 4+4 above 0 (fastlr's)": (
        Code(kernel(squares=False), code_cost.linear()),
        Code(kernel(squares=True), code_cost.octaves(4)),
    ),
    "dynamic map (bitsandbytes)": (MAP, MAP_V),
}


def train(text: Text, pair: tuple[Code, Code] | None, steps: int, seed: int) -> tuple[float, Array, Array]:
    """Validation loss of AdamW with coded moments, and the moments at the end."""
    p, batches = text.start(seed), text.batches(seed, steps)
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, batch in enumerate(batches, 1):
        g = text.gradient(p, batch)
        m, v = 0.9 * m + np.float32(0.1) * g, np.float32(0.999) * v + np.float32(0.001) * g * g
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            u = m / np.float32(1 - 0.9**t) / (np.sqrt(v / np.float32(1 - 0.999**t)) + np.float32(1e-8))
            p -= np.float32(text.lr) * u
        if pair:
            m, v = pair[0].stored(m), pair[1].stored(v)
    return text.loss(p), m, v


def error(code: Code, x: Array) -> tuple[float, float]:
    """Mean and worst relative error, of the numbers that are not 0."""
    some = x != 0
    e = np.abs(code.stored(x) - x)[some] / np.abs(x)[some]
    return float(e.mean()), float(e.max())


def cost(pair: tuple[Code, Code]) -> str:
    if not importlib.util.find_spec("numba"):
        return "–"
    return f"{sum(code_cost.nanoseconds(code.number) for code in pair):.1f}"


def run(steps: int, seeds: int) -> None:
    text = Text()
    whole = [train(text, None, steps, seed) for seed in range(seeds)]
    _, m, v = whole[0]
    table = [("float32", "0", "0", "0", "0", "0", *(f"{loss:.4f}" for loss, _, _ in whole))]
    for name, pair in PAIRS.items():
        found = [train(text, pair, steps, seed)[0] for seed in range(seeds)]
        errors = [f"{x:.2g}" for code, state in zip(pair, (m, v), strict=True) for x in error(code, state)]
        losses = (f"{loss:.4f}" if abs(loss) < 1e3 else f"{loss:.1e}" for loss in found)
        table.append((name, *errors, cost(pair), *losses))
    print(
        f"relative error of each code, nanoseconds for both moments of an element, validation loss after {steps} steps"
    )
    columns = ("code of m, v", "m mean", "worst", "v mean", "worst", "ns", *(f"seed {k}" for k in range(seeds)))
    print(render(columns, table))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="write what is printed to bench/record/, too")
    a = parser.parse_args()
    with machine.recorded("codes", a.record):
        run(a.steps, a.seeds)


if __name__ == "__main__":
    main()
