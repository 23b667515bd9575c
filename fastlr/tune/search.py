"""Search for the learning rate, and what else is given a range, by training with each: grid, random or Bayesian."""

from __future__ import annotations

import itertools
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlr import config
from fastlr.buffers import Array
from fastlr.extras import need
from fastlr.hyper import choice, count, positive
from fastlr.storage import Path
from fastlr.training.callbacks import Callback
from fastlr.training.loop import Run, train
from fastlr.training.objective import scalar
from fastlr.training.progress import bar
from fastlr.tune import gaussian
from fastlr.tune.curve import Divergence

if TYPE_CHECKING:
    from concurrent.futures import Future

    from matplotlib.figure import Figure

Factory = Callable[..., Sequence[Any]]
Values = dict[str, Any]

STORAGE = "fastlr-search.db"
_START = 4  # points of the Bayesian search that are spread, one in each quarter of every range
_ORPHANED = 10.0  # seconds after which a running trial that nobody has claimed has lost its process
_TAIL = 0.1  # share of the steps whose mean loss is the result


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
    budget, a search goes on where it was left, also where it was killed: no finished trial is repeated.

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

    Optuna keeps the study; its own tools (dashboards, importances) can open the storage.

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
    axes = {key: _axis(key, given) for key, given in _mapping(space).items()}
    method = choice("bayes", "grid", "random")("method", method)
    budget, jobs, steps = count("budget", budget), count("jobs", jobs), count("steps", steps, least=2)
    seed = count("seed", seed, least=0)
    if jobs > 1:
        _check_picklable(objective_factory)
    optuna = need("optuna", "tune", "search")
    if name is None:
        named = objective_factory if hasattr(objective_factory, "__qualname__") else type(objective_factory)
        name = f"{named.__module__}.{named.__qualname__}"
    identity = {"space": {k: list(a.given) for k, a in axes.items()}, "method": method, "seed": seed, "steps": steps}

    with _quiet(optuna):
        study = _open(optuna, storage, name, _sampler(optuna, axes, method, budget, seed))
        _claim(study, name, identity, storage)
        _retry_orphans(optuna, study)
        done = _finished(optuna, study)
        resumed = len(done)
        if method == "grid":
            budget = min(budget, len(_grid(axes, budget)))
        with bar("search", budget, progress, resumed) as shown:

            def tell(number: int, outcome: Outcome) -> None:
                for key in ("diverged", "raw", "seconds"):
                    study._storage.set_trial_user_attr(_trial_id(study, number), key, getattr(outcome, key))
                study.tell(number, outcome.loss)
                best = study.best_trial
                shown.update(len(_finished(optuna, study)), f"loss {best.value:.5g} with {best.params}")

            distributions = {key: axis.distribution(optuna) for key, axis in axes.items()}
            _work(objective_factory, study, distributions, steps, budget - resumed, jobs, tell, optuna)
        trials = [Trial(t.number, t.params, t.value, t.user_attrs["diverged"]) for t in _finished(optuna, study)]
    best = min(trials, key=lambda t: t.loss)
    return SearchResult(best.values, best.loss, trials, resumed)


# ---- one trial -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """`loss` is finite, `raw` what was measured, as text, since it may not be."""

    loss: float
    raw: str
    diverged: bool
    seconds: float


class _StopDiverged(Callback):
    """Ends a run that has left for good."""

    def __init__(self) -> None:
        self.diverged: Divergence | None = None

    def step(self, run: Run) -> None:
        loss = run.history.loss[-1]
        if self.diverged is None:
            # A quarter of the loss itself: only what is far out is stopped, and no noise is.
            self.diverged = Divergence(loss, calm=0, floor=0.25 * abs(loss))
        elif self.diverged(loss):
            run.stop(f"diverged: the loss was {loss} at step {run.step - 1}")


def evaluate(objective_factory: Factory, values: Values, steps: int) -> Outcome:
    """Trains once. Runs in a worker process where there are several jobs."""
    made = objective_factory(**values)
    if not isinstance(made, Sequence) or len(made) not in (3, 4):
        raise TypeError(
            "objective_factory must return (objective, params, optimizer) or these and validate, "
            f"got {type(made).__name__}"
        )
    objective, params, optimizer, *rest = made
    validate = rest[0] if rest else None
    started = time.perf_counter()
    first = scalar("the loss of validate", validate(params)) if validate else math.nan
    with np.errstate(all="ignore"):
        history = train(
            objective,
            params,
            optimizer,
            steps,
            [_StopDiverged()],
            progress=False,
            validate=validate,
            validate_every=steps,
            interrupted=None,
        )
    start = first if validate else history.loss[0]
    tail = history.loss[-max(1, round(_TAIL * steps)) :]
    raw = history.validation[-1][1] if validate and not history.stopped else float(np.mean(tail))
    scale = max(abs(start), 1e-12)
    worst = start + scale
    diverged = bool(history.stopped) or not math.isfinite(raw)
    loss = worst + scale * (1 - len(history) / steps) if diverged else min(raw, worst)
    return Outcome(loss, repr(raw), diverged, time.perf_counter() - started)


# ---- the study -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Axis:
    given: Sequence[Any]
    log: bool

    def at(self, u: float) -> Any:
        """The value at u in [0, 1]."""
        if not self.log:
            return self.given[min(int(u * len(self.given)), len(self.given) - 1)]
        low, high = map(math.log, self.given)
        return min(max(math.exp(low + (high - low) * u), self.given[0]), self.given[1])

    def of(self, value: Any) -> float:
        """Where in [0, 1] a value lies."""
        if not self.log:
            return (list(self.given).index(value) + 0.5) / len(self.given)
        low, high = map(math.log, self.given)
        return (math.log(value) - low) / (high - low)

    def distribution(self, optuna: Any) -> Any:
        if self.log:
            return optuna.distributions.FloatDistribution(*self.given, log=True)
        return optuna.distributions.CategoricalDistribution(self.given)


def _mapping(space: object) -> Mapping[str, Any]:
    if not isinstance(space, Mapping) or not space:
        raise TypeError(f"space must be a dict of names to bounds or lists, got {space!r}")
    return space


def _axis(name: str, given: Any) -> _Axis:
    if isinstance(given, list) and given:
        for x in given:
            if not isinstance(x, str | int | float | bool | None):
                raise TypeError(f"space[{name!r}]: choices must be numbers, strings, bools or None, got {x!r}")
        return _Axis(given, log=False)
    if not isinstance(given, tuple) or len(given) != 2:
        raise TypeError(f"space[{name!r}] must be (low, high) or a list of choices, got {given!r}")
    low, high = positive(f"space[{name!r}][0]", given[0]), positive(f"space[{name!r}][1]", given[1])
    if low >= high:
        raise ValueError(f"space[{name!r}]: low must be below high, got {given}")
    return _Axis((low, high), log=True)


def _grid(axes: Mapping[str, _Axis], budget: int) -> list[Values]:
    """Every combination, as fine as the budget allows."""
    fixed = math.prod(len(a.given) for a in axes.values() if not a.log)
    ranges = sum(a.log for a in axes.values())
    levels = int((budget / fixed) ** (1 / ranges) + 1e-9) if ranges else 1
    if levels < 1 or fixed > budget:
        raise ValueError(f"budget must be at least {fixed} for this grid, got {budget}")
    places = [
        list(a.given) if not a.log else [a.at(0.5 if levels == 1 else k / (levels - 1)) for k in range(levels)]
        for a in axes.values()
    ]
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*places)]


def _sampler(optuna: Any, axes: Mapping[str, _Axis], method: str, budget: int, seed: int) -> Any:
    """Optuna's interface to `choose`. What is drawn depends on seed, number and finished trials, not on a process."""
    grid = _grid(axes, budget) if method == "grid" else []

    class Sampler(optuna.samplers.BaseSampler):  # type: ignore[misc]
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {key: axis.distribution(optuna) for key, axis in axes.items()}

        def sample_relative(self, study: Any, trial: Any, space: Any) -> Values:
            states = optuna.trial.TrialState
            others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number and t.params]
            taken = [t for t in others if t.state in (states.COMPLETE, states.RUNNING, states.WAITING)]
            if method == "grid":
                used = [t.params for t in taken]
                return next((values for values in grid if values not in used), grid[-1])
            random = np.random.default_rng((seed, trial.number))
            if method == "random":
                u = random.random(len(axes))
            elif len(taken) < _START:
                # A Latin square: each quarter of each range once.
                order = np.random.default_rng(seed).permuted(np.tile(np.arange(_START), (len(axes), 1)), axis=1)
                u = (order[:, len(taken)] + random.random(len(axes))) / _START
            else:
                u = self._propose(taken, states, random)
            return {key: axis.at(float(x)) for (key, axis), x in zip(axes.items(), u, strict=True)}

        def _propose(self, taken: list[Any], states: Any, random: np.random.Generator) -> Array:
            x = np.array([[axis.of(t.params[key]) for key, axis in axes.items()] for t in taken])
            known = [t.value for t in taken if t.state == states.COMPLETE]
            # Those under way count as bad as the worst, so that no two are sent to one place.
            y = np.array([t.value if t.state == states.COMPLETE else max(known, default=0.0) for t in taken])
            return gaussian.propose(x, y, random)

        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            raise NotImplementedError(f"{name} is not in the space")

    return Sampler()


def _open(optuna: Any, storage: Path | None, name: str, sampler: Any) -> Any:
    url = None
    if storage is not None:
        url = os.fspath(storage)
        if "://" not in url:
            directory = os.path.dirname(os.path.abspath(url))
            if not os.path.isdir(directory):
                raise ValueError(f"storage must lie in a directory that exists, got {url!r}; make {directory} first")
            url = f"sqlite:///{os.path.abspath(url)}"
    try:
        return optuna.create_study(storage=url, study_name=name, sampler=sampler, load_if_exists=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"storage {os.fspath(storage or '')!r} cannot be opened: {reason}") from error


def _claim(study: Any, name: str, identity: dict[str, Any], storage: Path | None) -> None:
    found = study.user_attrs.get("fastlr")
    if found is None:
        study.set_user_attr("fastlr", identity)
        return
    for key, wanted in identity.items():
        if found[key] != wanted:
            raise ValueError(
                f"the study {name!r} in {os.fspath(storage or '')!r} was made with {key} {found[key]!r}, "
                f"got {wanted!r}; give another name or storage"
            )


def _finished(optuna: Any, study: Any) -> list[Any]:
    return study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))  # type: ignore[no-any-return]


def _trial_id(study: Any, number: int) -> int:
    return int(study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


def _retry_orphans(optuna: Any, study: Any) -> None:
    """Trials whose process is gone are failed, and their values put back in the queue."""
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        owner = trial.user_attrs.get("owner")
        age = time.time() - trial.datetime_start.timestamp() if trial.datetime_start else math.inf
        if (owner is not None and not _alive(owner)) or (owner is None and age > _ORPHANED):
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            if trial.params:
                study.enqueue_trial(trial.params)


def _me() -> list[Any]:
    return [platform.node(), os.getpid(), _started(os.getpid())]


def _started(pid: int) -> str:
    """When a process started: its number alone may have been given to another since."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _alive(owner: Sequence[Any]) -> bool:
    host, pid, started = owner
    if host != platform.node():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(int(pid)) == str(started)


def _work(
    factory: Factory,
    study: Any,
    distributions: dict[str, Any],
    steps: int,
    todo: int,
    jobs: int,
    tell: Callable[[int, Outcome], None],
    optuna: Any,
) -> None:
    """Asks for values here, trains here or in processes, tells here: the storage has one writer."""

    def ask() -> Any:
        trial = study.ask(distributions)
        trial.set_user_attr("owner", _me())
        return trial

    def fail(number: int) -> None:
        study.tell(number, state=optuna.trial.TrialState.FAIL)

    if jobs == 1:
        for _ in range(todo):
            trial = ask()
            try:
                outcome = evaluate(factory, trial.params, steps)
            except BaseException:
                fail(trial.number)
                raise
            tell(trial.number, outcome)
        return
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
    from multiprocessing import get_context

    threads = max(1, config.info()["processors"] // jobs)
    running: dict[Future[Outcome], int] = {}
    with (
        _one_thread_each(threads),
        ProcessPoolExecutor(jobs, get_context("spawn"), config.set_num_threads, (threads,)) as pool,
    ):
        try:
            while todo or running:
                while todo and len(running) < jobs:
                    trial = ask()
                    running[pool.submit(evaluate, factory, trial.params, steps)] = trial.number
                    todo -= 1
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    outcome = future.result()
                    tell(running.pop(future), outcome)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for number in running.values():
                fail(number)
            raise


@contextmanager
def _one_thread_each(threads: int) -> Iterator[None]:
    """BLAS in the workers takes its share of the processors, unless the user has said otherwise."""
    names = [n for n in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS") if n not in os.environ]
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Optuna says every trial; the bar says enough."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _check_picklable(factory: Factory) -> None:
    import pickle

    try:
        pickle.dumps(factory)
    except Exception as error:
        raise TypeError(
            f"objective_factory must be a function of a module that other processes can import, for jobs > 1: {error}"
        ) from None
