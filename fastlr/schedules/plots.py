"""Pictures of schedules: with matplotlib, and with characters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastlr.schedules.analysis import _grid, _stop

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fastlr.schedules.schedule import Floats, Schedule

POINTS = 2000


def points(schedule: Schedule, stop: float | None) -> tuple[Floats, Floats]:
    """Steps and values enough to draw the curve: a grid, and both sides of every corner and jump."""
    end = _stop(schedule, stop, "a plot")
    t = np.linspace(0, np.nextafter(end, 0), POINTS)
    corners = _grid(schedule, 0.0, end)
    if len(corners) <= 4 * POINTS:
        t = np.unique(np.concatenate([t, corners]))
    return t, np.asarray(schedule(t))


def plot(schedule: Schedule, ax: Axes | None, stop: float | None, **line: Any) -> Axes:
    from fastlr.plots import BLUE, label, panels

    if ax is None:
        _, (ax,) = panels(1, size=(7.0, 3.6))
        label(ax, repr(schedule), "update")
    ax.plot(*points(schedule, stop), **{"color": BLUE, "linewidth": 1.6, **line})
    return ax


def ascii(schedule: Schedule, width: int, height: int, stop: float | None) -> str:
    if width < 8 or height < 2:
        raise ValueError(f"width must be >= 8 and height >= 2, got {width} and {height}")
    t, values = points(schedule, stop)
    end = _stop(schedule, stop, "a plot")
    low, high = float(values.min()), float(values.max())
    span = (high - low) or 1.0
    columns = np.minimum((t / end * width).astype(int), width - 1)
    rows = np.rint((high - values) / span * (height - 1)).astype(int)
    cells = [[" "] * width for _ in range(height)]
    for column in range(width):
        inside = rows[columns == column]
        for row in range(inside.min(), inside.max() + 1) if len(inside) else ():
            cells[row][column] = "*"
    labels = [f"{0.0 if abs(x) < 1e-9 * span else x:.3g}" for x in (high, low)]
    labels[1:1] = [""] * (height - 2)
    margin = max(map(len, labels))
    lines = [f"{text:>{margin}} |{''.join(row)}".rstrip() for text, row in zip(labels, cells, strict=True)]
    return "\n".join([*lines, f"{'':{margin}} +{'-' * width}", f"{'':{margin}}  0{f'{end:g}':>{width - 1}}"])
