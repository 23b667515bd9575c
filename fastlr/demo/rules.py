"""What the demo compares: the six rules, each with a learning rate at which it does well, and the schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import fastlr
from fastlr import schedules as S
from fastlr.buffers import Array
from fastlr.demo import plain


@dataclass(frozen=True)
class Rule:
    """One row of the demo.

    Parameters
    ----------
    optimizer : class
        fastlr's.
    step : callable
        The same update in plain NumPy.
    lr : float
        The highest learning rate of the schedule.
    hyper : dict
        Hyper-parameters other than their defaults, for both.
    """

    optimizer: Callable[..., fastlr.Optimizer]
    step: Callable[..., None]
    lr: float
    hyper: Mapping[str, Any] = field(default_factory=dict)

    def build(self, params: fastlr.FlatBuffer, lr: float | Callable[[int], float]) -> fastlr.Optimizer:
        return self.optimizer(params, lr=lr, **self.hyper)

    def build_plain(self, p: Array, lr: float) -> Callable[[Array], None]:
        """The plain NumPy step as a function of the gradients, with its state and its count of steps inside."""
        state: plain.State = {}
        t = 0

        def step(g: Array) -> None:
            nonlocal t
            t += 1
            self.step(p, g, state, t, lr, **self.hyper)

        return step


RULES = {
    "SGD": Rule(fastlr.SGD, plain.sgd, 0.05, {"momentum": 0.9, "nesterov": True}),
    "Adagrad": Rule(fastlr.Adagrad, plain.adagrad, 0.02),
    "RMSprop": Rule(fastlr.RMSprop, plain.rmsprop, 1e-3),
    "Adam": Rule(fastlr.Adam, plain.adam, 2e-3),
    "AdamW": Rule(fastlr.AdamW, plain.adamw, 2e-3, {"weight_decay": 0.1}),
    "AMSGrad": Rule(fastlr.AMSGrad, plain.amsgrad, 2e-3),
}


def warmup_cosine(peak: float, steps: int) -> S.Schedule:
    """Up in a line for a twentieth of the steps, then down half a cosine to a hundredth of the peak at the last."""
    warmup = max(1, round(0.05 * steps))
    return S.cosine(peak, 0.01 * peak, max(2, steps - warmup), endpoint="inclusive").warmup(warmup)
