"""Whose a running trial is: a process, and whether it still runs."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any


def me() -> list[Any]:
    """What tells this process from all others, as JSON holds it."""
    return [platform.node(), os.getpid(), _started(os.getpid())]


def _started(pid: int) -> str:
    """When a process started: its number alone may have been given to another since."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def alive(owner: Sequence[Any]) -> bool:
    """Whether that process still runs; of another machine's nothing is known, so that it does."""
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
