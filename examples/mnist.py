"""A network on 4,000 pictures of MNIST: range test, training with a schedule, diagnosis."""

from __future__ import annotations

from typing import Any

import fastlr
from examples import main
from fastlr import plots, tune
from fastlr.demo import cases
from fastlr.demo.rules import warmup_cosine

EPOCHS = 8


def run(png: str) -> dict[str, Any]:
    objective = cases.mnist(hidden=128)
    _, _, x, labels = cases.mnist_data()
    found = tune.range_test(objective, objective.params, fastlr.AdamW, progress=False)
    steps = EPOCHS * objective.steps_an_epoch
    opt = fastlr.AdamW(objective.params, lr=warmup_cosine(found.suggestion, steps), weight_decay=0.05)
    history = fastlr.train(
        objective, objective.params, opt, steps, validate=lambda p: objective.network.evaluate(x, labels)[0]
    )
    accuracy = objective.network.evaluate(x, labels)[1]

    figure, (loss, rate) = plots.panels(2, f"MNIST, 784-128-10, test accuracy {accuracy:.1%}")
    loss.plot(history.loss, color=plots.SKY, linewidth=0.8, label="training batches")
    where, values = zip(*history.validation, strict=True)
    loss.plot(where, values, color=plots.RED, marker=".", label="test")
    loss.set_yscale("log")
    loss.legend(frameon=False)
    rate.plot(history.lr, color=plots.GREEN)
    plots.label(loss, "loss", "step")
    plots.label(rate, f"learning rate, peak suggested: {found.suggestion:.2g}", "step")
    plots.finish(figure, png)
    return {
        "suggested rate": found.suggestion,
        "test accuracy": accuracy,
        "diagnosis": tune.diagnose(history).verdict,
    }


if __name__ == "__main__":
    main(run, "mnist")
