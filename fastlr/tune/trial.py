"""One trial of `search`: a training, and the loss that it counts with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlr.training.callbacks import Callback
from fastlr.training.history import History
from fastlr.training.loop import Run, train
from fastlr.training.objective import scalar
from fastlr.tune.curve import Divergence
from fastlr.tune.space import Values

Factory = Callable[..., Sequence[Any]]

_TAIL = 0.1  # share of the steps whose mean loss is the result


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
        self.history = History()
        self.diverged: Divergence | None = None

    def start(self, run: Run) -> None:
        self.history = run.history

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
    watch = _StopDiverged()
    try:
        with np.errstate(all="ignore"):
            train(
                objective,
                params,
                optimizer,
                steps,
                [watch],
                progress=False,
                validate=validate,
                validate_every=steps,
                interrupted=None,
            )
    except FloatingPointError as error:  # an optimizer that refuses gradients that are not finite
        if not len(watch.history):
            raise
        watch.history.stopped = f"diverged: {error}"
    history = watch.history
    start = first if validate else history.loss[0]
    tail = history.loss[-max(1, round(_TAIL * steps)) :]
    raw = history.validation[-1][1] if validate and not history.stopped else float(np.mean(tail))
    scale = max(abs(start), 1e-12)
    worst = start + scale
    diverged = bool(history.stopped) or not math.isfinite(raw)
    loss = worst + scale * (1 - len(history) / steps) if diverged else min(raw, worst)
    return Outcome(loss, repr(raw), diverged, time.perf_counter() - started)
