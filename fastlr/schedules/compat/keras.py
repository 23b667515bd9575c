"""keras.optimizers.schedules, with its classes' names and arguments; in float64, where Keras has float32."""

from __future__ import annotations

from collections.abc import Sequence

from fastlr.schedules import curves
from fastlr.schedules.schedule import Schedule

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
]


def ExponentialDecay(
    initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
) -> Schedule:
    return curves.exponential(initial_learning_rate, decay_rate, decay_steps, staircase)


def PiecewiseConstantDecay(boundaries: Sequence[int], values: Sequence[float]) -> Schedule:
    """Update b still has the old value: torch and optax have the new one there."""
    return curves.piecewise(list(boundaries), list(values), side="after")


def PolynomialDecay(
    initial_learning_rate: float,
    decay_steps: int,
    end_learning_rate: float = 0.0001,
    power: float = 1.0,
    cycle: bool = False,
) -> Schedule:
    """With `cycle` the length is the next multiple of decay_steps."""
    return curves.polynomial(initial_learning_rate, end_learning_rate, decay_steps, power, cycle)


def InverseTimeDecay(
    initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
) -> Schedule:
    return curves.inverse_time(initial_learning_rate, decay_rate, decay_steps, staircase)


def CosineDecay(
    initial_learning_rate: float,
    decay_steps: int,
    alpha: float = 0.0,
    warmup_target: float | None = None,
    warmup_steps: int = 0,
) -> Schedule:
    """`decay_steps` comes after the warm-up, which goes from the initial rate to `warmup_target`; alpha is relative."""
    peak = initial_learning_rate if warmup_target is None else warmup_target
    decay = curves.cosine(peak, alpha * peak, decay_steps)
    if warmup_target is None or not warmup_steps:
        return decay
    return curves.linear(initial_learning_rate, peak, warmup_steps) >> decay


def CosineDecayRestarts(
    initial_learning_rate: float, first_decay_steps: int, t_mul: float = 2.0, m_mul: float = 1.0, alpha: float = 0.0
) -> Schedule:
    """The part of the curve above the floor, alpha times the initial rate, is multiplied by m_mul each cycle."""
    above = curves.cosine((1 - alpha) * initial_learning_rate, 0.0, first_decay_steps).repeat(t_mul, m_mul)
    return above + alpha * initial_learning_rate if alpha else above
