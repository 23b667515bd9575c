"""What the demo compares: the six rules, each with a learning rate at which it does well, and the schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import fastlr
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


def warmup_cosine(peak: float, steps: int, *, warmup: float = 0.05, floor: float = 0.01) -> Callable[[int], float]:
    """The learning rate as a function of the 0-based step: up in a line, then down half a cosine.

    Parameters
    ----------
    peak : float
        The highest rate.
    steps : int
        Length of the whole schedule.
    warmup : float, default 0.05
        Share of the steps on the way up.
    floor : float, default 0.01
        The last rate, as a share of `peak`.
    """
    rising = max(1, round(warmup * steps))
    falling = max(1, steps - rising)

    def lr(step: int) -> float:
        if step < rising:
            return peak * (step + 1) / rising
        done = min(1.0, (step + 1 - rising) / falling)
        return peak * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)

    return lr
