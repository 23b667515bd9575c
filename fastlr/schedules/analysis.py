"""Questions about a schedule's curve: where it is at a value, its area, its extremes, what is suspicious about it.

All work on the pieces between the curve's corners and jumps, which the tree of segments knows; values come from the
compiled table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastlr.hyper import nonnegative, real
from fastlr.schedules import tree

if TYPE_CHECKING:
    from fastlr.schedules.schedule import Floats, Schedule

SAMPLES = 64  # of each piece: a piece is monotone, or a product or sum of few monotone ones
FEW = 4  # where there are very many pieces
MANY = 1 << 14
WHOLE = 1 << 16  # a user's function is looked at at up to this many whole steps


def _stop(schedule: Schedule, stop: float | None, what: str) -> float:
    if stop is not None:
        return real("stop", stop)
    if schedule.length is None:
        raise ValueError(f"{schedule!r} never ends; {what} needs stop=, the step up to which to look")
    return float(schedule.length)


def _pieces(schedule: Schedule, a: float, b: float) -> Floats:
    """The ends of the pieces in [a, b]."""
    inside = {x for x in tree.knots(schedule.node, b) if a < x < b}
    if any(leaf.kind == "custom" for leaf in tree.leaves(schedule.node)):
        inside |= set(map(float, range(math.floor(a) + 1, math.ceil(b)))) if b - a <= WHOLE else set()
    return np.array(sorted({a, b, *inside}))


def _values(schedule: Schedule, t: Floats) -> Floats:
    return np.asarray(schedule(t))


def _grid(schedule: Schedule, a: float, b: float) -> Floats:
    """Times in [a, b], in order: every piece's ends, the last double before its right end, and samples between."""
    ends = _pieces(schedule, a, b)
    left, right = ends[:-1], np.nextafter(ends[1:], -math.inf)
    count = SAMPLES if len(left) <= MANY else FEW
    inner = left[:, None] + (right - left)[:, None] * np.linspace(0, 1, count)
    inner[:, -1] = right
    # A curve that refuses its end has no value there: b itself is not asked for.
    return np.unique(inner.reshape(-1))


def invert(schedule: Schedule, value: float, start: float, stop: float | None) -> Floats:
    value, start, stop = real("value", value), nonnegative("start", start), _stop(schedule, stop, "invert()")
    if not start < stop:
        raise ValueError(f"stop must be > start, got {start} and {stop}")
    t = _grid(schedule, start, stop)
    side = np.sign(_values(schedule, t) - value)
    found = [t[0]] if side[0] == 0 else []
    enters = np.flatnonzero((side[1:] == 0) & (side[:-1] != 0))
    crosses = np.flatnonzero(side[1:] * side[:-1] < 0)
    for group in (enters, crosses):
        low, high = t[group].copy(), t[group + 1].copy()
        before = side[group]
        while True:
            middle = low + (high - low) / 2
            open_ = (middle > low) & (middle < high)
            if not open_.any():
                break
            same = np.sign(_values(schedule, middle) - value) == before
            low, high = np.where(open_ & same, middle, low), np.where(open_ & ~same, middle, high)
        found.extend(high)
    return np.unique(np.array(found, float))


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
ACCURACY = 1e-13
MOST_HALVINGS = 60


def integral(schedule: Schedule, a: float, b: float) -> float:
    a, b = nonnegative("a", a), nonnegative("b", b)
    if a == b:
        return 0.0
    if a > b:
        return -integral(schedule, b, a)
    ends = _pieces(schedule, a, b)
    low, high = ends[:-1], ends[1:]
    whole = _gauss(schedule, low, high)
    size = float(np.sum(np.abs(whole))) or 1.0
    parts: list[float] = []
    for _ in range(MOST_HALVINGS):
        middle = low + (high - low) / 2
        left, right = _gauss(schedule, low, middle), _gauss(schedule, middle, high)
        fine = np.abs(left + right - whole) <= ACCURACY * (np.abs(whole) + size / len(ends))
        parts.extend((left + right)[fine])
        low, high = np.concatenate([low[~fine], middle[~fine]]), np.concatenate([middle[~fine], high[~fine]])
        whole = np.concatenate([left[~fine], right[~fine]])
        if not len(low):
            break
    return math.fsum([*parts, *whole])


def _gauss(schedule: Schedule, low: Floats, high: Floats) -> Floats:
    """∫ over each [low, high]. The nodes lie inside, so a jump at an end does not matter."""
    half = (high - low) / 2
    t = (low + half)[:, None] + half[:, None] * _NODES
    return np.asarray(half * (_values(schedule, t) @ _WEIGHTS))


def total(schedule: Schedule, a: int, b: int) -> float:
    if a < 0 or b < a:
        raise ValueError(f"a and b must be steps with 0 <= a <= b, got {a} and {b}")
    return math.fsum(math.fsum(schedule(np.arange(k, min(k + WHOLE, b)))) for k in range(a, b, WHOLE))


@dataclass(frozen=True)
class Description:
    """What `Schedule.describe` found. `knots` are (step, value) at the corners and jumps, at most 64 of them."""

    schedule: str
    length: float | None
    stop: float
    first: float
    last: float
    min: float
    max: float
    argmin: float
    argmax: float
    area: float
    knots: tuple[tuple[float, float], ...]

    def __str__(self) -> str:
        rows = [
            ("length", "endless" if self.length is None else f"{self.length:g} steps"),
            ("first", f"{self.first:.6g} at step 0"),
            ("last", f"{self.last:.6g} at step {max(0.0, math.ceil(self.stop) - 1):g}"),
            ("max", f"{self.max:.6g} at step {self.argmax:g}"),
            ("min", f"{self.min:.6g} at step {self.argmin:g}"),
            ("area", f"{self.area:.6g}"),
            ("knots", ", ".join(f"{t:g}: {v:.6g}" for t, v in self.knots)),
        ]
        return "\n".join([self.schedule, *(f"  {name:7} {text}" for name, text in rows)])


MOST_SHOWN = 64


def describe(schedule: Schedule, stop: float | None) -> Description:
    end = _stop(schedule, stop, "describe()")
    t = _grid(schedule, 0.0, end)
    values = _values(schedule, t)
    low, high = int(np.argmin(values)), int(np.argmax(values))
    corners = [float(x) for x in _pieces(schedule, 0.0, end)[:-1]][:MOST_SHOWN]
    return Description(
        schedule=repr(schedule),
        length=schedule.length,
        stop=end,
        first=float(values[0]),
        last=float(schedule(max(0.0, math.ceil(end) - 1.0))),
        min=float(values[low]),
        max=float(values[high]),
        argmin=float(t[low]),
        argmax=float(t[high]),
        area=integral(schedule, 0.0, end),
        knots=tuple((x, float(schedule(x))) for x in corners),
    )


def validate(schedule: Schedule, stop: float | None, jump: float) -> list[str]:
    end = _stop(schedule, stop, "validate()")
    t = _grid(schedule, 0.0, end)
    values = _values(schedule, t)
    found = []
    if not np.isfinite(values).all():
        found.append(f"not finite at step {t[~np.isfinite(values)][0]:g}")
        return found
    if values.min() < 0:
        found.append(f"negative at step {t[values < 0][0]:g}: {values[values < 0][0]:.6g}")
    if values[0] == 0:
        found.append("0 at step 0: the first update does nothing")
    largest = float(np.abs(values).max())
    corners = _pieces(schedule, 0.0, end)[1:-1]
    if len(corners) and largest:
        leap = _values(schedule, corners) - _values(schedule, np.nextafter(corners, -math.inf))
        for x, by in zip(corners, leap, strict=True):
            if abs(by) > jump * largest:
                found.append(f"jumps by {by:.6g} at step {x:g}")
    found += _unreached(schedule.node, end)
    if schedule.length is not None and stop is None and values[-1] != schedule(end - 1) and end == int(end) and end > 1:
        at_end, used = float(values[-1]), float(schedule(end - 1))
        before = float(schedule(end - 2))
        # More than the step before would explain: the curve stops on its way.
        if abs(used - at_end) > 4 * abs(before - used) + 1e-12 * largest:
            found.append(f"its end, {at_end:.6g}, is used by no update: the last one, {end - 1:g}, uses {used:.6g}")
    return found


def _unreached(node: tree.Node, stop: float, path: float = 0.0) -> list[str]:
    """Parts of sequences that begin when the part before has already taken over, or after the end."""
    found = []
    if node.kind == "sequence":
        starts = [float(child.start) for child in node.children]
        for child, begin, finish in zip(node.children, starts, [*starts[1:], math.inf], strict=True):
            if begin >= stop and begin > 0 and child is not node.children[-1]:
                found.append(f"a part begins at step {path + begin:g}, after the end at {path + stop:g}")
            elif finish <= begin:
                found.append(f"a part has no updates, at step {path + begin:g}")
            else:
                found += _unreached(child, min(finish, stop) - begin, path + begin)
    elif node.kind in ("scale", "clip", "product", "sum"):
        for child in node.children:
            found += _unreached(child, stop, path)
    elif node.kind == "end":
        found += _unreached(node.children[0], min(stop, node.p[0]), path)
    return found
