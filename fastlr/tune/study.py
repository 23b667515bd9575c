"""The study that `search` keeps in Optuna's storage: what is drawn next, what has ended, what was cut off."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlr.buffers import Array
from fastlr.extras import need
from fastlr.storage import Path
from fastlr.tune import gaussian, owner
from fastlr.tune.space import Axis, Values, grid

if TYPE_CHECKING:
    from fastlr.tune.trial import Outcome

_START = 4  # points of the Bayesian search that are spread, one in each quarter of every range
_ORPHANED = 10.0  # seconds after which a running trial that nobody has claimed has lost its process


class Study:
    """Optuna's, opened or made.

    Parameters
    ----------
    axes : dict of str to Axis
    method : {"bayes", "grid", "random"}
    budget, seed : int
        As in `search`.
    storage, name
        Where it is, and what it is called there.
    identity : dict
        What a study under this name must have been made with.
    """

    def __init__(
        self,
        axes: Mapping[str, Axis],
        method: str,
        budget: int,
        seed: int,
        storage: Path | None,
        name: str,
        identity: Mapping[str, Any],
    ) -> None:
        self._optuna = optuna = need("optuna", "tune", "search")
        self._states = optuna.trial.TrialState
        self._distributions = {
            key: optuna.distributions.FloatDistribution(*axis.given, log=True)
            if axis.log
            else optuna.distributions.CategoricalDistribution(axis.given)
            for key, axis in axes.items()
        }
        sampler = _sampler(optuna, axes, self._distributions, method, budget, seed)
        with self._quiet():
            self._study = _open(optuna, storage, name, sampler)
            self._claim(name, identity, storage)
            self._retry_orphans()

    def finished(self) -> list[Any]:
        """Optuna's trials that have a loss, by their numbers."""
        return list(self._study.get_trials(deepcopy=False, states=(self._states.COMPLETE,)))

    def ask(self) -> Any:
        """A new trial; ``params`` has its values."""
        with self._quiet():
            trial = self._study.ask(self._distributions)
            trial.set_user_attr("owner", owner.me())
        return trial

    def tell(self, trial: Any, outcome: Outcome) -> None:
        """Puts down how a trial has ended; the loss comes last, for that is what makes it a finished one."""
        with self._quiet():
            for key in ("diverged", "raw", "seconds"):
                trial.set_user_attr(key, getattr(outcome, key))
            self._study.tell(trial, outcome.loss)

    def fail(self, trial: Any) -> None:
        """Puts down that a trial has no loss."""
        with self._quiet():
            self._study.tell(trial, state=self._states.FAIL)

    def _claim(self, name: str, identity: Mapping[str, Any], storage: Path | None) -> None:
        found = self._study.user_attrs.get("fastlr")
        if found is None:
            self._study.set_user_attr("fastlr", dict(identity))
            return
        for key, wanted in identity.items():
            if found.get(key) != wanted:
                raise ValueError(
                    f"the study {name!r} in {os.fspath(storage or '')!r} was made with {key} {found.get(key)!r}, "
                    f"got {wanted!r}; give another name or storage"
                )

    def _retry_orphans(self) -> None:
        """Trials whose process is gone are failed, and their values put back in the queue."""
        for trial in self._study.get_trials(deepcopy=False, states=(self._states.RUNNING,)):
            who = trial.user_attrs.get("owner")
            age = time.time() - trial.datetime_start.timestamp() if trial.datetime_start else math.inf
            gone = age > _ORPHANED if who is None else not owner.alive(who)
            if gone:
                self._study.tell(trial.number, state=self._states.FAIL)
                if trial.params:
                    self._study.enqueue_trial(trial.params)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Optuna says every trial; the bar says enough."""
        logging = self._optuna.logging
        before = logging.get_verbosity()
        logging.set_verbosity(logging.WARNING)
        try:
            yield
        finally:
            logging.set_verbosity(before)


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


def _sampler(
    optuna: Any, axes: Mapping[str, Axis], distributions: Mapping[str, Any], method: str, budget: int, seed: int
) -> Any:
    """Optuna's interface to what is drawn, which depends on seed, number and finished trials, not on a process."""
    combinations = grid(axes, budget) if method == "grid" else []
    states = optuna.trial.TrialState

    class Sampler(optuna.samplers.BaseSampler):  # type: ignore[misc]
        def infer_relative_search_space(self, study: Any, trial: Any) -> Mapping[str, Any]:
            return distributions

        def sample_relative(self, study: Any, trial: Any, space: Any) -> Values:
            others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number and t.params]
            taken = [t for t in others if t.state in (states.COMPLETE, states.RUNNING, states.WAITING)]
            if method == "grid":
                used = [t.params for t in taken]
                return next((values for values in combinations if values not in used), combinations[-1])
            random = np.random.default_rng((seed, trial.number))
            if method == "random":
                u = random.random(len(axes))
            elif len(taken) < _START:
                # A Latin square: each quarter of each range once.
                order = np.random.default_rng(seed).permuted(np.tile(np.arange(_START), (len(axes), 1)), axis=1)
                u = (order[:, len(taken)] + random.random(len(axes))) / _START
            else:
                u = self._propose(taken, random)
            return {key: axis.at(float(x)) for (key, axis), x in zip(axes.items(), u, strict=True)}

        def _propose(self, taken: list[Any], random: np.random.Generator) -> Array:
            x = np.array([[axis.of(t.params[key]) for key, axis in axes.items()] for t in taken])
            known = [t.value for t in taken if t.state == states.COMPLETE]
            # Those under way count as bad as the worst, so that no two are sent to one place.
            y = np.array([t.value if t.state == states.COMPLETE else max(known, default=0.0) for t in taken])
            return gaussian.propose(x, y, random)

        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            # Optuna's base class demands this, and asks it for names that are not among `distributions`: none.
            raise KeyError(name)

    return Sampler()
