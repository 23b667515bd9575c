"""Transfer: pretrain on MNIST's digits 0 to 4, fine-tune on ten pictures each of 5 to 9, pretrained layers slower.

The digits lie up to three pixels off the middle, in any direction. Fifty pictures cannot teach that; it is what the
pretrained layers know, and what one rate for all layers unlearns while the new layer learns. Each way has twelve
trials, judged by the errors on the same validation set: one rate for all layers, or a rate for the new layer and the
share of it that the others have. The test set is seen with what was chosen alone.

Without the moving (``FAR = 0``) there is little to keep: fifty pictures in the middle teach as much of the others as
0 to 4 do, and a global rate that was searched does as well as a pair.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import fastlr
from examples import main
from fastlr import plots, tune
from fastlr.demo import cases
from fastlr.demo.network import Network
from fastlr.demo.objectives import Batches

SIZES = (784, 256, 128, 5)
NEW = ("w3", "b3")
FAR = 3  # pixels
SHOTS = 10  # pictures of each digit to train on
VALIDATION = 100  # and to choose rates by
PRETRAINING, STEPS = 600, 40
TRIALS = 12
SEEDS = 12
RATES = (1e-4, 1e-1)
SHARES = (1e-3, 1.0)


def moved(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Pictures, each moved by up to FAR pixels in both directions."""
    padded = np.pad(x.reshape(-1, 28, 28), ((0, 0), (FAR, FAR), (FAR, FAR)))
    rows, columns = random.integers(0, 2 * FAR + 1, (2, len(x)))
    return sliding_window_view(padded, (28, 28), axis=(1, 2))[np.arange(len(x)), rows, columns].reshape(x.shape)


def pretrained(seed: int) -> Network:
    x, labels, _, _ = cases.mnist_data()
    x, labels = x[labels < 5], labels[labels < 5]
    network = Network(SIZES, seed)

    def objective(params: fastlr.FlatBuffer, step: int) -> tuple[float, fastlr.FlatBuffer]:
        random = np.random.default_rng((seed, step))
        rows = random.integers(0, len(x), 64)
        return network.gradients(moved(x[rows], random), labels[rows]), network.grads

    opt = fastlr.AdamW(network.params, lr=2e-3, weight_decay=0.1)
    fastlr.train(objective, network.params, opt, PRETRAINING, progress=False)
    return network


class Task:
    """Five new digits for a network, which may know five others; called as `tune.search` calls it."""

    def __init__(self, network: Network, seed: int) -> None:
        x, labels, test_x, test_labels = cases.mnist_data()
        random = np.random.default_rng(seed)
        rows = np.array([random.permutation(np.flatnonzero(labels == c))[: SHOTS + VALIDATION] for c in range(5, 10)])
        training, validation = (part.ravel() for part in np.split(rows, [SHOTS], axis=1))
        test = test_labels >= 5
        self.training = moved(x[training], random), labels[training] - 5
        self.validation = moved(x[validation], random), labels[validation] - 5
        self.test = moved(test_x[test], random), test_labels[test] - 5
        self.network, self.seed = network, seed

    def __call__(self, lr: float, share: float = 1.0) -> tuple[Any, ...]:
        """Objective, parameters, optimizer and errors; all layers but the last at `share` of the rate."""
        model = Network(SIZES, self.seed + 1000)
        for name in set(model.params) - set(NEW):
            model.params[name][:] = self.network.params[name]
        opt = fastlr.AdamW(model.params, lr=lr, groups=[{"match": "?3"}, {"match": "*", "lr_scale": share}])
        objective = Batches(model, *self.training, None)
        return objective, model.params, opt, lambda _: 1 - model.evaluate(*self.validation)[1]

    def chosen(self, **space: tuple[float, float]) -> tuple[dict[str, float], float]:
        """The best values of a search, and the accuracy with them on the test set."""
        best = tune.search(self, space, budget=TRIALS, steps=STEPS, storage=None, seed=self.seed, progress=False).best
        objective, params, opt, _ = self(**best)
        fastlr.train(objective, params, opt, STEPS, progress=False)
        return best, objective.network.evaluate(*self.test)[1]


def run(png: str) -> dict[str, Any]:
    found: dict[str, list[tuple[dict[str, float], float]]] = {"not pretrained": [], "one rate": [], "a pair": []}
    for seed in range(SEEDS):
        task = Task(pretrained(seed), seed)
        found["not pretrained"].append(Task(Network(SIZES, seed), seed).chosen(lr=RATES))
        found["one rate"].append(task.chosen(lr=RATES))
        found["a pair"].append(task.chosen(lr=RATES, share=SHARES))
    accuracy = {name: np.array([a for _, a in some]) for name, some in found.items()}
    gain = accuracy["a pair"] - accuracy["one rate"]

    figure, (ends, rates) = plots.panels(2, f"MNIST 0-4, then 5-9 from {SHOTS} pictures each")
    places, values = range(len(accuracy)), np.array(list(accuracy.values()))
    ends.plot(places, values, ".-", color=plots.SKY, linewidth=1)
    ends.plot(places, values.mean(axis=1), "o-", color=plots.RED, label=f"mean of {SEEDS} seeds")
    ends.set_xticks(places, list(accuracy))
    ends.legend(frameon=False)
    for name, colour in (("one rate", plots.BLUE), ("a pair", plots.GREEN)):
        best = [b for b, _ in found[name]]
        rates.plot([b["lr"] * b.get("share", 1) for b in best], [b["lr"] for b in best], ".", color=colour, label=name)
    rates.set_xscale("log")
    rates.set_yscale("log")
    rates.legend(frameon=False)
    plots.label(ends, f"test accuracy, {TRIALS} trials each", "")
    plots.label(rates, "what the searches chose", "rate of the pretrained layers", "of the new layer")
    plots.finish(figure, png)
    return {
        **{f"accuracy, {name}": float(a.mean()) for name, a in accuracy.items()},
        "gain of the pair": float(gain.mean()),
        "its standard error": float(gain.std(ddof=1) / len(gain) ** 0.5),
        "smallest and largest gain": f"{gain.min():.3f} {gain.max():.3f}",
        "seeds with a gain": f"{(gain > 0).sum()} of {len(gain)}",
    }


if __name__ == "__main__":
    main(run, "transfer")
