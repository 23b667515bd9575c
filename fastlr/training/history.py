"""`History`: what a run recorded, step by step."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlr.storage import Path, expect

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1
COLUMNS = ("loss", "lr", "grad_norm", "update_ratio", "skipped", "seconds")


@dataclass
class History:
    """A run of `train`: one entry a step in each of the columns, whose index is the 0-based step.

    Attributes
    ----------
    loss : list of float
        What the objective returned before the update.
    lr : list of float
        The rate of the update, of the first group.
    grad_norm : list of float
        ‖g‖₂ over all gradients, before clipping.
    update_ratio : list of float
        ‖Δp‖₂ / ‖p‖₂ of the update; nan where the parameters were all zero. About 1e-3 is usual.
    skipped : list of bool
        Whether the optimizer left the step out, because the gradients were not finite.
    seconds : list of float
        Time since the start, pauses between a checkpoint and its resumption left out.
    validation : list of (int, float)
        Steps made, and the validation loss after them.
    stopped : str
        Why the run ended before its last step; empty if it did not.

    Examples
    --------
    >>> history = History()
    >>> history.append(loss=2.0, lr=0.1, grad_norm=1.0, update_ratio=1e-3, skipped=False, seconds=0.5)
    >>> len(history), history.loss
    (1, [2.0])
    """

    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    update_ratio: list[float] = field(default_factory=list)
    skipped: list[bool] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    stopped: str = ""

    def append(
        self, *, loss: float, lr: float, grad_norm: float, update_ratio: float, skipped: bool, seconds: float
    ) -> None:
        for column, x in zip(COLUMNS, (loss, lr, grad_norm, update_ratio, skipped, seconds), strict=True):
            getattr(self, column).append(x)

    def __len__(self) -> int:
        return len(self.loss)

    # ---- files ------------------------------------------------------------------------------------------------------

    def to_csv(self, path: Path) -> None:
        """A line a step: step, the columns, and the validation loss after the step where there is one."""
        validation = dict(self.validation)
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("step", *COLUMNS, "validation"))
            for k in range(len(self)):
                row = [getattr(self, column)[k] for column in COLUMNS]
                writer.writerow((k, *(int(x) if isinstance(x, bool) else x for x in row), validation.get(k + 1, "")))

    def to_json(self, path: Path) -> None:
        """Everything; numbers that JSON has no word for, as strings ("nan", "inf", "-inf")."""
        content = {
            "format": FORMAT,
            **{column: [_number(x) for x in getattr(self, column)] for column in COLUMNS},
            "validation": [[k, _number(x)] for k, x in self.validation],
            "stopped": self.stopped,
        }
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file, allow_nan=False)

    @classmethod
    def from_json(cls, path: Path) -> History:
        """What `to_json` wrote, every bit of it."""
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        expect("the file's keys", set(content), {"format", *COLUMNS, "validation", "stopped"})
        expect("the file's format", content["format"], FORMAT)
        history = cls(
            skipped=content["skipped"],
            validation=[(k, float(x)) for k, x in content["validation"]],
            stopped=content["stopped"],
        )
        for column in COLUMNS:
            if column != "skipped":
                getattr(history, column).extend(map(float, content[column]))
        return history

    def state_dict(self) -> dict[str, Any]:
        """Everything as arrays, for a checkpoint."""
        return {
            "format": FORMAT,
            **{column: np.array(getattr(self, column), bool if column == "skipped" else float) for column in COLUMNS},
            "validation": np.array(self.validation, float).reshape(-1, 2),
            "stopped": self.stopped,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        expect("history", set(saved), {"format", *COLUMNS, "validation", "stopped"})
        expect("history['format']", saved["format"], FORMAT)
        for column in COLUMNS:
            setattr(self, column, saved[column].tolist())
        self.validation = [(int(k), x) for k, x in saved["validation"].tolist()]
        self.stopped = saved["stopped"]

    # ---- pictures ---------------------------------------------------------------------------------------------------

    def plot(self, path: Path | None = None) -> Figure:
        """Loss, learning rate and update ratio over the steps, as a matplotlib figure; written to `path` if given."""
        from fastlr import plots

        figure, (loss, rate, ratio) = plots.panels(3)
        steps = range(len(self))
        loss.plot(steps, self.loss, color=plots.BLUE, linewidth=1.2, label="training")
        if self.validation:
            where, found = zip(*self.validation, strict=True)
            loss.plot(where, found, color=plots.RED, linewidth=1.6, marker=".", label="validation")
            loss.legend(frameon=False)
        rate.plot(steps, self.lr, color=plots.GREEN)
        ratio.plot(steps, self.update_ratio, color=plots.ORANGE, linewidth=1.2)
        for ax, values in ((loss, self.loss), (rate, self.lr), (ratio, self.update_ratio)):
            finite = [x for x in values if math.isfinite(x)]
            if finite and min(finite) > 0:
                ax.set_yscale("log")
        plots.label(loss, "loss", "step")
        plots.label(rate, "learning rate", "step")
        plots.label(ratio, "update / parameter", "step")
        return plots.finish(figure, path)


def _number(x: float) -> float | str:
    return x if math.isfinite(x) else repr(x)
