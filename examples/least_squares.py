"""Least squares on diabetes: gradient descent diverges where 2/L says, L the largest eigenvalue of the Hessian."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastlr
from examples import main
from fastlr import plots, tune
from fastlr.demo import cases

STEPS = 1000


def loss_after(lr: float, steps: int = STEPS) -> float:
    objective = cases.diabetes()
    w, opt = objective.params, fastlr.SGD(objective.params, lr=lr)
    with np.errstate(all="ignore"):
        for step in range(steps):
            opt.step(objective(w, step)[1])
        return objective(w, 0)[0]


def divergence_point(low: float, high: float) -> float:
    """The rate between `low` and `high` beyond which the loss ends above its start, by bisection to 0.01 %."""
    objective = cases.diabetes()
    start = objective(objective.params, 0)[0]
    while high / low > 1.0001:
        middle = (low * high) ** 0.5
        if loss_after(middle) < start:
            low = middle
        else:
            high = middle
    return low


def run(png: str) -> dict[str, Any]:
    objective = cases.diabetes()
    bound = tune.curvature(objective, objective.params).threshold()
    measured = divergence_point(0.5 * bound, 2 * bound)

    figure, (ax,) = plots.panels(1, "Least squares on diabetes", (6.4, 4.2))
    rates = np.geomspace(0.05 * bound, 1.1 * bound, 60)
    ax.plot(rates, np.minimum([loss_after(lr, 100) for lr in rates], 10), color=plots.BLUE, label="after 100 steps")
    ax.axvline(bound, color=plots.RED, linestyle="--", label=f"2/L = {bound:.4f}")
    ax.axvline(measured, color=plots.GREEN, linestyle=":", label=f"diverges from {measured:.4f}")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.legend(frameon=False)
    plots.label(ax, "", "learning rate", "loss")
    plots.finish(figure, png)
    return {
        "2/L": bound,
        "2/L in closed form": 2 / objective.lipschitz,
        "measured": measured,
        "ratio": measured / bound,
    }


if __name__ == "__main__":
    main(run, "least_squares")
