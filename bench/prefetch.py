"""`python -m bench.prefetch`: what asking for buffers before they are needed is worth on this processor.

Loops ask for every buffer that they go over, for what inlined ones come to late, or for next to nothing:
`kernels/prefetch.c` chooses by the processor. All are timed in the same rounds, on copies whose bits must agree.
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


def stepper(optimizer: fastlr.Optimizer, grads: np.ndarray, asking: str) -> Callable[[], object]:
    def step() -> None:
        _core.ask(asking)
        optimizer.step(grads)

    return step


def measure(name: str, n: int, rounds: int) -> tuple[str, ...]:
    data, (cls, hyper) = Data.of(Case("adamw", n)), RULES[name]
    grads, *copies = (allocate(n, np.float32) for _ in range(1 + len(_core.ASKINGS)))
    grads[:] = data.g
    for copy in copies:
        copy[:] = data.p
    steps = {
        asking: stepper(cls(copy, lr=1e-3, **hyper), grads, asking)
        for asking, copy in zip(_core.ASKINGS, copies, strict=True)
    }
    for _ in range(3):
        for step in steps.values():
            step()
    for copy in copies[1:]:
        np.testing.assert_array_equal(copy, copies[0])
    times = clock.interleave(steps, rounds)
    little, *more = (times[asking] for asking in _core.ASKINGS)
    return (
        name,
        show_size(n),
        *(show_time(t.median) for t in (little, *more)),
        *(f"{t.over(little):.2f}" for t in more),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rules", nargs="*", default=list(RULES), help=f"among {', '.join(RULES)}; default: all")
    parser.add_argument("--sizes", type=lambda x: [parse_size(s) for s in x.split(",")], default="100Ki,1Mi,48Mi")
    parser.add_argument("--rounds", type=int, default=11)
    a = parser.parse_args()
    chosen = _core.asks()
    print(machine.describe())
    print(f"here loops ask for: {chosen}")
    try:
        table = [measure(name, n, a.rounds) for name in a.rules for n in a.sizes]
    finally:
        _core.ask(chosen)
    print(render(("rule", "elements", *_core.ASKINGS, *(f"{x} / little" for x in _core.ASKINGS[1:])), table))


if __name__ == "__main__":
    main()
