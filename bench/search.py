"""python -m bench.search: Bayesian against random search for one rate in 12 trials, 20 seeds, on real objectives.

Each search is `tune.search` as a user calls it, in memory; the loss is that of its best trial. The network's weights
and batches are the same in all trials: only what is searched differs. For comparison Optuna's default, TPE, of the same
trials: it draws its first ten at random, which leaves it two of twelve.
"""

from __future__ import annotations

import functools
import sys

import numpy as np

import fastlr
from fastlr import tune
from fastlr.demo import cases
from fastlr.extras import need
from fastlr.tune.trial import evaluate

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


def tpe(make, steps: int, seed: int) -> float:
    optuna = need("optuna", "tune", "the benchmark")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    low, high = SPACE["lr"]
    study.optimize(
        lambda trial: evaluate(make, {"lr": trial.suggest_float("lr", low, high, log=True)}, steps).loss, BUDGET
    )
    return float(study.best_value)


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS
    print(f"median final loss of {seeds} searches of {BUDGET} trials, lr in {SPACE['lr']}")
    print(
        f"{'objective':14} {'rule':5} steps {'random':>12} {'TPE':>12} {'bayes':>12}   bayes at least as good as random"
    )
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
        random, bayes, theirs = found["random"], found["bayes"], [tpe(make, steps, seed) for seed in range(seeds)]
        wins = sum(b <= r for b, r in zip(bayes, random, strict=True))
        print(
            f"{name:14} {rule.__name__:5} {steps:5} {np.median(random):12.8f} {np.median(theirs):12.8f} "
            f"{np.median(bayes):12.8f}   {wins}/{seeds}",
            flush=True,
        )


if __name__ == "__main__":
    main()
