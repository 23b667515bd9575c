"""Logistic regression on breast cancer: where gradient descent starts to oscillate for good, and what predicts it.

Near the optimum the bound is 2/λ for λ the largest eigenvalue of the Hessian there. The closed form σ²/4n + decay
bounds λ from above everywhere, so its rate is always safe, and here far too careful.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fastlr
from examples import main
from fastlr import plots, tune
from fastlr.demo import cases

STEPS = 4000


def solve() -> np.ndarray:
    """The optimum, by Newton's method."""
    objective = cases.breast_cancer()
    w = objective.params
    fastlr.train(objective, w, fastlr.Newton(w, objective, objective.hvp), 15, progress=False)
    return w.copy()


def gradients(lr: float, near: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """‖g‖ over the steps of gradient descent that starts a little off `near`."""
    objective = cases.breast_cancer()
    w = objective.params
    w[:] = near + 1e-3
    opt, norms = fastlr.SGD(w, lr=lr), []
    for step in range(steps):
        g = objective(w, step)[1]
        norms.append(float(np.linalg.norm(g)))
        opt.step(g)
    return np.array(norms)


def onset(near: np.ndarray, low: float, high: float) -> float:
    """The rate beyond which the gradient no longer vanishes, by bisection to 0.1 %."""
    while high / low > 1.001:
        middle = (low * high) ** 0.5
        norms = gradients(middle, near)
        if norms[-1] < 0.1 * norms[0]:
            low = middle
        else:
            high = middle
    return low


def run(png: str) -> dict[str, Any]:
    objective = cases.breast_cancer()
    w = solve()
    bound = tune.curvature(objective, w, objective.hvp).threshold()
    closed = 2 / objective.lipschitz
    measured = onset(w, 0.5 * bound, 2 * bound)

    figure, (curves, ends) = plots.panels(2, "Logistic regression on breast cancer")
    for factor, colour in ((0.5, plots.BLUE), (0.98, plots.GREEN), (1.02, plots.RED)):
        curves.plot(gradients(factor * bound, w, 600), color=colour, label=f"{factor} · 2/λ", linewidth=1)
    curves.set_yscale("log")
    curves.legend(frameon=False)
    rates = np.geomspace(closed / 2, 1.3 * bound, 40)
    ends.plot(rates, [gradients(lr, w, 600)[-1] for lr in rates], color=plots.BLUE)
    ends.axvline(bound, color=plots.RED, linestyle="--", label=f"2/λ at the optimum, {bound:.3f}")
    ends.axvline(measured, color=plots.GREEN, linestyle=":", label=f"oscillates from {measured:.3f}")
    ends.axvline(closed, color=plots.GREY, linestyle="--", label=f"closed form, {closed:.3f}")
    ends.set_xscale("log")
    ends.set_yscale("log")
    ends.legend(frameon=False, fontsize=8)
    plots.label(curves, "gradient norm", "step")
    plots.label(ends, "gradient norm after 600 steps", "learning rate")
    plots.finish(figure, png)
    return {"2/lambda at the optimum": bound, "closed form": closed, "measured": measured, "ratio": measured / bound}


if __name__ == "__main__":
    main(run, "logistic")
