"""`python -m bench.codes`: ways to keep a moment of Adam in 8 bits, each with a scale for a block of 256.

The error of each on the moments of a model in training, and what training with it gives: the character model of
`bench.quality`, in plain NumPy, so that only the code differs. fastlr has "linear" for m and "float 4+4" for v.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from bench import machine
from bench.cases import Array
from bench.compare import render
from bench.quality import Text
from fastlr.bitsandbytes import dynamic_map

Code = Callable[[Array], Array]  # what is left of the numbers of blocks, scaled to at most 1 in magnitude
BLOCK = 256


def linear(x: Array) -> Array:
    return np.rint(x * 127) / 127


def root(x: Array) -> Array:
    """Square-root companding: as fine near 0 as v = g² needs."""
    return np.copysign(np.square(np.rint(np.sqrt(np.abs(x)) * 127) / 127), x)


def logarithmic(x: Array) -> Array:
    """127 magnitudes from 1 down to 1e-7 in equal ratios, and 0."""
    least = 1e-7
    k = np.rint(np.log(np.maximum(np.abs(x), 1e-30) / least) / -np.log(least) * 126)
    return np.where(k < 0, 0, np.copysign(least ** (1 - np.maximum(k, 0) / 126), x))


def floating(x: Array, exponent: int, mantissa: int) -> Array:
    """An 8-bit float with its exponents just below 1, and denormals."""
    top = 2 - 2.0**-mantissa
    y = np.abs(x) * top
    e = np.maximum(np.floor(np.log2(np.maximum(y, 1e-30))), 2 - 2**exponent)
    unit = 2.0 ** (e - mantissa)
    return np.copysign(np.rint(y / unit) * unit / top, x)


def mapped(values: Array) -> Code:
    middle = (values[1:] + values[:-1]) / 2
    return lambda x: values[np.searchsorted(middle, x)]


def without_zero(code: Code, least: float) -> Code:
    """No number becomes less than `least`."""
    return lambda x: np.maximum(code(x), least)


PAIRS: dict[str, tuple[Code, Code]] = {  # of m and of v
    "linear, linear": (linear, linear),
    "linear, root": (linear, root),
    "linear, root above 0": (linear, without_zero(root, 127.0**-2)),
    "root, root above 0": (root, without_zero(root, 127.0**-2)),
    "log, log above 0": (logarithmic, without_zero(logarithmic, 1e-7)),
    "float 4+3, float 4+4 above 0": (
        lambda x: floating(x, 4, 3),
        without_zero(lambda x: floating(x, 4, 4), 2.0**-15),
    ),
    "linear, float 4+4 above 0 (fastlr's)": (linear, without_zero(lambda x: floating(x, 4, 4), 2.0**-15)),
    "dynamic map (bitsandbytes)": (mapped(dynamic_map(True)), mapped(dynamic_map(False))),
}


def through(code: Code, x: Array) -> Array:
    """The numbers of x after they were stored; its tail stays as it is."""
    n = x.size // BLOCK * BLOCK
    if n == 0:
        return x
    blocks = x.reshape(-1)[:n].reshape(-1, BLOCK)
    scale = np.abs(blocks).max(1, keepdims=True)
    safe = np.where(scale > 0, scale, 1)
    stored = np.where(scale > 0, code(blocks / safe) * safe, 0).astype(np.float32)
    return np.concatenate([stored.reshape(-1), x.reshape(-1)[n:]]).reshape(x.shape)


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
            m, v = through(pair[0], m), through(pair[1], v)
    return text.loss(p), m, v


def error(code: Code, x: Array) -> tuple[float, float]:
    """Mean and worst relative error, of the numbers that are not 0."""
    some = x != 0
    e = np.abs(through(code, x) - x)[some] / np.abs(x)[some]
    return float(e.mean()), float(e.max())


def run(steps: int, seeds: int) -> None:
    text = Text()
    whole = [train(text, None, steps, seed) for seed in range(seeds)]
    _, m, v = whole[0]
    table = [("float32", "0", "0", "0", "0", *(f"{loss:.4f}" for loss, _, _ in whole))]
    for name, pair in PAIRS.items():
        found = [train(text, pair, steps, seed)[0] for seed in range(seeds)]
        errors = [f"{x:.2g}" for code, state in zip(pair, (m, v), strict=True) for x in error(code, state)]
        table.append((name, *errors, *(f"{loss:.4f}" if abs(loss) < 1e3 else f"{loss:.1e}" for loss in found)))
    print(f"relative error of each code, and validation loss after {steps} steps")
    columns = ("code of m, v", "m mean", "worst", "v mean", "worst", *(f"seed {k}" for k in range(seeds)))
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
