"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fastlr.demo.network import Network
from fastlr.demo.rules import Rule, warmup_cosine

if TYPE_CHECKING:  # digits imports scikit-learn
    from fastlr.demo.digits import Digits

SIZES = (64, 256, 128, 10)
EPOCHS = 60
BATCH = 64
SEED = 1


@dataclass
class History:
    """What a run recorded: the learning rate of each step, and the losses and the accuracy of each epoch."""

    steps_an_epoch: int
    seconds: float = 0.0
    lr: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)

    @property
    def steps_per_second(self) -> float:
        return len(self.lr) / self.seconds


def train(
    rule: Rule,
    data: Digits,
    *,
    epochs: int,
    watch: Callable[[History], None] = lambda history: None,
) -> History:
    """Trains a new network; every rule starts from the same weights and sees the same batches.

    `watch` is called after each epoch. The clock stands still then, and while the network is tested.
    """
    network = Network(SIZES, SEED)
    random = np.random.default_rng(SEED)
    steps_an_epoch = (
        len(data.train_x) // BATCH
    )  # a last, smaller batch is left out: another order brings its samples back
    optimizer = rule.build(network.params, warmup_cosine(rule.lr, epochs * steps_an_epoch))
    history = History(steps_an_epoch)
    for _ in range(epochs):
        start = time.perf_counter()
        losses = []
        order = random.permutation(len(data.train_x))
        for k in range(0, steps_an_epoch * BATCH, BATCH):
            batch = order[k : k + BATCH]
            losses.append(network.gradients(data.train_x[batch], data.train_labels[batch]))
            report = optimizer.step(network.grads)
            history.lr.append(report.lr)
        history.seconds += time.perf_counter() - start

        test_loss, accuracy = network.evaluate(data.test_x, data.test_labels)
        history.train_loss.append(sum(losses) / len(losses))
        history.test_loss.append(test_loss)
        history.accuracy.append(accuracy)
        watch(history)
    return history
