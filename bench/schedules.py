"""`python -m bench.schedules`: what a schedule costs, beside what else there is; compared before it is timed.

Interleaved rounds on one thread. Arrays are of 1e6 steps, results included in the time.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import fastlr
from bench import machine
from bench.clock import Times, interleave
from bench.compare import render
from fastlr import schedules as S

N = 1_000_000
PARAMETERS = 10_000
Steps = dict[str, Callable[[], object]]


def checked(steps: Steps, expected: Any, rel: float = 1e-5) -> Steps:
    """Those whose values agree; float32 is what sets the tolerance."""
    for name, step in steps.items():
        off = float(np.max(np.abs(np.asarray(step(), float) - expected))) / float(np.max(np.abs(expected)))
        if not off <= rel:
            raise SystemExit(f"{name} DISAGREES: off by {off:.3g}")
    return steps


def cosines() -> Steps:
    s, n = S.cosine(1e-3, 1e-5, N), np.arange(N)
    out = np.empty(N)
    steps: Steps = {
        "fastlr": lambda: s(n),
        "fastlr, out=": lambda: s(n, out=out),
        "numpy": lambda: 1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + np.cos(np.pi * n / N)),
    }
    try:
        import math

        import numba

        @numba.vectorize(["float64(int64)"])
        def cosine(k: int) -> float:
            return 1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + math.cos(math.pi * k / N))

        steps["numba ufunc"] = lambda: cosine(n)
    except ImportError:
        pass
    try:
        import jax
        import optax

        compiled = jax.jit(jax.vmap(optax.cosine_decay_schedule(1e-3, N, 0.01)))
        counts = jax.numpy.arange(N)
        steps["optax, jit, float32"] = lambda: compiled(counts).block_until_ready()
    except ImportError:
        pass
    return checked(steps, s(n))


def stages() -> Steps:
    s, n = S.wsd(1.0, 100_000, 700_000, 200_000, shape="linear"), np.arange(N)
    pieces = [n < 100_000, (n >= 100_000) & (n < 800_000), n >= 800_000]
    parts = [lambda k: (k + 1) / 100_001, lambda k: 1.0, lambda k: 1 - (k - 800_000) / 200_000]
    steps: Steps = {"fastlr": lambda: s(n), "np.piecewise": lambda: np.piecewise(n.astype(float), pieces, parts)}
    return checked(steps, s(n))


def restarts() -> Steps:
    many, few, one = S.warm_restarts(1.0, 0.0, N // 1000), S.warm_restarts(1.0, 0.0, N // 10), S.cosine(1.0, 0.0, N)
    n = np.arange(N)
    return {"1,000 restarts": lambda: many(n), "10 restarts": lambda: few(n), "one cosine": lambda: one(n)}


def scalars() -> Steps:
    cosine = S.cosine(1e-3, 0.0, 10_000)
    warm, wsd, cycles = cosine.warmup(500), S.wsd(1.0, 100, 800, 100), S.warm_restarts(1.0, 0.0, 50)
    steps: Steps = {
        "fastlr cosine": lambda: cosine(777),
        "fastlr cosine, warmed up": lambda: warm(777),
        "fastlr wsd": lambda: wsd(777),
        "fastlr warm restarts": lambda: cycles(777),
        "nothing (the call of the lambda)": lambda: None,
    }
    try:
        import torch

        warnings.simplefilter("ignore")
        opt = torch.optim.SGD([torch.zeros(1)], lr=1e-3)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 1_000_000)
        steps["torch CosineAnnealingLR.step()"] = scheduler.step
    except ImportError:
        pass
    try:
        import optax

        eager = optax.cosine_decay_schedule(1e-3, 10_000)
        steps["optax, eager"] = lambda: eager(777)
    except ImportError:
        pass
    return steps


def optimizers() -> Steps:
    """AdamW on 10 k parameters; both have made the same number of steps."""
    g = np.ones(PARAMETERS, np.float32)

    def one(**hyper: Any) -> Callable[[], object]:
        opt = fastlr.AdamW(np.ones(PARAMETERS, np.float32), **hyper)
        return lambda: opt.step(g)

    lr, decay = S.cosine(1e-3, 1e-5, 10_000_000).warmup(500), S.linear(0.1, 0.0, 10_000_000)
    return {
        "constants": one(lr=1e-3, weight_decay=0.1),
        "scheduled lr and weight decay": one(lr=lr, weight_decay=decay),
    }


def report(title: str, times: dict[str, Times], per: float, unit: str, base: str) -> None:
    rows = [
        (name, f"{t.median / per:.3g}", f"{t.min / per:.3g}", f"{t.over(times[base]):.2f}") for name, t in times.items()
    ]
    print(f"\n{title}")
    print(render(("", f"median, {unit}", "min", f"x {base}"), rows))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.add_argument("--rounds", type=int, default=15)
    a = p.parse_args()
    fastlr.set_num_threads(1)
    print(machine.describe())
    report("1e6 values of a cosine", interleave(cosines(), a.rounds), N, "ns a value", "fastlr")
    report("1e6 values of warmup-stable-decay", interleave(stages(), a.rounds), N, "ns a value", "fastlr")
    report("1e6 values with and without restarts", interleave(restarts(), a.rounds), N, "ns a value", "one cosine")
    report("one value", interleave(scalars(), 4 * a.rounds), 1, "ns", "fastlr cosine")
    times = interleave(optimizers(), 6 * a.rounds)
    report(f"AdamW.step, {PARAMETERS:,} parameters", times, 1e3, "us", "constants")
    constant, scheduled = times["constants"], times["scheduled lr and weight decay"]
    extra = np.median([s - c for s, c in zip(scheduled.samples, constant.samples, strict=True)])
    print(f"schedules cost {extra / 1e3:.3f} us a step (median of the differences by round)")


if __name__ == "__main__":
    main()
