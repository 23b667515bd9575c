"""Hugging Face transformers: get_*_schedule*, the base rate first. Update 0 of a warm-up uses 0: it does nothing."""

from __future__ import annotations

from fastlr.schedules import curves
from fastlr.schedules.schedule import Schedule

__all__ = [
    "constant",
    "constant_with_warmup",
    "cosine",
    "cosine_warmup_with_min_lr",
    "cosine_with_min_lr",
    "cosine_with_restarts",
    "inverse_sqrt",
    "linear",
    "polynomial",
    "warmup_stable_decay",
]


def _warm(schedule: Schedule, n: int, start: float = 0.0, shape: str = "linear") -> Schedule:
    return schedule.warmup(n, start, shape, first="start") if n else schedule


def _rest(num_warmup_steps: int, num_training_steps: int) -> int:
    """Of the run after the warm-up; at least 1, as there."""
    return max(1, num_training_steps - num_warmup_steps)


def constant(lr: float) -> Schedule:
    return curves.constant(lr)


def constant_with_warmup(lr: float, num_warmup_steps: int) -> Schedule:
    return _warm(curves.constant(lr), num_warmup_steps)


def linear(lr: float, num_warmup_steps: int, num_training_steps: int) -> Schedule:
    return _warm(curves.linear(lr, 0.0, _rest(num_warmup_steps, num_training_steps)), num_warmup_steps)


def cosine(lr: float, num_warmup_steps: int, num_training_steps: int, num_cycles: float = 0.5) -> Schedule:
    """num_cycles whole waves until the end; it goes on after it."""
    return _warm(_wave(lr, 0.0, _rest(num_warmup_steps, num_training_steps), num_cycles), num_warmup_steps)


def _wave(lr: float, least: float, steps: int, num_cycles: float) -> Schedule:
    if num_cycles == 0:
        return curves.constant(lr)
    half = steps / (2 * num_cycles)
    return (curves.cosine(lr, least, half) >> curves.cosine(least, lr, half)).repeat()


def cosine_with_restarts(lr: float, num_warmup_steps: int, num_training_steps: int, num_cycles: int = 1) -> Schedule:
    """Equal cycles; 0 from the end on."""
    steps = _rest(num_warmup_steps, num_training_steps)
    cycles = curves.warm_restarts(lr, 0.0, steps / num_cycles).until(steps).after("zero")
    return _warm(cycles, num_warmup_steps)


def polynomial(
    lr: float, num_warmup_steps: int, num_training_steps: int, lr_end: float = 1e-7, power: float = 1.0
) -> Schedule:
    """`lr_end` is absolute."""
    if not lr > lr_end:
        raise ValueError(f"lr_end must be < lr, got {lr_end} and {lr}")
    steps = _rest(num_warmup_steps, num_training_steps)
    return _warm(curves.polynomial(lr, lr_end, steps, power), num_warmup_steps)


def inverse_sqrt(lr: float, num_warmup_steps: int, timescale: int | None = None) -> Schedule:
    """`timescale` is the warm-up, or 10,000 without one."""
    return _warm(curves.inverse_sqrt(lr, timescale or num_warmup_steps or 10_000), num_warmup_steps)


def cosine_with_min_lr(
    lr: float,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
) -> Schedule:
    """`min_lr` absolute, or `min_lr_rate` of lr."""
    least = _least(lr, min_lr, min_lr_rate)
    return _warm(_wave(lr, least, _rest(num_warmup_steps, num_training_steps), num_cycles), num_warmup_steps)


def _least(lr: float, min_lr: float | None, min_lr_rate: float | None) -> float:
    if (min_lr is None) == (min_lr_rate is None):
        raise ValueError("one of min_lr and min_lr_rate must be given, and not both")
    return lr * min_lr_rate if min_lr is None and min_lr_rate is not None else float(min_lr or 0.0)


def cosine_warmup_with_min_lr(
    lr: float,
    num_warmup_steps: int,
    num_training_steps: int,
    num_cycles: float = 0.5,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    warmup_lr_rate: float | None = None,
) -> Schedule:
    """The warm-up begins at lr / num_warmup_steps, or at lr · warmup_lr_rate, and reaches lr with its last update."""
    least, n = _least(lr, min_lr, min_lr_rate), num_warmup_steps
    wave = _wave(lr, least, _rest(n, num_training_steps), num_cycles)
    if n == 0:
        return wave
    if warmup_lr_rate is None:
        # Not from lr / n, but (k + 1) / n.
        return curves.linear(lr / n, lr + lr / n, n) >> wave
    start = lr * warmup_lr_rate
    return (curves.linear(start, lr, n, endpoint="inclusive") if n > 1 else curves.constant(start, 1)) >> wave


def warmup_stable_decay(
    lr: float,
    num_warmup_steps: int,
    num_decay_steps: int,
    num_training_steps: int | None = None,
    num_stable_steps: int | None = None,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
    min_lr_ratio: float = 0.0,
    num_cycles: float = 0.5,
) -> Schedule:
    """The warm-up begins at min_lr_ratio · lr, which is also what follows the end. Types: linear, cosine, 1-sqrt."""
    if (num_training_steps is None) == (num_stable_steps is None):
        raise ValueError("one of num_training_steps and num_stable_steps must be given, and not both")
    if num_stable_steps is None:
        num_stable_steps = (num_training_steps or 0) - num_warmup_steps - num_decay_steps
    least = min_lr_ratio * lr
    if decay_type == "cosine" and num_cycles != 0.5:
        decay = _wave(lr, least, max(1, num_decay_steps), num_cycles).until(max(1, num_decay_steps))
    else:
        decay = curves.ramp(lr, least, max(1, num_decay_steps), decay_type)
    s = (decay >> curves.constant(least)) if num_decay_steps else curves.constant(least)
    s = curves.constant(lr, num_stable_steps) >> s if num_stable_steps else s
    if not num_warmup_steps:
        return s
    return curves.ramp(least, lr, num_warmup_steps, warmup_type) >> s
