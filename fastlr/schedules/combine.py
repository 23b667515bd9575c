"""What schedules are put together with: the methods of `Schedule`, whose docstrings say what each does."""

from __future__ import annotations

import math

from fastlr.hyper import nonnegative, positive
from fastlr.schedules import tree
from fastlr.schedules.schedule import Lowered, Schedule, ShapeName, Step, Steps, form
from fastlr.schedules.shapes import parsed


def _end(schedule: Schedule, at: float | None, what: str) -> float:
    """Where something follows."""
    if at is not None:
        return at
    if schedule.length is None:
        raise ValueError(f"{schedule!r} never ends; {what} needs at=, the update from which on it follows")
    return schedule.length


def _value(schedule: Schedule, at: float) -> float:
    """The value at the end, or within: that of a schedule which refuses its end is the one it would hold."""
    node = schedule.node
    if node.kind == "end" and node.p[1]:
        node = tree.end(node.children[0], node.p[0])
    return tree.value(node, at)


@form
def warmup(
    schedule: Schedule, n: Steps, start: float = 0.0, shape: ShapeName = "linear", first: str = "step"
) -> Lowered | Schedule:
    if first not in ("step", "start"):
        raise ValueError(f"first must be one of 'step', 'start', got {first!r}")
    peak, steps = _value(schedule, 0), (1.0 if first == "step" else 0.0)
    ramp = tree.interpolate(start, peak, n + steps, parsed(shape), offset=steps)
    length = None if schedule.length is None else n + schedule.length
    return Lowered(tree.sequence((0, ramp), (n, schedule.node)), length)


@form
def then(schedule: Schedule, other: Schedule, at: Step | None = None) -> Lowered | Schedule:
    end = _end(schedule, at, "then()")
    if end == 0:
        return other
    return Lowered(
        tree.sequence((0, schedule.node), (end, other.node)), None if other.length is None else end + other.length
    )


@form
def until(schedule: Schedule, at: Steps) -> Lowered | Schedule:
    return Lowered(tree.end(schedule.node, at), at)


@form
def after(schedule: Schedule, what: str) -> Lowered | Schedule:
    if what not in ("hold", "raise", "repeat", "zero"):
        raise ValueError(f"what must be one of 'hold', 'raise', 'repeat', 'zero', got {what!r}")
    end = _end(schedule, None, "after()")
    if what == "repeat":
        return schedule.repeat()
    return Lowered(tree.end(schedule.node, end, what), end)


@form
def repeat(schedule: Schedule, mult: float = 1.0, decay: float = 1.0, times: int | None = None) -> Lowered | Schedule:
    if mult < 1:
        raise ValueError(f"mult must be >= 1, got {mult}")
    period = _end(schedule, None, "repeat()")
    node = tree.repeat(schedule.node, period, mult, positive("decay", decay))
    if times is None:
        return Lowered(node)
    if times < 1:
        raise ValueError(f"times must be >= 1, got {times}")
    total = sum(period * mult**k for k in range(times))
    # The last cycle holds its end, which is not the first value of a cycle that never comes.
    last = period * mult ** (times - 1)
    final = tree.clock(schedule.node, 0, 1, mult ** (times - 1))
    factor = decay ** (times - 1)
    return Lowered(tree.sequence((0, node), (total - last, tree.scale(final, factor))) if times > 1 else final, total)


@form
def cooldown(
    schedule: Schedule, n: Steps, end: float = 0.0, shape: ShapeName = "linear", at: Step | None = None
) -> Lowered | Schedule:
    start = _end(schedule, at, "cooldown()")
    ramp = tree.interpolate(_value(schedule, start), end, n, parsed(shape))
    return Lowered(tree.sequence((0, schedule.node), (start, ramp)) if start else ramp, start + n)


@form
def rewarm(
    schedule: Schedule, other: Schedule, n: Steps, at: Step | None = None, shape: ShapeName = "linear"
) -> Lowered | Schedule:
    start = _end(schedule, at, "rewarm()")
    ramp = tree.interpolate(_value(schedule, start), _value(other, 0), n, parsed(shape))
    length = None if other.length is None else start + n + other.length
    return Lowered(tree.sequence((0, schedule.node), (start, ramp), (start + n, other.node)), length)


@form
def clip(schedule: Schedule, least: float | None = None, most: float | None = None) -> Lowered | Schedule:
    low, high = -math.inf if least is None else least, math.inf if most is None else most
    if low > high:
        raise ValueError(f"least must be <= most, got {least} and {most}")
    return Lowered(tree.clip(schedule.node, low, high), schedule.length)


@form
def floor(schedule: Schedule, least: float) -> Lowered | Schedule:
    return Lowered(tree.clip(schedule.node, least, math.inf), schedule.length)


@form
def scale(schedule: Schedule, factor: float) -> Lowered | Schedule:
    return Lowered(tree.scale(schedule.node, factor), schedule.length)


@form
def shift(schedule: Schedule, n: float) -> Lowered | Schedule:
    length = schedule.length
    if length is not None and length + n <= 0:
        raise ValueError(f"n must be > {-length}, or nothing of the schedule is left, got {n}")
    return Lowered(tree.clock(schedule.node, before=n), None if length is None else length + n)


@form
def stretch(schedule: Schedule, factor: float) -> Lowered | Schedule:
    positive("factor", factor)
    length = None if schedule.length is None else schedule.length * factor
    return Lowered(tree.clock(schedule.node, denominator=factor), length)


@form
def every(schedule: Schedule, n: Steps) -> Lowered | Schedule:
    length = None if schedule.length is None else schedule.length * n
    return Lowered(tree.clock(schedule.node, denominator=n, whole=True), length)


@form
def extend(schedule: Schedule, new_total: Steps, at: Step, how: str = "continuous") -> Lowered | Schedule:
    if how not in ("continuous", "restretch", "hold"):
        raise ValueError(f"how must be one of 'continuous', 'restretch', 'hold', got {how!r}")
    old = _end(schedule, None, "extend()")
    nonnegative("at", at)
    if not at < min(old, new_total):
        raise ValueError(f"at must be < {old}, the schedule's length, and < new_total, got {at} and {new_total}")
    node = schedule.node
    if how == "restretch":
        rest = tree.clock(node, -at, old, new_total)
    elif how == "continuous":
        rest = tree.clock(node, 0, old - at, new_total - at, at)
    else:
        if new_total < old:
            raise ValueError(f"how='hold' needs new_total >= {old}, got {new_total}")
        rest = tree.sequence((0, tree.constant(_value(schedule, at))), (new_total - old, tree.clock(node, before=-at)))
        rest = rest if new_total > old else tree.clock(node, before=-at)
    return Lowered(tree.sequence((0, node), (at, rest)) if at else rest, new_total)


@form
def times(schedule: Schedule, other: Schedule) -> Lowered | Schedule:
    return _both("product", schedule, other)


@form
def plus(schedule: Schedule, other: Schedule) -> Lowered | Schedule:
    return _both("sum", schedule, other)


def _both(kind: str, one: Schedule, other: Schedule) -> Lowered:
    """As long as the longer one; an endless one (a constant, a noise) takes the other's length."""
    lengths = [s.length for s in (one, other) if s.length is not None]
    return Lowered(tree.combine(kind, (one.node, other.node)), max(lengths, default=None))
