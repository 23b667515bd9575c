"""The examples in other frameworks: each trains as well as it says."""

import importlib.util
import pathlib

import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"


@pytest.mark.parametrize(("library", "least"), [("torch", 0.9), ("jax", 0.85)])
def test_digits(library, least):
    pytest.importorskip("optax" if library == "jax" else library)
    spec = importlib.util.spec_from_file_location(f"{library}_digits", EXAMPLES / library / "digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.run() > least
