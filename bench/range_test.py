"""python -m bench.range_test: how far the suggestion of a range test moves from 100 steps to 1,000.

The objectives are the real ones of the examples; for comparison the rules of fastai on the same curves, and the
steepest point of the loss smoothed without debiasing, by index (pytorch-lr-finder). Then whether the suggestion is any
good: the loss after 300 steps with it, against that with the best rate of a grid, as a share of what that descends.
"""

from __future__ import annotations

import functools
import math

import numpy as np

import fastlr
from fastlr import tune
from fastlr.demo import cases

RULES = {
    "SGD": fastlr.SGD,
    "momentum": functools.partial(fastlr.SGD, momentum=0.9),
    "Nesterov": functools.partial(fastlr.SGD, momentum=0.9, nesterov=True),
    "Adam": fastlr.Adam,
}
SEEDS = 3
STEPS = 300


def steepest(lrs: np.ndarray, losses: np.ndarray) -> float:
    """pytorch-lr-finder: a running average that starts at the first loss, its gradient by index, skip 10 and 5."""
    average = [losses[0]]
    for loss in losses[1:]:
        average.append(0.05 * loss + 0.95 * average[-1])
    return float(lrs[10:-5][np.argmin(np.gradient(np.array(average)[10:-5]))])


def moved(short: float, long: float) -> float:
    return math.exp(abs(math.log(short / long)))


def final(make, rule, lr: float) -> float:
    objective = make(99)
    with np.errstate(all="ignore"):
        history = fastlr.train(
            objective, objective.params, rule(objective.params, lr=lr), STEPS, progress=False, interrupted=None
        )
    return float(np.mean(history.loss[-30:])) if not history.stopped else math.inf


def main() -> None:
    factors: dict[str, list[float]] = {}
    print(f"{'objective':14} {'rule':9} seed      100     1000   moved   excess   confidence")
    for name, make in cases.CASES.items():
        for rule_name, rule in RULES.items():
            grid = [final(make, rule, lr) for lr in np.geomspace(1e-4, 10, 21)]
            start = make(99)(make(99).params, 0)[0]
            for seed in range(SEEDS if name in ("digits", "MNIST") else 1):
                found = [
                    tune.range_test(o := make(seed), o.params, rule, steps=steps, progress=False)
                    for steps in (100, 1000)
                ]
                own = moved(*(f.suggestion for f in found))
                factors.setdefault("fastlr", []).append(own)
                for other in ("valley", "slide", "minimum", "steep"):
                    factors.setdefault(f"fastai {other}", []).append(moved(*(f.alternatives[other] for f in found)))
                theirs = moved(*(steepest(f.lrs[0], f.losses[0]) for f in found))
                factors.setdefault("pytorch-lr-finder", []).append(theirs)
                excess = (final(make, rule, found[0].suggestion) - min(grid)) / (start - min(grid))
                print(
                    f"{name:14} {rule_name:9} {seed:4} {found[0].suggestion:8.3g} {found[1].suggestion:8.3g} "
                    f"{own:6.2f}x  {excess:6.1%}   {found[0].confidence:.2f} {found[1].confidence:.2f} "
                    f"{'; '.join(found[0].flags)}"
                )
    print()
    for method, values in factors.items():
        print(f"{method:18} moved by {np.median(values):5.2f}x (median), {max(values):6.2f}x (largest)")


if __name__ == "__main__":
    main()
