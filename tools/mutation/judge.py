"""Collects tests once, then runs them on one mutant after another, each in a fork: what tools/mutate.py asks.

    python judge.py TEST_FILE ...

Reads lines of JSON, [library of the mutant, words, whether to run all], and answers each with a line: the first test
that failed, or the signal that ended it, or nothing if all passed. Tests whose name has one of the words come first,
those of float32 before the others; then, where asked, those without.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

import pytest
from _pytest.runner import runtestprotocol

SECONDS = 120  # of the processor, for one test: a mutant that never ends is ended


class Judge:
    """Runs in the place of pytest's own loop over the tests."""

    def __init__(self, answers: int) -> None:
        self.answers = answers

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for line in sys.stdin:
            job = json.loads(line)
            answer, child = os.pipe()
            if (pid := os.fork()) == 0:
                os.write(child, first_failure(session.items, *job).encode())
                os._exit(0)
            os.close(child)
            with os.fdopen(answer) as found:
                verdict = found.read()
            _, status = os.waitpid(pid, 0)
            if os.WIFSIGNALED(status):
                verdict = f"signal {os.WTERMSIG(status)}"
            os.write(self.answers, f"{verdict}\n".encode())
        return True


def first_failure(items: list[pytest.Item], library: str, words: list[str], everywhere: bool) -> str:
    install(library)
    named = [item for item in items if any(word.lower() in item.nodeid.lower() for word in words)]
    others = [item for item in items if item not in set(named)] if everywhere else []
    chosen = [*sorted(named, key=lambda item: "float64" in item.nodeid), *others]
    for item, following in zip(chosen, [*chosen[1:], None], strict=True):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
            return item.nodeid.rpartition("::")[2]
    return ""


def install(library: str) -> None:
    from fastlr import _core

    ctypes.CDLL(library).install(ctypes.CDLL(_core.__file__).fastlr_table_of)


if __name__ == "__main__":
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    options = ["-p", "no:cacheprovider", "-p", "no:faulthandler", "--capture=no"]
    sys.exit(pytest.main([*options, *sys.argv[1:]], plugins=[Judge(answers)]))
