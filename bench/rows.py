"""`python -m bench.rows`: steps of some rows of a table, against torch's sparse gradients; checked, then timed
interleaved.

A table of a million rows of 64 float32, 65,536 gradients of a row each: rows drawn uniformly, nearly all different,
and by Zipf's law, about ten thousand different ones. torch gets the same as a sparse COO tensor that is not
coalesced, as ``torch.nn.Embedding(sparse=True)`` makes it.

For every engine the table and the gradients begin where a line does, as tensors that torch makes do, and lie in huge
pages where the system has them, as large arrays of NumPy do.

The floor is fastlr's loop with one addition a buffer, given each row once and in order, with one gradient: what moving
those rows costs where nothing is sorted, summed or computed. Rows that share a gradient are left out of it.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from typing import Any

import numpy as np

import fastlr
from bench import clock, machine
from bench.cases import Array
from bench.compare import render, show_time
from bench.engines import limit_threads
from bench.memory import placed
from tests import row_reference

LR = 1e-3
MOMENTUM = {"momentum": 0.9}
# The class, torch's where it has one, the reference, and hyper-parameters of all three.
RULES: dict[str, tuple[str, str | None, Any, dict[str, float]]] = {
    "SparseAdam": ("SparseAdam", "SparseAdam", row_reference.sparse_adam, {}),
    "Adagrad": ("Adagrad", "Adagrad", row_reference.adagrad, {}),
    "SGD": ("SGD", "SGD", row_reference.sgd, {}),
    # torch moves all rows that ever had a gradient; here those are the same ones at every step.
    "momentum": ("SGD", "SGD", row_reference.sgd, MOMENTUM),
    "RowAdagrad": ("RowAdagrad", None, row_reference.row_adagrad, {}),
    "LazyAdam": ("LazyAdam", None, row_reference.lazy_adam, {}),
    "FTRL": ("FTRL", None, row_reference.ftrl, {}),
}
STEPS = 3
CHECKED = 500  # distinct rows compared with the reference


def index(how: str, rows: int, n: int) -> Array:
    rng = np.random.default_rng(20240229)
    if how == "uniform":
        return rng.integers(0, rows, n)
    weights = 1 / np.arange(1, rows + 1) ** 1.2
    return rng.permutation(rows)[rng.choice(rows, n, p=weights / weights.sum())]


def ours(name: str, table: Array, chosen: Array, grads: Array) -> Callable[[], object]:
    cls, _, _, hyper = RULES[name]
    opt = getattr(fastlr, cls)(table, lr=LR, **hyper)
    return lambda: opt.step_rows(chosen, grads)


def floor(name: str, table: Array, chosen: Array, grads: Array) -> Callable[[], object]:
    """For rules whose states have an element for each of the table's."""
    cls, _, _, hyper = RULES[name]
    states = getattr(fastlr, cls)(table[:1].copy(), lr=LR, **hyper).state
    body = {"rule": f"floor_{len(states)}", "states": tuple(states), "kernel": staticmethod(lambda group: ())}
    opt = type("Floor", (fastlr.SparseAdam,), body)(table, lr=LR)
    rows = np.unique(chosen)
    return lambda: opt.step_rows(rows, grads[: rows.size])


def theirs(name: str, table: Array, chosen: Array, grads: Array) -> Callable[[], object]:
    import torch

    _, cls, _, hyper = RULES[name]
    param = torch.nn.Parameter(torch.from_numpy(table))
    opt = getattr(torch.optim, str(cls))([param], lr=LR, **hyper)
    with torch.sparse.check_sparse_tensor_invariants(False):
        values = torch.from_numpy(chosen)[None], torch.from_numpy(grads)
        param.grad = torch.sparse_coo_tensor(*values, table.shape, check_invariants=True)
    return opt.step


def verify(name: str, start: Array, table: Array, chosen: Array, grads: Array) -> None:
    """Some rows against the reference, all others against the start; raises if `table` is wrong."""
    touched, counts = np.unique(chosen, return_counts=True)
    sample = np.union1d(touched[np.argsort(counts)[-5:]], np.random.default_rng(1).choice(touched, CHECKED))
    mask = np.isin(chosen, sample)
    sizes = row_reference.summed(chosen[mask], abs(grads[mask]).astype(np.float64))
    count = dict(zip(touched.tolist(), counts.tolist(), strict=True))
    for row, g in row_reference.summed(chosen[mask], grads[mask].astype(np.float64)).items():
        p, path = start[row].astype(np.float64), 0.0
        _, _, rule, hyper = RULES[name]
        state: dict[str, Any] = {"m": 0.0, "v": 0.0, "l": 0, "s": 0.0, "z": 0.0, "n": 0.0}
        for t in range(1, STEPS + 1):
            before = p
            p, state = rule(p, g, state, t, lr=LR, **hyper)
            path += abs(p - before)
        # As in bench/check.py; but a peer's sum of thousands in float32 is off by more, also where it is next to 0.
        most = 4 * STEPS * np.spacing(abs(p).astype(np.float32)) + 1e-3 * path
        most += STEPS * LR * count[row] * 2.0**-24 * sizes[row]
        if not (abs(table[row] - p) <= most).all():
            raise AssertionError(f"row {row} is off by {abs(table[row] - p).max()}")
    others = np.ones(len(table), bool)
    others[touched] = False
    if not np.array_equal(table[others], start[others]):
        raise AssertionError("rows that have no gradient were changed")


def measure(name: str, how: str, rows: int, width: int, n: int, rounds: int) -> list[tuple[str, ...]]:
    rng = np.random.default_rng(0)
    chosen, grads = index(how, rows, n), placed(rng.standard_normal((n, width), np.float32))
    start = rng.standard_normal((rows, width), np.float32)
    steps = {}
    for engine, make in (("fastlr", ours), ("torch", theirs)):
        if make is theirs and RULES[name][1] is None:
            continue
        try:
            table = placed(start)
            step = make(name, table, chosen, grads)
            for _ in range(STEPS):
                step()
            verify(name, start, table, chosen, grads)
        except ImportError:
            continue
        steps[engine] = step
    if not getattr(fastlr, RULES[name][0]).per_row:
        steps["floor"] = floor(name, placed(start), chosen, grads)
    times = clock.interleave(steps, rounds)
    different = str(len(np.unique(chosen)))
    return [
        (
            f"{name} {how}",
            different,
            engine,
            show_time(t.median),
            show_time(t.min),
            f"{t.over(times['fastlr']):.1f}",
        )
        for engine, t in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rules", nargs="*", default=list(RULES), help=f"among {', '.join(RULES)}; default: all")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--gradients", type=int, default=65_536)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    limit_threads(a.threads)
    print(machine.describe())
    table = []
    for name in a.rules:
        for how in ("zipf", "uniform"):
            table += measure(name, how, a.rows, a.width, a.gradients, a.rounds)
            gc.collect()
    print(render(("rule", "rows", "engine", "median", "min", "x fastlr"), table))


if __name__ == "__main__":
    main()
