"""What all pictures have in common. They need no display and leave matplotlib's global state alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.extras import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito (2008): distinct to the colour-blind too.
BLUE, ORANGE, GREEN, RED, PINK, SKY = COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
GREY = "#555555"


def panels(count: int = 1, title: str = "", size: tuple[float, float] = (5.2, 3.8)) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels side by side, each of `size` inches."""
    figures = need("matplotlib.figure", "plots", "a plot")
    canvas = need("matplotlib.backends.backend_agg", "plots", "a plot")
    figure: Figure = figures.Figure(figsize=(size[0] * count, size[1]), dpi=110, layout="constrained")
    canvas.FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for ax in axes:
        ax.grid(True, which="major", color="#e4e4e4", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.tick_params(colors=GREY, labelsize=9, which="both")
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            ax.spines[side].set_color("#bbbbbb")
    if title:
        figure.suptitle(title, fontsize=12, fontweight="bold")
    return figure, axes


def label(ax: Axes, title: str, x: str, y: str = "") -> None:
    ax.set_title(title, loc="left", fontsize=10.5)
    ax.set_xlabel(x, color=GREY)
    ax.set_ylabel(y, color=GREY)


def finish(figure: Figure, path: Any) -> Figure:
    """Writes the figure to `path`, if one is given: PNG, SVG or PDF by its ending."""
    if path is not None:
        figure.savefig(path)
    return figure
