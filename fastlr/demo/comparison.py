"""Strategies for the learning rate on the digits, side by side: fixed, decaying, cyclical, adaptive, free of a rate."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fastlr
from fastlr import schedules as S
from fastlr.demo import cases
from fastlr.demo.digits import load
from fastlr.demo.objectives import Batches
from fastlr.demo.rules import warmup_cosine
from fastlr.training.callbacks import Plateau

EPOCHS = 20


@dataclass(frozen=True)
class Strategy:
    """`build(params, steps)` makes the optimizer; `tuned` is how many of its numbers were chosen for this data."""

    kind: str
    build: Callable[[Any, int], Any]
    tuned: int
    callbacks: Callable[[], list[Any]] = list


@dataclass(frozen=True)
class Result:
    name: str
    kind: str
    tuned: int
    accuracy: float
    loss: float
    history: fastlr.History


def warmup_linear(peak: float, steps: int) -> S.Schedule:
    """Up in a line for a tenth of the steps, then down in a line to 0: what rules that find their rate are given."""
    warmup = max(1, steps // 10)
    return S.linear(peak, 0.0, max(1, steps - warmup)).warmup(warmup)


def plateau() -> Plateau:
    return Plateau(factor=0.5, patience=1, threshold=1e-3, threshold_mode="abs")


STRATEGIES: dict[str, Strategy] = {
    "SGD, fixed": Strategy("fixed", lambda p, n: fastlr.SGD(p, lr=0.2), 1),
    "SGD, 1/t": Strategy("decay", lambda p, n: fastlr.SGD(p, lr=S.inverse_time(0.3, 9 / n)), 1),
    "SGD, exponential": Strategy("decay", lambda p, n: fastlr.SGD(p, lr=S.exponential(0.5, 0.01, n)), 1),
    "SGD, warm-up and cosine": Strategy("decay", lambda p, n: fastlr.SGD(p, lr=warmup_cosine(0.5, n)), 1),
    "SGD, triangular": Strategy("cyclical", lambda p, n: fastlr.SGD(p, lr=S.cyclical(0.02, 0.6, n // 10)), 2),
    "SGD, plateau": Strategy("adaptive", lambda p, n: fastlr.SGD(p, lr=0.3), 1, lambda: [plateau()]),
    "Adagrad": Strategy("adaptive", lambda p, n: fastlr.Adagrad(p, lr=0.03), 1),
    "RMSprop": Strategy("adaptive", lambda p, n: fastlr.RMSprop(p, lr=2e-3), 1),
    "Adam": Strategy("adaptive", lambda p, n: fastlr.Adam(p, lr=3e-3), 1),
    "AdamW, cosine": Strategy("adaptive", lambda p, n: fastlr.AdamW(p, lr=warmup_cosine(5e-3, n)), 1),
    "Prodigy": Strategy("LR-free", lambda p, n: fastlr.Prodigy(p, lr=warmup_linear(1.0, n)), 0),
    "D-Adapt Adam": Strategy("LR-free", lambda p, n: fastlr.DAdaptAdam(p, lr=warmup_linear(1.0, n)), 0),
}


def train(name: str, strategy: Strategy, seed: int = 0, epochs: int = EPOCHS, validate: bool = True) -> Result:
    """Trains a new network; all strategies see the same batches."""
    data, objective = load(), cases.digits(seed)
    steps = epochs * objective.steps_an_epoch
    history = fastlr.train(
        objective,
        objective.params,
        strategy.build(objective.params, steps),
        steps,
        strategy.callbacks(),
        progress=False,
        # A sixth of the training data, which is trained on all the same: the test data decides nothing here.
        validate=functools.partial(_loss, objective) if validate else None,
        validate_every=objective.steps_an_epoch,
    )
    loss, accuracy = objective.network.evaluate(data.test_x, data.test_labels)
    return Result(name, strategy.kind, strategy.tuned, accuracy, loss, history)


def _loss(objective: Batches, params: Any) -> float:
    n = len(objective.x) // 6
    return objective.network.evaluate(objective.x[:n], objective.labels[:n])[0]


def compare(epochs: int = EPOCHS) -> list[Result]:
    return [train(name, strategy, epochs=epochs) for name, strategy in STRATEGIES.items()]


def table(results: list[Result]) -> str:
    """The results as text."""
    lines = [f"{'strategy':24} {'kind':9} {'rates tuned':>11} {'test accuracy':>13} {'test loss':>9} {'last rate':>9}"]
    for r in results:
        rate = r.history.lr[-1] if r.history.lr and math.isfinite(r.history.lr[-1]) else math.nan
        lines.append(f"{r.name:24} {r.kind:9} {r.tuned:11} {r.accuracy:13.1%} {r.loss:9.4f} {rate:9.2g}")
    return "\n".join(lines)
