"""Tests that fork run in an interpreter of their own: others may have threads in this one, which do not survive."""

import functools
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def in_a_fresh_process(test):
    """The test as one that runs itself in a new interpreter. It takes no arguments."""

    @functools.wraps(test)
    def run():
        code = f"from {test.__module__} import {test.__name__} as test; test.__wrapped__()"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    return run
