"""`python -m bench.prefetch`: what asking for buffers before they are needed is worth on this processor.

Loops ask for every buffer that they go over, or for none: `kernels/prefetch.c` chooses by the
processor's maker. Both are timed in the same rounds, on copies whose bits must agree.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import fastlr
from bench import clock, machine
from bench.cases import Case, Data, parse_size, show_size
from bench.compare import render, show_time
from fastlr import _core
from fastlr.buffers import allocate

RULES: dict[str, tuple[type[fastlr.Optimizer], dict[str, Any]]] = {
    "SGD": (fastlr.SGD, {}),
    "momentum": (fastlr.SGD, {"momentum": 0.9}),
    "AdamW": (fastlr.AdamW, {}),
    "AMSGrad": (fastlr.AMSGrad, {}),
    "Prodigy": (fastlr.Prodigy, {}),
    "AdamW, bfloat16 state": (fastlr.AdamW, {"state_dtype": "bfloat16"}),
    "AdamW, int8 state": (fastlr.AdamW, {"state_dtype": "int8"}),
}


def stepper(optimizer: fastlr.Optimizer, grads: np.ndarray, every: bool) -> Callable[[], object]:
    def step() -> None:
        _core.ask_for_all(every)
        optimizer.step(grads)

    return step


def measure(name: str, n: int, rounds: int) -> tuple[str, ...]:
    data, (cls, hyper) = Data.of(Case("adamw", n)), RULES[name]
    first, second, grads = (allocate(n, np.float32) for _ in range(3))
    first[:], second[:], grads[:] = data.p, data.p, data.g
    steps = {
        label: stepper(cls(copy, lr=1e-3, **hyper), grads, every)
        for label, copy, every in (("every buffer", first, True), ("none", second, False))
    }
    for _ in range(3):
        for step in steps.values():
            step()
    np.testing.assert_array_equal(first, second)
    times = clock.interleave(steps, rounds)
    every, some = times["every buffer"], times["none"]
    return name, show_size(n), show_time(every.median), show_time(some.median), f"{some.over(every):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rules", nargs="*", default=list(RULES), help=f"among {', '.join(RULES)}; default: all")
    parser.add_argument("--sizes", type=lambda x: [parse_size(s) for s in x.split(",")], default="100Ki,1Mi,48Mi")
    parser.add_argument("--rounds", type=int, default=11)
    a = parser.parse_args()
    chosen = _core.asks_for_all()
    print(machine.describe())
    print(f"here loops ask for {'every buffer' if chosen else 'none, or with 8-bit state the parameters'}")
    try:
        table = [measure(name, n, a.rounds) for name in a.rules for n in a.sizes]
    finally:
        _core.ask_for_all(chosen)
    print(render(("rule", "elements", "every buffer", "none", "none / every"), table))


if __name__ == "__main__":
    main()
