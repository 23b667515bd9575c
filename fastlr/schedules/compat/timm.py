"""timm's schedulers, the base rate first; t counts updates or epochs, as the schedule is used.

timm finds the cycle by a rounded logarithm and misses the restart of some; here boundaries are exact. Its noise is a
generator's of torch, which is not reproduced: multiply by `schedules.noise`.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastlr.schedules import curves
from fastlr.schedules.schedule import Schedule

__all__ = ["CosineLRScheduler", "MultiStepLRScheduler", "PolyLRScheduler", "StepLRScheduler", "TanhLRScheduler"]


def _warm(schedule: Schedule, lr: float, warmup_t: int, warmup_lr_init: float, warmup_prefix: bool) -> Schedule:
    """Linear to the base rate; the schedule goes on below it, unless with `warmup_prefix` it begins after it."""
    if not warmup_t:
        return schedule
    rest = schedule if warmup_prefix else schedule.shift(-warmup_t)
    return curves.linear(warmup_lr_init, lr, warmup_t) >> rest


def _cycles(
    curve: Schedule, lr: float, lr_min: float, t_initial: int, mul: float, decay: float, limit: int, end: float
) -> Schedule:
    """`limit` cycles of a curve from 1 to 0, then `end`."""
    above = curve.repeat(mul, 1.0) if limit != 1 or mul != 1 else curve
    if decay == 1:
        s = above * (lr - lr_min) + lr_min
    else:  # lr · decayⁱ is what the peak is: the part above the floor is (lr decayⁱ − lr_min)
        falling = curves.constant(lr, t_initial).repeat(mul, decay) + -lr_min
        s = above * falling + lr_min
    if limit <= 0:
        return s
    total = t_initial * limit if mul == 1 else t_initial * (mul**limit - 1) / (mul - 1)
    return s.then(curves.constant(end), at=total)


def CosineLRScheduler(
    lr: float,
    t_initial: int,
    lr_min: float = 0.0,
    cycle_mul: float = 1.0,
    cycle_decay: float = 1.0,
    cycle_limit: int = 1,
    warmup_t: int = 0,
    warmup_lr_init: float = 0.0,
    warmup_prefix: bool = False,
    k_decay: float = 1.0,
) -> Schedule:
    curve = curves.cosine(1.0, 0.0, t_initial, k_decay)
    s = _cycles(curve, lr, lr_min, t_initial, cycle_mul, cycle_decay, cycle_limit, lr_min)
    return _warm(s, lr, warmup_t, warmup_lr_init, warmup_prefix)


def TanhLRScheduler(
    lr: float,
    t_initial: int,
    lb: float = -7.0,
    ub: float = 3.0,
    lr_min: float = 0.0,
    cycle_mul: float = 1.0,
    cycle_decay: float = 1.0,
    cycle_limit: int = 1,
    warmup_t: int = 0,
    warmup_lr_init: float = 0.0,
    warmup_prefix: bool = False,
) -> Schedule:
    """Without `warmup_prefix` the warm-up goes to the value that the curve has at warmup_t."""
    curve = curves.tanh(1.0, 0.0, t_initial, lb, ub)
    s = _cycles(curve, lr, lr_min, t_initial, cycle_mul, cycle_decay, cycle_limit, lr_min)
    return _warm(s, lr if warmup_prefix or not warmup_t else s(warmup_t), warmup_t, warmup_lr_init, warmup_prefix)


def PolyLRScheduler(
    lr: float,
    t_initial: int,
    power: float = 0.5,
    lr_min: float = 0.0,
    cycle_mul: float = 1.0,
    cycle_decay: float = 1.0,
    cycle_limit: int = 1,
    warmup_t: int = 0,
    warmup_lr_init: float = 0.0,
    warmup_prefix: bool = False,
    k_decay: float = 1.0,
) -> Schedule:
    curve = curves.polynomial(1.0, 0.0, t_initial, power, k=k_decay)
    s = _cycles(curve, lr, lr_min, t_initial, cycle_mul, cycle_decay, cycle_limit, lr_min)
    return _warm(s, lr, warmup_t, warmup_lr_init, warmup_prefix)


def StepLRScheduler(
    lr: float,
    decay_t: float,
    decay_rate: float = 1.0,
    warmup_t: int = 0,
    warmup_lr_init: float = 0.0,
    warmup_prefix: bool = True,
) -> Schedule:
    """warmup_prefix is on by default, here only."""
    return _warm(curves.step(lr, decay_rate, decay_t), lr, warmup_t, warmup_lr_init, warmup_prefix)


def MultiStepLRScheduler(
    lr: float,
    decay_t: Sequence[int],
    decay_rate: float = 1.0,
    warmup_t: int = 0,
    warmup_lr_init: float = 0.0,
    warmup_prefix: bool = True,
) -> Schedule:
    """Each drop comes one t before its boundary."""
    s = curves.multistep(lr, {max(at - 1, 0): decay_rate for at in decay_t})
    return _warm(s, lr, warmup_t, warmup_lr_init, warmup_prefix)
