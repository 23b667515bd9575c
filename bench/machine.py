"""What a measurement was made on and with."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from bench.engines import LIBRARIES

RECORD = Path(__file__).parent / "record"


def cpu() -> str:
    """The model's name and numbers: under some hypervisors the name is no more than "AMD EPYC"."""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        fields = [re.search(rf"^{key}\s*: (.*)$", text, re.M) for key in ("model name", "cpu family", "model")]
        if all(fields):
            return "{} (family {}, model {})".format(*(field[1] for field in fields if field))
    return platform.processor() or platform.machine()


def processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def date() -> str:
    return datetime.date.today().isoformat()


def versions() -> str:
    names = {"fastlr": "fastlr-kernels"}
    found = []
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{library} {importlib.metadata.version(names.get(library, library))}")
    return ", ".join([*found, f"Python {platform.python_version()}"])


def describe() -> str:
    import fastlr

    return f"{cpu()}, {processors()} processors, {fastlr.isa()}; {platform.system()}; {date()}; {versions()}"


class Tee:
    """Text that goes to several files."""

    def __init__(self, *files: TextIO) -> None:
        self.files = files

    def write(self, text: str) -> int:
        return max(file.write(text) for file in self.files)

    def flush(self) -> None:
        for file in self.files:
            file.flush()


@contextlib.contextmanager
def recorded(name: str, wanted: bool) -> Iterator[None]:
    """What is printed goes to record/<date>-<cpu>-<name>.txt too, if wanted, after the command that printed it."""
    if not wanted:
        yield
        return
    with (RECORD / f"{slug()}-{name}.txt").open("w", encoding="utf-8") as file:
        file.write(f"$ python -m bench.{name} {' '.join(sys.argv[1:])}\n")
        with contextlib.redirect_stdout(Tee(sys.stdout, file)):
            yield


def slug() -> str:
    """date-cpu, for file names."""
    return f"{date()}-{re.sub(r'[^a-z0-9]+', '-', cpu().lower()).strip('-')}"
