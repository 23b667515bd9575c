"""`python -m bench.kept`: what rules would lose, if the states that they keep in float32 were stored in fewer bits.

`state_dtype` leaves some states as they are: sums, means of parameters, where they started, and what is subtracted.
Here each of them is rounded after every step, as storing it would do, in the training of `bench.quality`'s two models,
and what it is in the end is compared with what float32 leaves there: a loss may bear what is no longer the rule. A sum
of like terms stops growing in bfloat16 at 256 of them; in 8 bits it grows with the largest of its block, though nothing
is added to it. A mean of parameters stands still where they move it by less than half a unit.
"""

from __future__ import annotations

import argparse
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

import fastlr
from bench import machine
from bench.cases import Array
from bench.compare import render
from bench.quality import Digits, Task, Text
from fastlr import _core
from fastlr.precision import to_bfloat16, to_float32

WHOLE = 2000  # examples of a step of rules that are not for batches


class Kept(NamedTuple):
    """A rule, what it is trained with, those of its states that stay float32, and which of them are never negative."""

    name: str
    hyper: dict[str, Any]
    states: str
    squares: str = ""
    whole: bool = False


RULES = [
    Kept("Adagrad", {"lr": 0.01}, "s", "s"),
    Kept("RMSprop", {"lr": 1e-3, "centered": True}, "v a", "v"),
    Kept("Rprop", {"lr": 1e-4, "step_sizes": (1e-6, 1e-2)}, "s last", "s", whole=True),
    Kept("ASGD", {"lr": 0.1, "t0": 100}, "x"),
    Kept("FTRL", {"lr": 0.05}, "z n", "n"),
    Kept("MADGRAD", {"lr": 1e-3}, "s v x0", "v"),
    Kept("ScheduleFreeSGD", {"lr": 1.0}, "z"),
    Kept("ScheduleFreeAdamW", {"lr": 2e-3}, "z"),
    Kept("DAdaptSGD", {"lr": 1.0}, "s x0"),
    Kept("DAdaptAdam", {"lr": 1.0}, "s"),
    Kept("Prodigy", {"lr": 1.0}, "s x0"),
    Kept("DoG", {"lr": 1.0, "averaging": 8.0}, "x0 a"),
]


def rounded(x: Array, dtype: str, squares: bool) -> Array:
    """What would be read at the next step."""
    if dtype == "bfloat16":
        return to_float32(to_bfloat16(x))
    packed, back = np.zeros(_core.packed_size(x.size), np.uint8), np.empty(x.size, np.float32)
    _core.pack(x, packed, squares)
    _core.unpack(packed, back, squares)
    return back


def train(task: Task, rule: Kept, state: str, dtype: str, steps: int, seed: int) -> tuple[float, dict[str, Array]]:
    """The validation loss in the end, and the states."""
    p = task.start(seed)
    opt = getattr(fastlr, rule.name)(p, **rule.hyper)
    all_rows = np.random.default_rng(2000 + seed).integers(0, len(task.y) - task.held, WHOLE)
    for batch in task.batches(seed, steps // 20 if rule.whole else steps):
        opt.step(task.gradient(p, all_rows if rule.whole else batch))
        if state:
            opt.state[state][:] = rounded(opt.state[state], dtype, state in rule.squares.split())
    average = opt.state["x"] if rule.name == "ASGD" else opt.eval_params() if hasattr(opt, "eval_params") else p
    with np.errstate(all="ignore"):
        return task.loss(average), {key: opt.state[key] for key in rule.states.split()}


def apart(x: Array, exact: Array) -> float:
    """The median of an element's ratio to what it is in float32."""
    some = exact != 0
    with np.errstate(all="ignore"):
        return float(np.median(x[some] / exact[some]))


def compare(task: Task, rules: list[Kept], steps: int, seeds: int) -> None:
    table = []
    for rule in rules:
        base = [train(task, rule, "", "", steps, seed) for seed in range(seeds)]
        losses = [loss for loss, _ in base]
        spread = max(losses) - min(losses)
        table.append((rule.name, "float32", *(f"{x:.4f}" for x in losses), "", "", ""))
        for state in rule.states.split():
            for dtype in ("bfloat16", "int8"):
                found = [train(task, rule, state, dtype, steps, seed) for seed in range(seeds)]
                off = mean(loss for loss, _ in found) - mean(losses)
                ratio = mean(apart(x[state], y[state]) for (_, x), (_, y) in zip(found, base, strict=True))
                near = abs(off) <= max(0.01 * mean(losses), spread)
                table.append(
                    (
                        "",
                        f"{state} {dtype}",
                        *(f"{x:.4f}" if x < 1e3 else f"{x:.1e}" for x, _ in found),
                        f"{100 * off / mean(losses):+.2f} %" if off < 1e3 else "–",
                        "yes" if near else "no",
                        f"{ratio:.3f}",
                    )
                )
    columns = (*(f"seed {k}" for k in range(seeds)), "mean, to float32", "within 1 % or spread", "median, to float32")
    print(
        f"\n{type(task).__name__}: validation loss after {steps} steps; of Rprop's, a twentieth, {WHOLE} examples each"
    )
    print(render(("rule", "state", *columns), table), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rules", nargs="+", choices=[rule.name for rule in RULES], help="default: all")
    parser.add_argument("--record", action="store_true", help="write it to bench/record/, too")
    a = parser.parse_args()
    rules = [rule for rule in RULES if a.rules is None or rule.name in a.rules]
    with machine.recorded("kept", a.record):
        print(machine.describe())
        for task in (Digits(), Text()):
            compare(task, rules, a.steps, a.seeds)


if __name__ == "__main__":
    main()
