"""fastlr's rules as optimizers of thinc, and so of spaCy, for arrays on the CPU.

Importing this registers them: ``@optimizers = "fastlr.AdamW.v1"`` in a config, with the hyper-parameters of the class.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from fastlr import functional
from fastlr.extras import need
from fastlr.optimizer import Optimizer
from fastlr.plain import is_plain, plain

__all__ = ["ThincOptimizer"]

thinc = need("thinc.api", "thinc", "fastlr.thinc")


class ThincOptimizer:
    """A rule of fastlr's, called by thinc's layers with each of their parameters.

    Parameters
    ----------
    rule : type
        `fastlr.AdamW`, say. Rules that carry numbers for the whole model, or need a Hessian, are refused.
    **hyper
        Its hyper-parameters; each that is a number may be a schedule of fastlr's, and `lr` any function of the step.

    Examples
    --------
    >>> import fastlr, fastlr.thinc, numpy as np
    >>> optimizer = fastlr.thinc.ThincOptimizer(fastlr.Adam, lr=0.1)
    >>> weights, gradient = optimizer((0, "W"), np.ones(3, np.float32), np.float32([1, -2, 0]))
    >>> weights.round(3), gradient
    (array([0.9, 1.1, 1. ], dtype=float32), array([0., 0., 0.], dtype=float32))
    """

    def __init__(self, rule: type[Optimizer], **hyper: Any) -> None:
        self._update, self._hyper, self._first, *_ = plain(rule, hyper)
        self.rule, self._lr = rule, self._hyper.get("lr", inspect.signature(rule).parameters["lr"].default)
        self.steps: dict[Any, int] = {}
        self.state: dict[Any, dict[str, Any]] = {}
        self.averages = None  # thinc's of the parameters; there are none

    def __call__(self, key: Any, weights: Any, gradient: Any, *, lr_scale: float = 1.0) -> tuple[Any, Any]:
        """Updates `weights` in place and sets `gradient` to zero, as thinc's own do; returns both."""
        if not isinstance(weights, np.ndarray):
            raise TypeError(f"weights of {key!r} must be a numpy array, got {type(weights).__name__}; train on the CPU")
        state = self.state.get(key) or {name: np.full_like(weights, x) for name, x in self._first.items()}
        step = self.steps.get(key, 0) + 1
        rate = self._lr(step - 1) if callable(self._lr) else self._lr
        hyper = {**self._hyper, "lr": rate * lr_scale}
        self._update(weights, gradient, **state, step=step, zero_grads=True, **hyper)
        self.state[key], self.steps[key] = state, step
        return weights, gradient

    def step_schedules(self) -> None:
        """Nothing: fastlr's schedules go by the number of the update."""

    def to_cpu(self) -> None:
        """Nothing: it is there."""


def _register(rule: type[Optimizer]) -> None:
    def make(**hyper: Any) -> ThincOptimizer:
        return ThincOptimizer(rule, **hyper)

    own, kind = inspect.signature(rule).parameters, inspect.Parameter.KEYWORD_ONLY
    given = [inspect.Parameter(name, kind, default=own[name].default) for name in rule.checks() if name in own]
    make.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
    thinc.registry.optimizers.register(f"fastlr.{rule.__name__}.v1", func=make)


for _rule in functional.BY_RULE:
    if is_plain(_rule):
        _register(_rule)
