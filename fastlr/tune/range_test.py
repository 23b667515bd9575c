"""The learning-rate range test: raise the rate from tiny to huge and watch the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlr.buffers import Array
from fastlr.hyper import choice, count, positive
from fastlr.optimizer import Optimizer
from fastlr.storage import Path
from fastlr.training.loop import bind
from fastlr.training.objective import Objective, Problem, Snapshot
from fastlr.training.progress import bar
from fastlr.tune import curve, fastai

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rule = Callable[..., Optimizer]


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    Attributes
    ----------
    suggestion : float
        A rate for training at a constant rate or as the peak of a schedule; nan if the loss never fell.
    bracket : (float, float)
        From the steepest descent to the smallest loss, or to the suggestion where that lies outside: where to search.
    confidence : float
        From 0, none, to 1: how well replicates, and the halves of each curve, agree, and how far the descent stands out
        of the noise. A disagreement by a factor of 3 has 1/e.
    flags : tuple of str
        What is wrong with the curves; empty if nothing is.
    alternatives : dict of str to float
        The suggestions of fastai by their names: "valley", "slide", "minimum", "steep".
    lrs : list of array
        The rates, one array a replicate.
    losses : list of array
        The losses after the update with each rate. The last is not finite where the run diverged to that.
    start : float
        The loss before any update.
    """

    suggestion: float
    bracket: tuple[float, float]
    confidence: float
    flags: tuple[str, ...]
    alternatives: dict[str, float]
    lrs: list[Array] = field(repr=False)
    losses: list[Array] = field(repr=False)
    start: float = field(repr=False)

    def plot(self, path: Path | None = None) -> Figure:
        """Loss against rate, smoothed and as measured, with the suggestion; written to `path` if given."""
        from fastlr import plots

        figure, (ax,) = plots.panels(1, size=(6.4, 4.2))
        for lrs, losses in zip(self.lrs, self.losses, strict=True):
            ok = np.isfinite(losses)
            shown = np.minimum(losses[ok], self.start + 1.2 * max(self.start - losses[ok].min(), 1e-12))
            ax.plot(lrs[ok], shown, ".", color=plots.SKY, markersize=3)
            if ok.sum() > 2:
                smooth, _ = curve.local_line(np.log(lrs[ok]), shown, curve.BANDWIDTH)
                ax.plot(lrs[ok], smooth, color=plots.BLUE)
        ax.axvspan(*self.bracket, color=plots.GREEN, alpha=0.12, linewidth=0)
        ax.axvline(self.suggestion, color=plots.GREEN, label=f"suggestion {self.suggestion:.3g}")
        ax.set_xscale("log")
        ax.legend(frameon=False)
        plots.label(ax, f"range test, confidence {self.confidence:.2f}", "learning rate", "loss after the update")
        return plots.finish(figure, path)


def range_test(
    objective: Objective,
    params: Any,
    rule: Rule | Optimizer,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    mode: str = "ramp",
    replicates: int = 1,
    *,
    inner: int = 10,
    progress: bool = True,
) -> RangeTest:
    """Tries rates from `low` to `high`, evenly in their logarithm, and suggests one.

    Parameters, optimizer, and random generators are afterwards as they were, bit for bit.

    Parameters
    ----------
    objective : callable
        ``objective(params, step) -> (loss, grads)``.
    params : array, list or dict of arrays, or FlatBuffer
        Where to start.
    rule : callable or Optimizer
        Builds the optimizer, as ``rule(params, lr=...)``: a class, or a `functools.partial` of one. An optimizer over
        `params` is tried with the state that it has; the ratios of its groups' rates are kept.
    low, high : float
        The rates, 0 < low < high.
    steps : int, default 100
        How many, ≥ 20.
    mode : {"ramp", "reset"}, default "ramp"
        "ramp": one run, whose rate rises at every step; Smith's test. "reset": each rate starts again from `params` and
        makes `inner` steps, the same batches for each; slower, and what a rate does to an untrained model.
    replicates : int, default 1
        Runs, each on other batches; the suggestion is their median. With 3 or more the confidence is worth more.
    inner : int, default 10
        Steps at each rate with "reset".

    Returns
    -------
    RangeTest

    Notes
    -----
    A loss is paired with the rate whose update it follows. (fastai, Lightning and others pair it with the next.) The
    curve is smoothed by lines fitted locally in log rate, over a part of the ramp that does not depend on `steps`. The
    suggestion is an eighth of the rate of the edge, where 0.4 of the descent is lost again: that moves little with
    `steps`, where the steepest point moves in proportion to it, for a ramp ten times slower trains ten times more at
    each rate (``python -m bench.range_test``). Rules whose step shrinks by itself (Adagrad) or does not shrink with the
    gradient (Lion) have no such edge, and their suggestion moves. A run ends once the loss is several times its whole
    descent above the start.

    Examples
    --------
    >>> import fastlr, numpy as np
    >>> w = np.array([5.0])
    >>> found = fastlr.tune.range_test(lambda w, step: (float(w[0] ** 2), 2 * w), w, fastlr.SGD)
    >>> bool(found.suggestion < 1), w  # 2 / L is 1
    (True, array([5.]))

    References
    ----------
    Smith, Cyclical learning rates for training neural networks, 2017.
    """
    low, high = positive("low", low), positive("high", high)
    if low >= high:
        raise ValueError(f"low must be below high, got low={low} and high={high}")
    steps, replicates = count("steps", steps, least=20), count("replicates", replicates)
    inner = count("inner", inner)
    mode = choice("ramp", "reset")("mode", mode)
    if not callable(rule) and not isinstance(rule, Optimizer):
        raise TypeError(f"rule must be an optimizer, or build one as rule(params, lr=...), got {rule!r}")
    given = rule if isinstance(rule, Optimizer) else None
    problem = Problem(objective, params) if given is None else bind(objective, params, given)
    lrs = np.geomspace(low, high, steps)

    snapshot = Snapshot(problem, given)
    runs = []
    try:
        with bar("range test", replicates * steps, progress) as shown, np.errstate(all="ignore"):
            for k in range(replicates):
                # Other batches for each replicate: later steps, and what the generators draw next.
                first = k * (steps if mode == "ramp" else inner + 1)
                draws = Snapshot(problem, given)
                start = problem.first(first)[0]
                draws.restore()

                def tell(done: int, loss: float, k: int = k) -> None:
                    shown.update(k * steps + done, f"loss {loss:.5g}")

                if mode == "ramp":
                    losses = _ramp(problem, given or rule, lrs, first, tell)
                else:
                    losses = _reset(problem, given or rule, lrs, first, inner, draws, tell)
                runs.append((lrs[: len(losses)], losses, start))
                if k + 1 < replicates:
                    snapshot.restore(generators=False)
    finally:
        snapshot.restore()

    reading = curve.agree([curve.read(*run) for run in runs])
    bounds = (reading.steepest, reading.minimum, reading.suggestion)
    return RangeTest(
        suggestion=reading.suggestion,
        bracket=(min(bounds[0], bounds[2]), max(bounds[1], bounds[2])),
        confidence=reading.confidence,
        flags=reading.flags,
        alternatives=fastai.all_of(runs[0][0], runs[0][1], steps),
        lrs=[run[0] for run in runs],
        losses=[run[1] for run in runs],
        start=runs[0][2],
    )


class _Driver:
    """An optimizer whose rate is set before each step; groups keep their ratios."""

    def __init__(self, problem: Problem, rule: Any, lr: float) -> None:
        self.problem = problem
        self.optimizer: Optimizer = rule if isinstance(rule, Optimizer) else rule(problem.params, lr=lr)
        own = [1.0 if callable(g.lr) else g.lr for g in self.optimizer.groups]
        self.ratios = [x / (max(own) or 1.0) for x in own]

    def step(self, lr: float, grads: Any) -> None:
        for group, ratio in zip(self.optimizer.groups, self.ratios, strict=True):
            group.lr = lr * ratio
        self.optimizer.step(grads)


def _ramp(problem: Problem, rule: Any, lrs: Array, first: int, tell: Callable[[int, float], None]) -> Array:
    driver, losses = _Driver(problem, rule, float(lrs[0])), []
    loss, grads = problem.evaluate(first)
    diverged = curve.Divergence(loss, calm=len(lrs) // 10)
    for k, lr in enumerate(lrs):
        try:
            driver.step(float(lr), grads)
            loss, grads = problem.evaluate(first + k + 1)
        except FloatingPointError:  # an optimizer that refuses gradients that are not finite
            loss = math.nan
        losses.append(loss)
        tell(k + 1, loss)
        if diverged(loss):
            break
    return np.array(losses)


def _reset(
    problem: Problem,
    rule: Any,
    lrs: Array,
    first: int,
    inner: int,
    draws: Snapshot,
    tell: Callable[[int, float], None],
) -> Array:
    losses = []
    for k, lr in enumerate(lrs):
        draws.restore()
        driver = _Driver(problem, rule, float(lr))
        loss, grads = problem.evaluate(first)
        for j in range(1, inner + 1):
            try:
                driver.step(float(lr), grads)
                loss, grads = problem.evaluate(first + j)
            except FloatingPointError:
                loss = math.nan
            if not math.isfinite(loss):
                break
        losses.append(loss)
        tell(k + 1, loss)
        if not math.isfinite(loss):
            break
    return np.array(losses)
