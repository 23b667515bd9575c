"""fastlr.keras: each backend in a process of its own, since Keras has one for good. The tests are keras_backend.py."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

if not importlib.util.find_spec("keras"):
    pytest.skip("needs keras", allow_module_level=True)

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(backend, *arguments):
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=600, env=environment, cwd=ROOT
    )


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_on_a_backend(backend):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"needs {backend}")
    quiet = ["-q", "-p", "no:cacheprovider", "-W", "ignore:__array__ implementation:DeprecationWarning"]  # Keras's own
    done = run(backend, "-m", "pytest", *quiet, "tests/keras_backend.py", "fastlr/keras.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_other_backends_are_refused():
    if not importlib.util.find_spec("jax"):
        pytest.skip("needs jax")
    done = run("jax", "-c", "import fastlr.keras")
    assert done.returncode
    assert "needs the torch or the numpy backend, whose variables can be updated in place, got 'jax'" in done.stderr
