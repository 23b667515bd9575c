"""`train`, the loop: objective, optimizer, callbacks, and checkpoints from which it goes on bit for bit."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastlr._core import Report
from fastlr.buffers import Array
from fastlr.groups import are_groups
from fastlr.hyper import count, positive
from fastlr.optimizer import Optimizer
from fastlr.storage import Path, expect, read, write
from fastlr.structure import structure_of
from fastlr.training.callbacks import Callback, Checkpoint
from fastlr.training.history import History
from fastlr.training.objective import Objective, Problem, norm, random_state, restore_random, scalar
from fastlr.training.progress import bar
from fastlr.training.stepsize import StepReport, StepRule

FORMAT = 1
INTERRUPTED = "fastlr-interrupted.safetensors"


class Run:
    """A training in progress, as callbacks see it.

    Attributes
    ----------
    problem : Problem
        Objective and parameters.
    optimizer : Optimizer
    history : History
    step : int
        Updates made, in this run and those that it resumes.
    steps : int
        Updates to be made.
    before : list of array
        The parameters before the last update.
    validates : bool
        Whether there is a validation loss.
    """

    def __init__(
        self, problem: Problem, optimizer: Optimizer | StepRule, steps: int, validates: bool, callbacks: Any
    ) -> None:
        self.problem, self.optimizer, self.steps, self.validates = problem, optimizer, steps, validates
        self.callbacks: Sequence[Callback] = callbacks
        self.history = History()
        self.step = 0
        self.before: list[Array] = [a.copy() for a in problem.arrays]

    def stop(self, reason: str) -> None:
        """Makes the step that has just been made the last."""
        self.history.stopped = self.history.stopped or reason

    def save(self, path: Path) -> None:
        """Writes a checkpoint."""
        write(
            path,
            {
                "format": FORMAT,
                "step": self.step,
                "params": self._named(self.problem.arrays),
                "optimizer": self.optimizer.state_dict(),
                "history": self.history.state_dict(),
                "random": random_state(self.problem.objective),
                "callbacks": [{"type": type(c).__name__, "state": c.state_dict()} for c in self.callbacks],
            },
        )

    def load(self, path: Path) -> None:
        """Takes over a checkpoint. What does not fit is refused before parameters or optimizer have changed."""
        saved = read(path)
        expect("checkpoint", set(saved), {"format", "step", "params", "optimizer", "history", "random", "callbacks"})
        expect("checkpoint['format']", saved["format"], FORMAT)
        places = self._named(self.problem.arrays)
        expect("checkpoint['params']: names", set(saved["params"]), set(places))
        for name, place in places.items():
            expect(f"checkpoint['params'][{name!r}]: dtype", saved["params"][name].dtype, place.dtype)
            expect(f"checkpoint['params'][{name!r}]: shape", saved["params"][name].shape, place.shape)
        kinds = [type(c).__name__ for c in self.callbacks]
        expect("checkpoint['callbacks']: types", [c["type"] for c in saved["callbacks"]], kinds)
        if saved["step"] > self.steps:
            raise ValueError(f"steps must be at least the {saved['step']} of the checkpoint, got {self.steps}")
        history = History()
        history.load_state_dict(saved["history"])
        history.stopped = ""
        self.optimizer.load_state_dict(saved["optimizer"])
        for name, place in places.items():
            place[...] = saved["params"][name]
        for callback, entry in zip(self.callbacks, saved["callbacks"], strict=True):
            callback.load_state_dict(entry["state"])
        restore_random(self.problem.objective, saved["random"])
        self.history, self.step = history, saved["step"]

    def _named(self, arrays: Sequence[Array]) -> dict[str, Array]:
        return self.problem.structure.named(arrays)


def train(
    objective: Objective,
    params: Any,
    optimizer: Optimizer | StepRule,
    steps: int,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    *,
    clip_norm: float | None = None,
    validate: Callable[[Any], float] | None = None,
    validate_every: int | None = None,
    resume: Path | None = None,
    interrupted: Path | None = INTERRUPTED,
) -> History:
    """Makes `steps` updates and records each.

    Parameters
    ----------
    objective : callable
        ``objective(params, step) -> (loss, grads)``: a number, and gradients in the structure of the parameters. One
        that depends on the step alone is resumed bit for bit; one that draws from a generator has it as ``rng``, or has
        ``state_dict`` and ``load_state_dict``.
    params : array, list or dict of arrays, or FlatBuffer
        What the objective is called with; the optimizer updates it.
    optimizer : Optimizer
        Over `params`.
    steps : int
        Updates to make, those of a resumed run included; ≥ 1.
    callbacks : sequence of Callback
        Called in their order after each step; see `fastlr.callbacks`.
    progress : bool, default True
        A bar on stderr, if that is a terminal.
    clip_norm : float, optional
        As in `Optimizer.step`.
    validate : callable, optional
        ``validate(params) -> loss`` on data that is not trained on.
    validate_every : int, optional
        Steps between two validations; a twentieth of `steps` unless given. The last step is always validated.
    resume : path, optional
        A checkpoint to go on from: the result has the bits of a run that was never stopped.
    interrupted : path, optional
        Where Ctrl-C leaves a checkpoint if no `Checkpoint` callback says so; None for nowhere. The step under way is
        completed first; a second Ctrl-C does not wait for it.

    Returns
    -------
    History
        Ends early, and says so in ``stopped``, where a callback asks for it or the loss is no longer finite.

    Notes
    -----
    The norms in the history cost two more passes over parameters and gradients and a copy of the parameters.

    Examples
    --------
    >>> import fastlr, numpy as np
    >>> w = np.array([5.0])
    >>> history = fastlr.train(lambda w, step: (float(w[0] ** 2), 2 * w), w, fastlr.SGD(w, lr=0.25), steps=3)
    >>> history.loss, w
    ([25.0, 6.25, 1.5625], array([0.625]))
    """
    steps = count("steps", steps)
    for k, callback in enumerate(callbacks):
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks[{k}] must be a fastlr.callbacks.Callback, got {callback!r}")
    if validate is not None and not callable(validate):
        raise TypeError(f"validate must be callable as validate(params) -> loss, got {validate!r}")
    every = max(1, steps // 20) if validate_every is None else count("validate_every", validate_every)
    if clip_norm is not None:
        positive("clip_norm", clip_norm)
    run = Run(bind(objective, params, optimizer), optimizer, steps, validate is not None, list(callbacks))
    if resume is not None:
        run.load(resume)

    with _deferred_interrupt() as signals, bar("training", steps, progress, run.step) as shown:
        try:
            if run.step < steps:
                found = run.problem.first(run.step)
                for callback in run.callbacks:
                    callback.start(run)
                started = time.perf_counter() - (run.history.seconds[-1] if run.history.seconds else 0.0)
            while run.step < steps:
                _step(run, *found, clip_norm, started)
                if validate is not None and (run.step % every == 0 or run.step == steps):
                    x = scalar("the loss of validate", validate(run.problem.params))
                    run.history.validation.append((run.step, x))
                for callback in run.callbacks:
                    callback.step(run)
                shown.update(run.step, f"loss {run.history.loss[-1]:.5g}")
                if signals:
                    _leave_checkpoint(run, interrupted)
                    raise KeyboardInterrupt
                if run.history.stopped:
                    break
                if run.step < steps:
                    found = run.problem.evaluate(run.step)
            for callback in run.callbacks:
                callback.end(run)
        finally:
            for callback in run.callbacks:
                callback.close()
    return run.history


def bind(objective: Objective, params: Any, optimizer: Optimizer | StepRule) -> Problem:
    """The problem, with the optimizer's view of the parameters, if it is of the same memory."""
    if not callable(getattr(optimizer, "step", None)) or not hasattr(optimizer, "_structure"):
        raise TypeError(f"optimizer must be a fastlr optimizer over params, got {optimizer!r}")
    problem = Problem(objective, params, optimizer._structure)
    if not are_groups(params):
        ours, theirs = ([a.ctypes.data for a in s.arrays] for s in (structure_of(params), optimizer._structure))
        if sorted(ours) != sorted(theirs):
            raise ValueError("optimizer must update params, got one over other arrays; build it with these params")
    return problem


def _step(run: Run, loss: float, grads: Any, clip_norm: float | None, started: float) -> None:
    """One update and its entry in the history."""
    problem, optimizer = run.problem, run.optimizer
    for before, a in zip(run.before, problem.arrays, strict=True):
        np.copyto(before, a)
    grad_norm = norm(problem.entries(grads))
    report: Report | StepReport
    if isinstance(optimizer, StepRule):
        at = run.step
        report = optimizer.step(grads, loss=loss, evaluate=lambda: problem.evaluate(at), clip_norm=clip_norm)
    else:
        report = optimizer.step(grads, clip_norm=clip_norm)
    size = norm(run.before)
    with np.errstate(all="ignore"):  # a run that diverges
        moved = norm([a - before for a, before in zip(problem.arrays, run.before, strict=True)])
    run.history.append(
        loss=loss,
        lr=report.lr,
        grad_norm=grad_norm,
        update_ratio=moved / size if size else math.nan,
        skipped=report.skipped,
        seconds=time.perf_counter() - started,
    )
    run.step += 1
    if not math.isfinite(loss) and not report.skipped:
        run.stop(f"diverged: the loss was {loss} at step {run.step - 1}")


@contextmanager
def _deferred_interrupt() -> Iterator[list[int]]:
    """Ctrl-C fills the list instead of raising; the second raises. Only where Python would handle it itself."""
    signals: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield signals
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield signals
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave_checkpoint(run: Run, path: Path | None) -> None:
    """Where the callbacks put theirs, else at `path`; says so."""
    written = [callback.write(run) for callback in run.callbacks if isinstance(callback, Checkpoint)]
    if not written and path is not None:
        run.save(path)
        written = [os.fspath(path)]
    for name in written[-1:]:
        print(f"\ninterrupted after step {run.step}; go on with resume={name!r}", file=sys.stderr)
