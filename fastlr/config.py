"""The machine: instruction set and number of threads, from the environment or set by the program."""

from __future__ import annotations

import contextlib
import os
import pathlib
import platform
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastlr import _core


def isa() -> str:
    """The instruction set in use: "baseline", "avx2" or "avx512".

    The widest that the machine has, unless the environment variable ``FASTLR_ISA`` named another at import. Results are
    the same bits with each.
    """
    return _core.isa()


def get_include() -> str:
    """The directory of ``fastlr.h``, for C compilers.

    Examples
    --------
    >>> import os
    >>> os.listdir(get_include())
    ['fastlr.h']
    """
    return str(pathlib.Path(__file__).parent / "include")


def get_library_dir() -> str:
    """The directory of ``libfastlr.a``, the kernels without Python; what links it needs ``-lm -pthread`` too.

    Examples
    --------
    >>> import os
    >>> os.listdir(get_library_dir())
    ['libfastlr.a']
    """
    return str(pathlib.Path(__file__).parent / "lib")


def set_num_threads(n: int) -> None:
    """Sets how many threads a step may use, in the whole process. Results do not depend on it."""
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be an integer, got {n!r} ({type(n).__name__})")
    if not 1 <= n <= _core.MAX_THREADS:
        raise ValueError(f"n must be in [1, {_core.MAX_THREADS}], got {n}")
    _core.set_threads(n)


def get_num_threads() -> int:
    """How many threads a step may use.

    At import: ``FASTLR_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the processors that this process may use (affinity
    and the container's quota).
    """
    return _core.get_threads()


@contextlib.contextmanager
def num_threads(n: int) -> Iterator[None]:
    """A context in which steps use up to `n` threads; for the whole process, like `set_num_threads`.

    Examples
    --------
    >>> with num_threads(1):
    ...     get_num_threads()
    1
    """
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        _core.set_threads(before)


def info() -> dict[str, Any]:
    """What a bug report needs: versions, instruction sets, threads."""
    import fastlr

    return {
        "fastlr": fastlr.__version__,
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "platform": platform.platform(),
        "isa": isa(),
        "isa available": ", ".join(name for name, runs in _core.isas().items() if runs),
        "threads": get_num_threads(),
        "processors": _core.processors(),
    }


def _from_environment() -> None:
    available = _core.isas()
    if not available["baseline"]:
        raise ImportError("fastlr needs a processor with SSE4.2 (x86-64-v2), which this one has not")
    if wanted := os.environ.get("FASTLR_ISA"):
        if not available.get(wanted):
            names = ", ".join(name for name, runs in available.items() if runs)
            raise ImportError(f"FASTLR_ISA must name an instruction set of this machine ({names}), got {wanted!r}")
        _core.use_isa(wanted)
    threads = _core.processors()
    if wanted := os.environ.get("FASTLR_NUM_THREADS"):
        if not (wanted.isdecimal() and 1 <= int(wanted) <= _core.MAX_THREADS):
            raise ImportError(f"FASTLR_NUM_THREADS must be an integer in [1, {_core.MAX_THREADS}], got {wanted!r}")
        threads = int(wanted)
    else:
        # OpenMP's own variable may hold a list, one number a nesting level; what is not a number is OpenMP's to report.
        omp = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
        if omp.isdecimal() and int(omp) >= 1:
            threads = min(int(omp), _core.MAX_THREADS)
    _core.set_threads(threads)


_from_environment()
