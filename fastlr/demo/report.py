"""What the demo prints: live bars and a drawn table on a terminal, plain lines anywhere else."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from fastlr.demo.training import History

if TYPE_CHECKING:
    from typing_extensions import Self

HEADER = ("rule", "test accuracy", "test loss", "steps/s", "ns/param", "NumPy ns/param", "ratio")


class Report(ABC):
    """Where progress and results go. A context: progress is shown inside, tables after it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def say(self, text: str) -> None:
        print(text, flush=True)

    @abstractmethod
    def start(self, name: str, epochs: int) -> None:
        """Training with the rule `name` begins."""

    @abstractmethod
    def epoch(self, history: History) -> None:
        """Another epoch is over."""

    @abstractmethod
    def finish(self, history: History) -> None:
        """Training with the rule is over."""

    @abstractmethod
    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """The results, under `HEADER`."""


class Lines(Report):
    """Plain text without control codes, for pipes and files."""

    def start(self, name: str, epochs: int) -> None:
        self._name = name
        self.say(f"{name}: training for {epochs} epochs")

    def epoch(self, history: History) -> None:
        pass

    def finish(self, history: History) -> None:
        self.say(f"{self._name}: {_result(history)}, {history.seconds:.2f} s")

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
        for row in (HEADER, ["-" * width for width in widths], *rows):
            cells = [
                cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            self.say("  ".join(cells))


class Terminal(Report):
    """Bars that move, through rich."""

    def __init__(self) -> None:
        self._console = Console()
        # Drawn after each epoch and not by a thread of rich's, which would take time from what is being timed.
        self._progress = Progress(
            TextColumn("{task.description:8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs  {task.fields[result]}"),
            console=self._console,
            auto_refresh=False,
        )
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def start(self, name: str, epochs: int) -> None:
        self._task = self._progress.add_task(name, total=epochs, result="")
        self._progress.refresh()

    def epoch(self, history: History) -> None:
        self._progress.update(self._task, completed=len(history.accuracy), result=_result(history))
        self._progress.refresh()

    def finish(self, history: History) -> None:
        self.epoch(history)

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        table = Table(header_style="bold")
        for k, title in enumerate(HEADER):
            table.add_column(title, justify="right" if k else "left")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)


def choose() -> Report:
    """Asks the stream itself: rich would believe an environment variable that claims a terminal (FORCE_COLOR)."""
    dumb = os.environ.get("TERM", "").lower() in ("", "dumb", "unknown")
    return Terminal() if sys.stdout.isatty() and not dumb else Lines()


def _result(history: History) -> str:
    return f"{history.accuracy[-1]:.1%} of test digits right, loss {history.test_loss[-1]:.3f}"
