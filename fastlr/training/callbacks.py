"""What `train` can do beside the steps: stop early, write checkpoints, lower the rate, log."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastlr.hyper import choice, count, flag, nonnegative
from fastlr.storage import Path, expect

if TYPE_CHECKING:
    from fastlr.training.loop import Run

__all__ = ["Callback", "Checkpoint", "EarlyStopping", "MLflow", "Plateau", "TensorBoard"]


class Callback:
    """What all callbacks share: every method may be overridden, and does nothing unless it is.

    A callback that remembers something between steps gives it in `state_dict`, so that it can be resumed.
    """

    def start(self, run: Run) -> None:
        """Before the first step, also of a resumed run."""

    def step(self, run: Run) -> None:
        """After each step; ``run.history`` has its entry. ``run.stop(reason)`` makes it the last."""

    def end(self, run: Run) -> None:
        """After the last step; not after an interrupt or an error."""

    def close(self) -> None:
        """At the very end, whatever happened."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        expect(f"the state of {type(self).__name__}", dict(saved), {})


class _Watch(Callback):
    """The part that early stopping and plateaus share: which loss is watched."""

    def __init__(self, monitor: str | None) -> None:
        self.monitor = monitor if monitor is None else choice("loss", "validation")("monitor", monitor)

    def start(self, run: Run) -> None:
        if self.monitor is None:
            self.monitor = "validation" if run.validates else "loss"
        if self.monitor == "validation" and not run.validates:
            raise ValueError("monitor='validation' needs validate=: a function of the parameters that returns a loss")

    def seen(self, run: Run) -> float | None:
        """What this step has to say; None if it is not validated."""
        if self.monitor == "loss":
            return run.history.loss[-1]
        if run.history.validation and run.history.validation[-1][0] == run.step:
            return run.history.validation[-1][1]
        return None


class EarlyStopping(_Watch):
    """Stops when the loss has not improved for a while, and puts back the best parameters.

    Parameters
    ----------
    patience : int, default 10
        Stop at this many in a row without an improvement: steps, or validations where those are watched.
    min_delta : float, default 0
        An improvement is more than this below the best, ≥ 0.
    monitor : {"loss", "validation"}, optional
        Which; the validation loss if the run has one.
    restore : bool, default True
        Whether the run ends with the parameters that had the best loss, also when it was not stopped. The optimizer's
        state stays that of the last step.

    Notes
    -----
    A loss that is not a number counts as no improvement. Keras: the same with ``restore_best_weights=True``.
    """

    def __init__(
        self, patience: int = 10, min_delta: float = 0.0, monitor: str | None = None, restore: bool = True
    ) -> None:
        super().__init__(monitor)
        self.patience = count("patience", patience)
        self.min_delta = nonnegative("min_delta", min_delta)
        self.restore = flag("restore", restore)
        self.best, self.waited = math.inf, 0
        self._arrays: list[Any] = []

    def step(self, run: Run) -> None:
        x = self.seen(run)
        if x is None:
            return
        if x < self.best - self.min_delta:  # which what is not a number never is
            self.best, self.waited = x, 0
            if self.restore:
                # The loss of a step is that of the parameters before it.
                self._arrays = [a.copy() for a in (run.before if self.monitor == "loss" else run.problem.arrays)]
            return
        self.waited += 1
        if self.waited >= self.patience:
            unit = "validations" if self.monitor == "validation" else "steps"
            run.stop(f"early: no improvement on {self.best:.6g} in {self.waited} {unit}")

    def end(self, run: Run) -> None:
        for a, best in zip(run.problem.arrays, self._arrays, strict=False):
            a[...] = best

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "arrays": [a.copy() for a in self._arrays]}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        expect("the state of EarlyStopping", set(saved), {"best", "waited", "arrays"})
        self.best, self.waited, self._arrays = float(saved["best"]), saved["waited"], list(saved["arrays"])


class Plateau(_Watch):
    """Lowers the rate when the loss has not improved for a while, as `fastlr.schedules.Plateau` says.

    Parameters
    ----------
    monitor : {"loss", "validation"}, optional
        Which; the validation loss if the run has one.
    **options
        Those of `fastlr.schedules.Plateau`: factor, patience, threshold and so on. Its scale multiplies the
        ``lr_scale`` of every group, so it works beside a schedule.
    """

    def __init__(self, *, monitor: str | None = None, **options: Any) -> None:
        from fastlr.schedules import Plateau as Rule

        super().__init__(monitor)
        self.rule = Rule(**options)
        self.state = self.rule.start

    def step(self, run: Run) -> None:
        x = self.seen(run)
        if x is None:
            return
        before, self.state = self.state, self.rule.step(self.state, x)
        if self.state.scale != before.scale:
            for group in run.optimizer.groups:
                group.lr_scale = group.lr_scale * (self.state.scale / before.scale)

    def state_dict(self) -> dict[str, Any]:
        return self.state._asdict()

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        expect("the state of Plateau", set(saved), set(self.state._fields))
        self.state = self.state._replace(**saved)


class Checkpoint(Callback):
    """Writes everything that `train` needs to go on, bit for bit, to a safetensors file.

    Parameters
    ----------
    path : path
        Replaced atomically each time; "{step}" in it is the number of steps made, which keeps them all.
    every : int, default 1000
        Steps between two. The last step is always saved, and so is the step at which Ctrl-C arrives.

    Notes
    -----
    Continue with ``train(..., resume=path)``. Place it last, so that it sees what the others decided.
    """

    def __init__(self, path: Path, every: int = 1000) -> None:
        self.path, self.every = os.fspath(path), count("every", every)
        directory = os.path.dirname(os.path.abspath(self.path))
        if not os.path.isdir(directory):
            raise ValueError(f"path must lie in a directory that exists, got {self.path!r}; make {directory} first")

    def step(self, run: Run) -> None:
        if run.step % self.every == 0 or run.step == run.steps or run.history.stopped:
            self.write(run)

    def write(self, run: Run) -> str:
        path = self.path.replace("{step}", str(run.step))
        run.save(path)
        return path


class TensorBoard(Callback):
    """Writes the columns of the history as scalars for TensorBoard.

    Parameters
    ----------
    directory : path
        Of the event files.
    every : int, default 1
        Steps between two entries.
    """

    def __init__(self, directory: Path, every: int = 1) -> None:
        from fastlr.extras import need

        self._writer = need("tensorboard.summary", "loggers", "the TensorBoard callback").Writer(os.fspath(directory))
        self.every = count("every", every)

    def step(self, run: Run) -> None:
        for name, x in scalars(run, self.every):
            self._writer.add_scalar(name, x, run.step)

    def close(self) -> None:
        self._writer.close()


class MLflow(Callback):
    """Logs the columns of the history as metrics to MLflow.

    To the run that is active, or else to a new one, which is ended with the training.

    Parameters
    ----------
    every : int, default 1
        Steps between two entries.
    **run
        Arguments of ``mlflow.start_run`` for a new one: ``run_name``, ``experiment_id``, ...
    """

    def __init__(self, every: int = 1, **run: Any) -> None:
        from fastlr.extras import need

        self._mlflow = need("mlflow", "loggers", "the MLflow callback")
        self.every, self._run, self._ours = count("every", every), run, False

    def start(self, run: Run) -> None:
        if self._mlflow.active_run() is None:
            self._mlflow.start_run(**self._run)
            self._ours = True

    def step(self, run: Run) -> None:
        if found := dict(scalars(run, self.every)):
            self._mlflow.log_metrics(found, step=run.step)

    def close(self) -> None:
        if self._ours:
            self._mlflow.end_run()


def scalars(run: Run, every: int) -> list[tuple[str, float]]:
    """What a logger writes after this step: the numbers among the columns, and the validation loss."""
    history, found = run.history, []
    if run.step % every == 0 or run.step == run.steps:
        found = [(c, float(getattr(history, c)[-1])) for c in ("loss", "lr", "grad_norm", "update_ratio", "skipped")]
    if history.validation and history.validation[-1][0] == run.step:
        found.append(("validation", history.validation[-1][1]))
    return found
