"""Search for the learning rate, and what else is given a range, by training with each: grid, random or Bayesian."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastlr.hyper import choice, count
from fastlr.storage import Path
from fastlr.training.progress import bar
from fastlr.tune.jobs import check_importable, in_turn, side_by_side
from fastlr.tune.space import Values, axes, grid
from fastlr.tune.study import Study
from fastlr.tune.trial import Factory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STORAGE = "fastlr-search.db"


@dataclass(frozen=True)
class Trial:
    """One training: its values, the loss it ended with, and whether it diverged; then the loss is a penalty."""

    number: int
    values: Values
    loss: float
    diverged: bool


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    best : dict of str to value
        The values of the best trial.
    loss : float
        Its loss.
    trials : list of Trial
        All that were finished, in the order of their numbers.
    resumed : int
        How many of them were in the storage before.
    """

    best: Values
    loss: float
    trials: list[Trial] = field(repr=False)
    resumed: int

    def plot(self, path: Path | None = None, name: str = "lr") -> Figure:
        """Loss against the value called `name`, as a matplotlib figure; written to `path` if given."""
        from fastlr import plots

        figure, (ax,) = plots.panels(1, size=(6.4, 4.2))
        for diverged, colour, marker, label in (
            (False, plots.BLUE, "o", "trained"),
            (True, plots.RED, "x", "diverged"),
        ):
            some = [t for t in self.trials if t.diverged == diverged]
            if some:
                ax.plot([t.values[name] for t in some], [t.loss for t in some], marker, color=colour, label=label)
                for t in some:
                    ax.annotate(str(t.number), (t.values[name], t.loss), (4, 4), textcoords="offset points", fontsize=7)
        ax.axvline(self.best[name], color=plots.GREEN, label=f"best: {self.best[name]:.3g}")
        ax.set_xscale("log")
        ax.legend(frameon=False)
        plots.label(ax, "search: loss at the end, and the trial's number", name, "loss")
        return plots.finish(figure, path)


def search(
    objective_factory: Factory,
    space: Mapping[str, Any],
    method: str = "bayes",
    budget: int = 12,
    storage: Path | None = STORAGE,
    jobs: int = 1,
    *,
    steps: int = 200,
    seed: int = 0,
    name: str | None = None,
    progress: bool = True,
) -> SearchResult:
    """Trains with values from `space`, and returns the best.

    Every trial is in the storage as soon as it has ended. Called again with the same arguments, or with a larger
    budget, a search goes on where it was left, also where it was killed: no finished trial is repeated. A grid is as
    fine as its budget, which therefore stays.

    Parameters
    ----------
    objective_factory : callable
        Called with the values of a trial as keywords; returns ``(objective, params, optimizer)``, all new, and maybe a
        fourth, ``validate(params) -> loss``. With `jobs` it must be importable: a function of a module.
    space : dict of str to (float, float) or list
        Bounds of what is drawn evenly in its logarithm, 0 < low < high, or a list of values to choose from.
    method : {"bayes", "grid", "random"}, default "bayes"
        "bayes": four spread trials, then each where a Gaussian process over the logarithms expects the most. "grid":
        the same number of values in each range, in order, as many as the budget allows. "random": drawn independently.
    budget : int, default 12
        Trials, those found in the storage included.
    storage : path or Optuna URL, optional
        An SQLite file unless it is a URL; None keeps it in memory.
    jobs : int, default 1
        Trials side by side, each in a process of its own.
    steps : int, default 200
        Of each training.
    seed : int, default 0
        Of what is drawn.
    name : str, optional
        The study in the storage; the factory's name unless given.

    Returns
    -------
    SearchResult
        The loss of a trial is the mean over its last tenth of steps, or its last validation loss.

    Notes
    -----
    A trial that diverges is stopped (a loss that is not finite, or far above the start three times in a row), and
    counts with a loss above the start, the sooner the higher. It is bad data and not missing data: to a search that
    left it out, the region would look unexplored. Trials are not compared while they run, since small rates and
    schedules that gain in their last phase would lose by it.

    Optuna keeps the study; its own tools (dashboards, importances) can open the storage. What is drawn is not left to
    its samplers: the first ten of TPE, its default, are random (``python -m bench.search`` compares them).

    Examples
    --------
    >>> import fastlr, numpy as np
    >>> def factory(lr):
    ...     w = np.array([5.0])
    ...     return lambda w, step: (w[0] ** 2, 2 * w), w, fastlr.SGD(w, lr=lr)
    >>> found = fastlr.tune.search(factory, {"lr": (1e-4, 10.0)}, budget=8, steps=20, storage=None)
    >>> bool(0.1 < found.best["lr"] < 1)
    True
    """
    if not callable(objective_factory):
        raise TypeError(f"objective_factory must be callable, got {objective_factory!r}")
    places = axes(space)
    method = choice("bayes", "grid", "random")("method", method)
    budget, jobs, steps = count("budget", budget), count("jobs", jobs), count("steps", steps, least=2)
    seed = count("seed", seed, least=0)
    if jobs > 1:
        check_importable(objective_factory)
    if name is None:
        named = objective_factory if hasattr(objective_factory, "__qualname__") else type(objective_factory)
        name = f"{named.__module__}.{named.__qualname__}"
    identity = {"space": {k: list(a.given) for k, a in places.items()}, "method": method, "seed": seed, "steps": steps}
    if method == "grid":
        identity["budget"] = budget = len(grid(places, budget))

    study = Study(places, method, budget, seed, storage, name, identity)
    resumed = len(study.finished())
    with bar("search", budget, progress, resumed) as shown:

        def told() -> None:
            done = study.finished()
            best = min(done, key=lambda t: t.value)
            shown.update(len(done), f"loss {best.value:.5g} with {best.params}")

        if jobs == 1:
            in_turn(objective_factory, study, steps, budget - resumed, told)
        else:
            side_by_side(objective_factory, study, steps, budget - resumed, told, jobs)
    trials = [Trial(t.number, t.params, t.value, t.user_attrs["diverged"]) for t in study.finished()]
    best = min(trials, key=lambda t: t.loss)
    return SearchResult(best.values, best.loss, trials, resumed)
