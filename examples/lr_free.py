"""Rules that find their rate themselves, with no number tuned, against Adam whose rate was searched, on the digits.

Adam's rate is the best of twelve Bayesian trials by the loss on a validation set taken from the training data; the
test set decides nothing. Prodigy, D-Adaptation and Mechanic see the same batches and have the same schedule, of
relative rates: a tenth of warm-up, then down to zero. Their authors ask for it: without warm-up the first estimates of
D-Adaptation are too large, and some seeds never recover. DoG and L-DoG have none; the average of their steps is what is
evaluated. AdGD and Polyak's rule need the whole data at each step. Mechanic, DoWG and Polyak's rule are there for the
record: they end about a point below Adam.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import fastlr
from examples import main
from fastlr import plots, tune
from fastlr.demo.comparison import warmup_linear
from fastlr.demo.digits import load
from fastlr.demo.network import Network
from fastlr.demo.objectives import Batches

STEPS = 600
SEEDS = 8
WINDOW = 30  # of the losses in the picture
SHAPE = warmup_linear(1.0, STEPS)
FREE: dict[str, tuple[Callable[[Any], Any], int | None]] = {
    "Prodigy": (lambda p: fastlr.Prodigy(p, lr=SHAPE), 64),
    "D-Adapt Adam": (lambda p: fastlr.DAdaptAdam(p, lr=SHAPE), 64),
    "D-Adapt SGD": (lambda p: fastlr.DAdaptSGD(p, lr=SHAPE), 64),
    "DoG": (lambda p: fastlr.DoG(p, averaging=8), 64),
    "L-DoG": (lambda p: fastlr.LDoG(p, averaging=8), 64),
    "Mechanic SGD": (lambda p: fastlr.mechanize(fastlr.SGD)(p, lr=SHAPE), 64),
    "Mechanic Adam": (lambda p: fastlr.mechanize(fastlr.Adam)(p, lr=SHAPE), 64),
    "DoWG": (lambda p: fastlr.DoWG(p, lr=SHAPE), 64),
    "AdGD": (lambda p: fastlr.AdGD(p), None),
    "Polyak": (lambda p: fastlr.Polyak(p), None),
}


def problem(seed: int, held_out: int = 0, batch: int | None = 64) -> Batches:
    data = load()
    network = Network((64, 64, 10), seed)
    return Batches(network, data.train_x[held_out:], data.train_labels[held_out:], batch, seed)


def candidate(lr: float):
    data, objective = load(), problem(100, held_out=300)
    opt = fastlr.Adam(objective.params, lr=lr * SHAPE)
    held = data.train_x[:300], data.train_labels[:300]
    return objective, objective.params, opt, lambda p: objective.network.evaluate(*held)[0]


def trained(build, batch: int | None, seed: int) -> tuple[float, fastlr.History]:
    data, objective = load(), problem(seed, batch=batch)
    opt = build(objective.params)
    history = fastlr.train(objective, objective.params, opt, STEPS, progress=False)
    if isinstance(opt, fastlr.DoG):
        objective.params.data[:] = opt.eval_params().data
    return objective.network.evaluate(data.test_x, data.test_labels)[1], history


def run(png: str) -> dict[str, Any]:
    best = tune.search(candidate, {"lr": (1e-5, 1.0)}, budget=12, steps=STEPS, storage=None, progress=False).best["lr"]
    builders = {f"Adam, searched {best:.2g}": (lambda p: fastlr.Adam(p, lr=best * SHAPE), 64), **FREE}
    runs = {name: [trained(build, batch, seed) for seed in range(SEEDS)] for name, (build, batch) in builders.items()}

    figure, (ax,) = plots.panels(1, "Digits: a searched rate against none", (7.6, 5.0))
    styles = itertools.product(("-", ":"), plots.COLOURS)
    for (name, some), (style, colour) in zip(runs.items(), styles, strict=False):
        accuracy = np.mean([a for a, _ in some])
        loss = np.convolve(some[0][1].loss, np.ones(WINDOW) / WINDOW, "valid")
        ax.plot(loss, style, color=colour, linewidth=1.2, label=f"{name}: {accuracy:.1%}")
    ax.set_yscale("log")
    ax.legend(frameon=False, fontsize=8)
    plots.label(ax, f"training loss, mean of {WINDOW} steps; test accuracy, mean of {SEEDS} seeds", "step")
    plots.finish(figure, png)
    return {f"test accuracy, {name}": float(np.mean([a for a, _ in some])) for name, some in runs.items()}


if __name__ == "__main__":
    main(run, "lr_free")
