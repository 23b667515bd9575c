"""python -m bench.diagnose: the confusion table of `tune.diagnose` over real runs made to fail each way.

Every run is a training on real data: networks on the digits, logistic regression on breast cancer, least squares on
diabetes; too high and too low are factors on a rate that works. The thresholds were set on seeds from 1000 on (--tune);
what is printed by default are seeds that were not looked at.
"""

from __future__ import annotations

import argparse
import functools
from collections import Counter

import numpy as np

import fastlr
from fastlr import tune
from fastlr.demo import cases
from fastlr.demo.digits import load
from fastlr.demo.network import Network
from fastlr.demo.objectives import Batches

STEPS = 400
MOMENTUM = functools.partial(fastlr.SGD, momentum=0.9)
# (objective, rule, a rate that works)
GOOD = [
    ("digits", fastlr.SGD, 0.2),
    ("digits", MOMENTUM, 0.05),
    ("digits", fastlr.AdamW, 3e-3),
    ("digits", fastlr.RMSprop, 2e-3),
    ("digits", fastlr.Adagrad, 3e-2),
    ("breast cancer", fastlr.SGD, 0.1),
    ("breast cancer", fastlr.Adam, 2e-2),
    ("diabetes", fastlr.SGD, 0.1),
    ("diabetes", MOMENTUM, 0.02),
]


def train(objective, rule, lr, steps=STEPS, validate=None):
    with np.errstate(all="ignore"):
        return fastlr.train(
            objective,
            objective.params,
            rule(objective.params, lr=lr),
            steps,
            progress=False,
            validate=validate,
            interrupted=None,
        )


def perturbed(name, seed):
    """A real objective; the convex ones start at a place drawn with the seed, within reach of the solution."""
    objective = cases.CASES[name](seed)
    if name != "digits":
        objective.params[:] = 0.1 * np.random.default_rng(seed).normal(size=objective.params.size)
    return objective


def healthy(seed):
    random = np.random.default_rng((seed, 1))
    name, rule, lr = GOOD[seed % len(GOOD)]
    objective = perturbed(name, seed)
    validate = None
    if name == "digits":
        data = load()

        def validate(params):
            return objective.network.evaluate(data.test_x, data.test_labels)[0]

    return train(objective, rule, lr * 2 ** random.uniform(-1, 0.5), int(random.integers(200, 800)), validate)


def too_high(seed):
    name, rule, lr = [g for g in GOOD if g[1] is not fastlr.Adagrad][seed % 8]  # whose rate shrinks by itself
    factor = {"digits": 60, "breast cancer": 1000, "diabetes": 80 if rule is MOMENTUM else 8}[name]
    return train(perturbed(name, seed), rule, lr * factor * 2 ** np.random.default_rng(seed).uniform(0, 2))


def too_low(seed):
    name, rule, lr = GOOD[seed % len(GOOD)]
    factor = 1e-4 if name == "digits" else 1e-3
    if rule is fastlr.Adagrad:
        factor = 1e-4
    return train(perturbed(name, seed), rule, lr * factor * 10 ** -np.random.default_rng(seed).uniform(0, 1))


def plateau(seed):
    """A network that starts at a saddle (all weights zero), or whose hidden units are dead."""
    objective = cases.digits(seed)
    if seed % 2:
        objective.params.data[:] = 0
    else:
        objective.params["b1"][:] = -6
    rule, lr = [(fastlr.SGD, 0.2), (MOMENTUM, 0.05), (fastlr.SGD, 0.05)][seed % 3]
    return train(objective, rule, lr)


def overfitting(seed):
    """A wide network on 60 digits, a fifth of them wrongly labelled."""
    random, data = np.random.default_rng(seed), load()
    rows = random.choice(len(data.train_x), 60, replace=False)
    labels = data.train_labels[rows].copy()
    wrong = random.random(60) < 0.2
    labels[wrong] = random.integers(0, 10, int(wrong.sum()))
    objective = Batches(Network((64, 256, 10), seed=seed), data.train_x[rows], labels, 20, seed)
    rule, lr = [(fastlr.AdamW, 3e-3), (MOMENTUM, 0.05)][seed % 2]
    return train(objective, rule, lr, 600, lambda p: objective.network.evaluate(data.test_x, data.test_labels)[0])


MAKERS = {
    "too high": too_high,
    "overfitting": overfitting,
    "too low": too_low,
    "plateau": plateau,
    "healthy": healthy,
}


def table(first: int, runs: int, healthy_runs: int, verbose: bool = False) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for kind, make in MAKERS.items():
        found[kind] = Counter()
        for seed in range(first, first + (healthy_runs if kind == "healthy" else runs)):
            diagnosis = tune.diagnose(make(seed))
            found[kind][diagnosis.verdict] += 1
            if verbose and diagnosis.verdict != kind:
                print(f"  {kind} {seed}: {diagnosis}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true", help="the seeds that thresholds may be set on")
    parser.add_argument("--runs", type=int, default=40, help="of each failure")
    parser.add_argument("--healthy", type=int, default=100)
    arguments = parser.parse_args()
    found = table(1000 if arguments.tune else 0, arguments.runs, arguments.healthy, arguments.tune)
    kinds = list(MAKERS)
    print(f"{'made to be':12}" + "".join(f"{kind:>13}" for kind in kinds) + "        right")
    for kind in kinds:
        total = sum(found[kind].values())
        print(f"{kind:12}" + "".join(f"{found[kind][k]:13}" for k in kinds) + f"{found[kind][kind] / total:13.0%}")
    false = sum(found["healthy"].values()) - found["healthy"]["healthy"]
    print(f"false alarms over {sum(found['healthy'].values())} healthy runs: {false}")


if __name__ == "__main__":
    main()
