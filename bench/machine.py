"""What a measurement was made on and with."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
import re
from pathlib import Path

from bench.engines import LIBRARIES


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


def slug() -> str:
    """date-cpu, for file names."""
    return f"{date()}-{re.sub(r'[^a-z0-9]+', '-', cpu().lower()).strip('-')}"
