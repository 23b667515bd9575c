"""Transfer: pretrain on MNIST's digits 0 to 4, fine-tune on ten pictures each of 5 to 9, pretrained layers slower.

Both runs give the new layer the same rate; in one the pretrained layers have that rate too, in the other a tenth of it.
Where the new layer's rate is high enough for it to learn quickly, one global rate destroys what was learnt before. The
picture has the whole range of rates: a global rate that was searched for on the test data itself does as well as the
best pair, so what lower rates for pretrained layers buy is that the choice matters far less.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fastlr
from examples import main
from fastlr import plots
from fastlr.demo import cases
from fastlr.demo.network import Network
from fastlr.demo.objectives import Batches

SIZES = (784, 128, 64, 5)
LAST = len(SIZES) - 1
SHOTS = 10
SEEDS = 4
STEPS = 60
RATES = (3e-3, 1e-2, 3e-2, 1e-1)
NEW = 3e-2  # of the new layer
SCALE = 0.1


def pretrained(seed: int) -> Network:
    x, labels, _, _ = cases.mnist_data()
    rows = labels < 5
    objective = Batches(Network(SIZES, seed), x[rows], labels[rows], 64, seed)
    opt = fastlr.AdamW(objective.params, lr=2e-3, weight_decay=0.1)
    fastlr.train(objective, objective.params, opt, 200, progress=False)
    return objective.network


def tuned(network: Network, seed: int, lr: float, scale: float) -> float:
    """Test accuracy on 5 to 9 after fine-tuning; the layers but the last at `scale` of the rate."""
    x, labels, test_x, test_labels = cases.mnist_data()
    random = np.random.default_rng(seed)
    rows = np.concatenate([random.choice(np.flatnonzero(labels == c), SHOTS, replace=False) for c in range(5, 10)])
    model = Network(SIZES, seed + 50)  # whose last layer is new
    for name in model.params:
        if name not in (f"w{LAST}", f"b{LAST}"):
            model.params[name][:] = network.params[name]
    objective = Batches(model, x[rows], labels[rows] - 5, None)
    groups = [{"match": f"?{LAST}"}, {"match": "*", "lr_scale": scale}]
    opt = fastlr.AdamW(model.params, lr=lr, groups=groups)
    fastlr.train(objective, model.params, opt, STEPS, progress=False)
    rows = test_labels >= 5
    return model.evaluate(test_x[rows], test_labels[rows] - 5)[1]


def run(png: str) -> dict[str, Any]:
    networks = [pretrained(seed) for seed in range(SEEDS)]
    found = {
        name: [float(np.mean([tuned(n, seed, lr, scale) for seed, n in enumerate(networks)])) for lr in RATES]
        for name, scale in (("one global rate", 1.0), ("pretrained layers at a tenth", SCALE))
    }
    figure, (ax,) = plots.panels(1, "MNIST 0-4, then 5-9 from ten pictures each", (6.4, 4.2))
    for (name, values), colour in zip(found.items(), (plots.RED, plots.BLUE), strict=True):
        ax.plot(RATES, values, ".-", color=colour, label=name)
    ax.axvline(NEW, color=plots.GREY, linestyle=":")
    ax.set_xscale("log")
    ax.legend(frameon=False)
    plots.label(ax, f"test accuracy, mean of {SEEDS} seeds", "learning rate of the new layer")
    plots.finish(figure, png)
    at = RATES.index(NEW)
    return {
        **{f"accuracy at {NEW}, {name}": values[at] for name, values in found.items()},
        **{f"best of all rates, {name}": max(values) for name, values in found.items()},
    }


if __name__ == "__main__":
    main(run, "transfer")
