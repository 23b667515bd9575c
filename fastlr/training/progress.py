"""A bar on the terminal: rich's where it is installed, a line at each tenth where it is not, nothing in a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

_INTERVAL = 0.1  # seconds between two drawings


class Bar(Protocol):
    def update(self, done: int, text: str) -> None: ...


class _Nothing:
    def update(self, done: int, text: str) -> None:
        pass


class _Lines:
    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._tenths = what, total, 0

    def update(self, done: int, text: str) -> None:
        if (tenths := 10 * done // self._total) > self._tenths:
            self._tenths = tenths
            print(f"{self._what}: {done}/{self._total}  {text}", file=sys.stderr, flush=True)


class _Rich:
    def __init__(self, progress: Any, task: Any) -> None:
        self._progress, self._task, self._drawn = progress, task, 0.0
        self._latest: tuple[int, str] | None = None

    def update(self, done: int, text: str) -> None:
        self._latest = done, text
        # Drawn from here and not by a thread of rich's, which would take time from the training.
        if (now := time.monotonic()) - self._drawn >= _INTERVAL:
            self._drawn = now
            self.draw()

    def draw(self) -> None:
        if self._latest is not None:
            done, text = self._latest
            self._progress.update(self._task, completed=done, text=text)
            self._progress.refresh()


@contextmanager
def bar(what: str, total: int, wanted: bool, done: int = 0) -> Iterator[Bar]:
    """A bar from `done` to `total` on stderr, if it is wanted and stderr is a terminal."""
    dumb = os.environ.get("TERM", "").lower() in ("", "dumb", "unknown")
    if not wanted or not sys.stderr.isatty():
        yield _Nothing()
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        dumb = True
    if dumb:
        yield _Lines(what, total)
        return
    text = TextColumn("{task.fields[text]}")
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), text)
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as progress:
        shown = _Rich(progress, progress.add_task(what, total=total, completed=done, text=""))
        try:
            yield shown
        finally:
            shown.draw()  # where it ended, also if that was too soon after the last drawing
