"""The picture: losses and learning rates of all rules over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from fastlr.demo.training import History
from fastlr.plots import COLOURS, GREY

_DASH = 6.0  # points/linewidth of a dash where curves coincide


def draw(histories: Mapping[str, History], title: str, path: str) -> None:
    """Writes a PNG. Needs no display and leaves matplotlib's global state alone."""
    figure = Figure(figsize=(12, 5), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    train, test, rate = figure.subplots(1, 3)
    colours = dict(zip(histories, COLOURS, strict=True))

    for name, h in histories.items():
        ends = [(k + 1) * h.steps_an_epoch for k in range(len(h.train_loss))]
        train.plot(ends, h.train_loss, color=colours[name], linewidth=1.6, label=f"{name}  {h.accuracy[-1]:.1%}")
        test.plot(ends, h.test_loss, color=colours[name], linewidth=1.6)
    for names in _coinciding(histories):
        for k, name in enumerate(names):
            # Curves that lie on one another share the line, dash by dash.
            dashes = (0, ()) if len(names) == 1 else (-k * _DASH, (_DASH, (len(names) - 1) * _DASH))
            lr = histories[name].lr
            rate.plot(range(1, len(lr) + 1), lr, color=colours[name], linewidth=1.6, linestyle=dashes)

    for axes, subject in ((train, "training loss"), (test, "test loss"), (rate, "learning rate")):
        _dress(axes, subject, max(len(h.lr) for h in histories.values()))
    test.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # its range holds too few powers of ten
    for axes in (train, test):
        axes.yaxis.set_major_formatter("{x:g}")
    figure.suptitle(title, fontsize=13, fontweight="bold")
    figure.legend(
        loc="outside lower center",
        ncols=len(histories),
        frameon=False,
        fontsize=10.5,
        title="rule, and its test accuracy",
        title_fontsize=10,
    )
    figure.savefig(path, format="png")


def _coinciding(histories: Mapping[str, History]) -> Sequence[Sequence[str]]:
    """The rules, those with equal learning rates together."""
    together: dict[tuple[float, ...], list[str]] = {}
    for name, history in histories.items():
        together.setdefault(tuple(history.lr), []).append(name)
    return list(together.values())


def _dress(axes: Axes, subject: str, steps: int) -> None:
    axes.set_yscale("log")
    axes.set_title(subject, loc="left", fontsize=11)
    axes.set_xlabel("step", color=GREY)
    axes.set_xlim(0, steps)
    axes.grid(True, which="major", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=GREY, labelsize=9.5, which="both")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#bbbbbb")
