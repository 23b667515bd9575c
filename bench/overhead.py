"""`python -m bench.overhead`: what a call costs when there is little to update, and what an import costs."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

import fastlr
from bench import clock, machine
from bench.cases import Case
from bench.compare import render, run
from fastlr.buffers import as_array
from fastlr.precision import to_bfloat16, to_float32

SIZES = (10, 1000, 10_000)
TENSORS, EACH = 400, 16
LR, DECAY = 0.1, 0.01


def seconds(code: str) -> float:
    """Wall time of a fresh interpreter that runs `code`."""
    start = perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return perf_counter() - start


def import_times(rounds: int) -> dict[str, list[float]]:
    """Milliseconds, in interleaved rounds. The first round, which reads files from disk, is not kept."""
    codes = {"nothing": "pass", "numpy": "import numpy", "numpy, fastlr": "import numpy, fastlr"}
    times: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(rounds + 1):
        for name, code in codes.items():
            times[name].append(1e3 * seconds(code))
    return {name: kept[1:] for name, kept in times.items()}


def kinds() -> dict[str, Callable[[], Any]]:
    """What makes a tensor of ones, for each kind of them that is installed."""
    ones = np.ones(EACH, np.float32)
    found: dict[str, Callable[[], Any]] = {
        "float32": ones.copy,
        "float16": lambda: ones.astype(np.float16),
        "uint16": lambda: to_bfloat16(ones),
    }
    if importlib.util.find_spec("ml_dtypes"):
        import ml_dtypes

        found["ml_dtypes.bfloat16"] = lambda: ones.astype(ml_dtypes.bfloat16)
    if importlib.util.find_spec("torch"):
        import torch

        found["torch.float32"] = lambda: torch.ones(EACH)
        found["torch.bfloat16"] = lambda: torch.ones(EACH, dtype=torch.bfloat16)
    return found


def check(name: str, params: Sequence[Any]) -> None:
    """After one step, by which ones go to 1 − LR (1 + DECAY)."""
    allowed = 2**-9 if name.startswith(("uint16", "ml_dtypes", "torch.bfloat16")) else 1e-6
    off = max(np.abs(to_float32(as_array(name, x)) - (1 - LR * (1 + DECAY))).max() for x in params)
    if not off <= allowed:
        raise ValueError(f"{name} DISAGREES: off by {off:.3g}, {allowed:.3g} is allowed")


def many(threads: int) -> dict[str, Callable[[], object]]:
    """A step of many tensors that are next to nothing, by what parameters and gradients are."""
    fastlr.set_num_threads(threads)
    made = kinds()
    grads = {kind: [make() for _ in range(TENSORS)] for kind, make in made.items()}
    params, steps = {}, {}
    for param, grad in [*(("float32", kind) for kind in made), *((kind, kind) for kind in list(made)[2:])]:
        name = f"{param}, gradients {grad}"
        params[name] = [made[param]() for _ in range(TENSORS)]
        opt = fastlr.AdamW(params[name], lr=LR, weight_decay=DECAY, dtype="bfloat16")
        steps[name] = functools.partial(opt.step, grads[grad])
    if "torch.float32" in made:
        import torch

        import fastlr.torch as adapter

        torch.set_num_threads(threads)
        for name, make in [
            ("fastlr.torch", adapter.AdamW),
            ("torch fused", functools.partial(torch.optim.AdamW, fused=True)),
        ]:
            params[name] = [torch.nn.Parameter(made["torch.float32"]()) for _ in range(TENSORS)]
            for p, g in zip(params[name], grads["torch.float32"], strict=True):
                p.grad = g
            steps[name] = make(params[name], lr=LR, weight_decay=DECAY).step
    for name, step in steps.items():
        step()
        check(name, params[name])
    return steps


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--threads", type=int, default=2, help="of every engine")
    p.add_argument("--rounds", type=int, default=51, help="of the steps")
    p.add_argument("--imports", type=int, default=21, help="rounds of the imports")
    a = p.parse_args()
    print(machine.describe())

    results, missing = run([Case("adamw", size, "float32", a.threads) for size in SIZES], rounds=a.rounds)
    names = sorted({name for r in results for name in r.times}, key=lambda n: results[1].times[n].median)
    table = [(name, *(f"{r.times[name].median / 1e3:.2f}" for r in results)) for name in names]
    print(f"\nopt.step(g) of adamw, float32, {a.threads} threads: median us of {a.rounds} rounds")
    print(render(("engine", *(f"{size:,}" for size in SIZES)), table))
    excuses = {name: why for r in results for name, why in r.excuses.items()}
    for name, why in {**missing, **excuses}.items():
        print(f"{name}: {why}")

    per = {
        name: [ns / 1e3 / TENSORS for ns in t.samples]
        for name, t in clock.interleave(many(a.threads), a.rounds).items()
    }
    print(f"\nstep of AdamW, {TENSORS} tensors of {EACH} elements, {a.threads} threads: us a tensor, {a.rounds} rounds")
    print(render(("", "median", "min"), [(name, f"{median(us):.2f}", f"{min(us):.2f}") for name, us in per.items()]))

    times = import_times(a.imports)
    rows = [(f"import {name}", f"{median(ms):.0f}", f"{min(ms):.0f}") for name, ms in times.items()]
    beyond = [both - one for both, one in zip(times["numpy, fastlr"], times["numpy"], strict=True)]
    rows.append(("fastlr beyond numpy", f"{median(beyond):.0f}", f"{min(beyond):.0f}"))
    print(f"\nimports, ms, {a.imports} interleaved rounds of fresh interpreters")
    print(render(("", "median", "min"), rows))


if __name__ == "__main__":
    main()
