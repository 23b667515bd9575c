"""optax's schedules, with its names and arguments; in float64, where optax has float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastlr.schedules import curves
from fastlr.schedules.schedule import Schedule

__all__ = [
    "constant_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "exponential_decay",
    "join_schedules",
    "linear_onecycle_schedule",
    "linear_schedule",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_schedule",
    "sgdr_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
]


def constant_schedule(value: float) -> Schedule:
    return curves.constant(value)


def polynomial_schedule(
    init_value: float, end_value: float, power: float, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    """With transition_steps <= 0 it is `init_value` for ever."""
    if transition_steps <= 0:
        return curves.constant(init_value)
    return _begin(curves.polynomial(init_value, end_value, transition_steps, power), transition_begin)


def _begin(schedule: Schedule, begin: int) -> Schedule:
    return schedule.shift(begin) if begin > 0 else schedule


def linear_schedule(init_value: float, end_value: float, transition_steps: int, transition_begin: int = 0) -> Schedule:
    return polynomial_schedule(init_value, end_value, 1, transition_steps, transition_begin)


def piecewise_constant_schedule(
    init_value: float, boundaries_and_scales: Mapping[int, float] | None = None
) -> Schedule:
    """Scales accumulate."""
    return curves.multistep(init_value, dict(boundaries_and_scales or {}))


def piecewise_interpolate_schedule(
    interpolate_type: str, init_value: float, boundaries_and_scales: Mapping[int, float] | None = None
) -> Schedule:
    """Through `init_value` at 0 and the accumulated scales of it at the boundaries."""
    knots, value = {0: init_value}, init_value
    for at, by in sorted((boundaries_and_scales or {}).items()):
        value *= by
        knots[at] = value
    return curves.interpolate(knots, interpolate_type)


def exponential_decay(
    init_value: float,
    transition_steps: int,
    decay_rate: float,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> Schedule:
    """decay_rate = 0 is constant; `end_value` is a floor if decay_rate < 1, else a ceiling."""
    if transition_steps <= 0 or decay_rate == 0:
        return curves.constant(init_value)
    s = _begin(curves.exponential(init_value, decay_rate, transition_steps, staircase), transition_begin)
    if end_value is None:
        return s
    return s.clip(end_value) if decay_rate < 1 else s.clip(None, end_value)


def cosine_decay_schedule(init_value: float, decay_steps: int, alpha: float = 0.0, exponent: float = 1.0) -> Schedule:
    """`alpha` is a fraction of `init_value`."""
    return curves.cosine(init_value, alpha * init_value, decay_steps, power=exponent)


def warmup_constant_schedule(init_value: float, peak_value: float, warmup_steps: int) -> Schedule:
    return linear_schedule(init_value, peak_value, warmup_steps)


def warmup_cosine_decay_schedule(
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    decay_steps: int,
    end_value: float = 0.0,
    exponent: float = 1.0,
) -> Schedule:
    """`decay_steps` includes the warm-up."""
    alpha = 0.0 if peak_value == 0 else end_value / peak_value
    return join_schedules(
        [
            linear_schedule(init_value, peak_value, warmup_steps),
            cosine_decay_schedule(peak_value, decay_steps - warmup_steps, alpha, exponent),
        ],
        [warmup_steps],
    )


def warmup_exponential_decay_schedule(
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    transition_steps: int,
    decay_rate: float,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> Schedule:
    return join_schedules(
        [
            linear_schedule(init_value, peak_value, warmup_steps),
            exponential_decay(peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value),
        ],
        [warmup_steps],
    )


def linear_onecycle_schedule(
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """Up to int(pct_start · T), back at int(pct_final · T), then on to peak / div / final_div at T."""
    init = peak_value / div_factor
    return _through(
        {0: init, int(pct_start * transition_steps): peak_value, int(pct_final * transition_steps): init},
        transition_steps,
        init / final_div_factor,
        "linear",
    )


def cosine_onecycle_schedule(
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    init = peak_value / div_factor
    return _through(
        {0: init, int(pct_start * transition_steps): peak_value}, transition_steps, init / final_div_factor, "cosine"
    )


def _through(knots: dict[int, float], at: int, last: float, shape: str) -> Schedule:
    if at <= 0:
        raise ValueError(f"transition_steps must be > 0, got {at}")
    return curves.interpolate({**knots, at: last}, shape)


def sgdr_schedule(cosine_kwargs: Sequence[Mapping[str, Any]]) -> Schedule:
    """One `warmup_cosine_decay_schedule` after the other."""
    boundaries, step = [], 0
    for own in cosine_kwargs:
        step += own["decay_steps"]
        boundaries.append(step)
    return join_schedules([warmup_cosine_decay_schedule(**own) for own in cosine_kwargs], boundaries[:-1])


def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """Each from its boundary on, on its own clock."""
    whole = schedules[-1]
    for k in range(len(boundaries) - 1, -1, -1):
        whole = schedules[k].then(whole, at=boundaries[k] - (boundaries[k - 1] if k else 0))
    return whole
