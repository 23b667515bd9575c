"""`Plateau`: the rate is lowered when a metric stops improving.

It depends on what happened, not on the step alone, so it is no schedule: it is a pure transition from one state of
plain numbers to the next.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlr import _core
from fastlr.hyper import choice, fraction, nonnegative, real

if TYPE_CHECKING:
    from fastlr.schedules.schedule import Floats, Schedule


class PlateauState(NamedTuple):
    """Between two metrics. All are numbers, so ``state._asdict()`` is JSON and ``PlateauState(**saved)`` resumes."""

    scale: float = 1.0
    """The factor on the rate."""
    best: float = math.inf
    bad: float = 0.0
    """Metrics in a row without improvement."""
    cooling: float = 0.0
    """Metrics that will not count yet."""
    average: float = 0.0
    seen: float = 0.0


@dataclass(frozen=True)
class Plateau:
    """Multiplies the rate by `factor` after more than `patience` metrics in a row without improvement.

    An improvement is a metric below best − margin (above best + margin for ``mode="max"``), the margin being
    threshold · |best|. torch and optax compare with best · (1 − threshold), which is on the wrong side of a negative
    best: there every metric counts as an improvement, and the rate never falls.

    Parameters
    ----------
    factor : float, default 0.1
        In [0, 1).
    patience : int, default 10
        ≥ 0. The rate falls at metric patience + 1 without improvement, as in torch; Keras counts one less.
    threshold : float, default 1e-4
        ≥ 0.
    threshold_mode : {"rel", "abs"}, default "rel"
        Whether the margin is threshold · |best| or threshold.
    cooldown : int, default 0
        Metrics after a reduction that do not count as bad.
    min_scale : float, default 0
        What the product of all factors is not lowered beyond: min_lr / lr.
    mode : {"min", "max"}, default "min"
        Whether the metric should fall or rise.
    smoothing : float, default 0
        In [0, 1): the metric is averaged first, exponentially, without bias at the start. For the loss of mini-batches.
    nan : {"bad", "skip", "raise"}, default "bad"
        What a metric that is NaN is.

    Examples
    --------
    >>> p = Plateau(factor=0.5, patience=1)
    >>> p.run([1.0, 0.9, 0.9, 0.9, 0.9])
    array([1. , 1. , 1. , 0.5, 0.5])
    >>> state = p.start
    >>> for metric in (1.0, 0.9, 0.9, 0.9):
    ...     state = p.step(state, metric)
    >>> state.scale
    0.5
    """

    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: str = "rel"
    cooldown: int = 0
    min_scale: float = 0.0
    mode: str = "min"
    smoothing: float = 0.0
    nan: str = "bad"

    def __post_init__(self) -> None:
        if not 0 <= real("factor", self.factor) < 1:
            raise ValueError(f"factor must be in [0, 1), got {self.factor!r}")
        for name in ("patience", "cooldown"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
                raise ValueError(f"{name} must be an integer >= 0, got {value!r}")
        nonnegative("threshold", self.threshold)
        nonnegative("min_scale", self.min_scale)
        fraction("smoothing", self.smoothing)
        choice("rel", "abs")("threshold_mode", self.threshold_mode)
        choice("min", "max")("mode", self.mode)
        choice("bad", "skip", "raise")("nan", self.nan)

    @property
    def start(self) -> PlateauState:
        """The state before the first metric."""
        return PlateauState(best=-math.inf if self.mode == "max" else math.inf)

    def step(self, state: PlateauState, metric: float) -> PlateauState:
        """The state after one more metric; ``state.scale`` is the factor on the rate, for ``groups[k].lr_scale``."""
        state, _ = self._replay(state, np.array([real("metric", metric) if metric == metric else metric], float))
        return state

    def run(self, metrics: npt.ArrayLike, state: PlateauState | None = None) -> Floats:
        """The scale after each metric of a logged curve."""
        _, scales = self._replay(state or self.start, np.ascontiguousarray(metrics, np.float64).reshape(-1))
        return scales

    def _replay(self, state: PlateauState, metrics: Floats) -> tuple[PlateauState, Floats]:
        if self.nan == "raise" and np.isnan(metrics).any():
            raise FloatingPointError(f"metric {int(np.isnan(metrics).argmax())} is NaN, and nan='raise'")
        options = (
            float(self.factor), float(self.patience), float(self.threshold), float(self.cooldown),
            float(self.min_scale), float(self.smoothing), self.mode == "max", self.threshold_mode == "rel",
            self.nan == "skip",
        )  # fmt: skip
        scales = np.empty(len(metrics))
        return PlateauState(*_core.plateau_run(options, tuple(state), metrics, scales)), scales

    def schedule(self, metrics: npt.ArrayLike, every: float = 1) -> Schedule:
        """The scales of a logged curve as a schedule, to multiply others with: metric k comes at every (k + 1).

        Examples
        --------
        >>> from fastlr import schedules as S
        >>> s = S.constant(0.1) * Plateau(0.5, patience=0).schedule([1.0, 1.0, 0.9], every=100)
        >>> s(199), s(200), s(300)
        (0.1, 0.05, 0.05)
        """
        from fastlr.schedules.curves import piecewise

        scales = self.run(metrics)
        changes = [k for k in range(len(scales)) if scales[k] != (scales[k - 1] if k else 1.0)]
        return piecewise([every * (k + 1) for k in changes], [1.0, *(float(scales[k]) for k in changes)])

    def to_dict(self) -> dict[str, Any]:
        """The options, as plain values: ``Plateau(**saved)`` is equal."""
        return asdict(self)

    def __repr__(self) -> str:
        shown = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"Plateau({', '.join(shown)})"
