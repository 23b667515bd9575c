"""Gradient descent on L = w² from w = 5, with a good, a small and a large rate, and the line 2/L between them."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastlr
from examples import main
from fastlr import plots, tune

RATES = {"good": 0.3, "small": 0.02, "large": 1.05}
STEPS = 15


def objective(w, step):
    return float(w[0] ** 2), 2 * w


def path(lr: float) -> list[float]:
    """Each w: before the first step, and after each."""
    w = np.array([5.0])
    seen = [5.0]
    opt = fastlr.SGD(w, lr=lr)
    for step in range(STEPS):
        opt.step(objective(w, step)[1])
        seen.append(float(w[0]))
    return seen


def run(png: str) -> dict[str, Any]:
    bound = tune.curvature(objective, np.array([5.0])).threshold()
    paths = {name: path(lr) for name, lr in RATES.items()}

    figure, (valley, curves, ends) = plots.panels(3, "Gradient descent on L = w² from w = 5")
    w = np.linspace(-11, 11, 200)
    valley.plot(w, w**2, color="#bbbbbb")
    for (name, seen), colour in zip(paths.items(), plots.COLOURS, strict=False):
        label = f"{name}: η = {RATES[name]}"
        valley.plot(seen, np.square(seen), ".-", color=colour, linewidth=1, label=label)
        curves.plot(np.square(seen), ".-", color=colour, label=label)
    curves.set_yscale("log")
    curves.legend(frameon=False, fontsize=9)
    rates = np.linspace(0.01, 1.2, 120)
    ends.plot(rates, [path(lr)[-1] ** 2 for lr in rates], color=plots.BLUE)
    ends.axvline(bound, color=plots.RED, linestyle="--", label=f"2/L = {bound:.3g}")
    ends.set_yscale("log")
    ends.legend(frameon=False)
    plots.label(valley, "the paths", "w", "L")
    plots.label(curves, "loss over the steps", "step")
    plots.label(ends, f"loss after {STEPS} steps", "learning rate η")
    plots.finish(figure, png)
    return {"bound 2/L": bound, **{f"w after {STEPS} steps, {name}": seen[-1] for name, seen in paths.items()}}


if __name__ == "__main__":
    main(run, "descent")
