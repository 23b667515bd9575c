"""`python -m bench.overhead`: what a call costs when there is little to update, and what an import costs."""

from __future__ import annotations

import argparse
import subprocess
import sys
from statistics import median
from time import perf_counter

from bench import machine
from bench.cases import Case
from bench.compare import render, run

SIZES = (10, 1000, 10_000)


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

    times = import_times(a.imports)
    rows = [(f"import {name}", f"{median(ms):.0f}", f"{min(ms):.0f}") for name, ms in times.items()]
    beyond = [both - one for both, one in zip(times["numpy, fastlr"], times["numpy"], strict=True)]
    rows.append(("fastlr beyond numpy", f"{median(beyond):.0f}", f"{min(beyond):.0f}"))
    print(f"\nimports, ms, {a.imports} interleaved rounds of fresh interpreters")
    print(render(("", "median", "min"), rows))


if __name__ == "__main__":
    main()
