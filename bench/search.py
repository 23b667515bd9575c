"""python -m bench.search: Bayesian against random search for one rate in 12 trials, 20 seeds, on real objectives.

Each search is `tune.search` as a user calls it, in memory; the loss is that of its best trial. The network's weights
and batches are the same in all trials: only what is searched differs.
"""

from __future__ import annotations

import functools
import sys

import numpy as np

import fastlr
from fastlr import tune
from fastlr.demo import cases

OBJECTIVES = (
    ("diabetes", fastlr.SGD, 30),  # after 100 steps of either of these every good rate is at the solution
    ("breast cancer", fastlr.SGD, 30),
    ("digits", fastlr.SGD, 100),
    ("digits", fastlr.Adam, 100),
    ("MNIST", fastlr.Adam, 100),
)
SEEDS = 20
BUDGET = 12
SPACE = {"lr": (1e-5, 10.0)}


def factory(lr, name, rule):
    objective = cases.CASES[name](0)
    return objective, objective.params, rule(objective.params, lr=lr)


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS
    print(f"median final loss of {seeds} searches of {BUDGET} trials, lr in {SPACE['lr']}")
    print(f"{'objective':14} {'rule':5} steps {'random':>12} {'bayes':>12}   seeds in which bayes is at least as good")
    for name, rule, steps in OBJECTIVES:
        make = functools.partial(factory, name=name, rule=rule)
        found = {
            method: [
                tune.search(
                    make, SPACE, method, BUDGET, None, steps=steps, seed=seed, name="bench", progress=False
                ).loss
                for seed in range(seeds)
            ]
            for method in ("random", "bayes")
        }
        random, bayes = found["random"], found["bayes"]
        wins = sum(b <= r for b, r in zip(bayes, random, strict=True))
        print(
            f"{name:14} {rule.__name__:5} {steps:5} {np.median(random):12.8f} {np.median(bayes):12.8f}   "
            f"{wins}/{seeds}",
            flush=True,
        )


if __name__ == "__main__":
    main()
