"""Modules for a library that is not installed are not collected."""

import importlib.util
import os

ONLY_WITH = {
    "fastlr/torch": "torch",
    "tests/torch_models.py": "torch",
    "fastlr/jax.py": "optax",
    "fastlr/thinc.py": "thinc",
    "fastlr/jit.py": "numba",
    "fastlr/compiled.py": "numba",
    "fastlr/custom.py": "numba",
}
# Its examples run in processes of their own, each with a backend: tests/test_keras.py.
if os.environ.get("KERAS_BACKEND") not in ("numpy", "torch"):
    ONLY_WITH["fastlr/keras.py"] = "keras is not imported here"
collect_ignore = [path for path, library in ONLY_WITH.items() if not importlib.util.find_spec(library)]
