"""Modules for a library that is not installed are not collected."""

import importlib.util

ONLY_WITH = {
    "fastlr/torch": "torch",
    "tests/torch_models.py": "torch",
    "fastlr/jax.py": "optax",
    "fastlr/thinc.py": "thinc",
    "fastlr/jit.py": "numba",
    "fastlr/compiled.py": "numba",
    "fastlr/custom.py": "numba",
}
collect_ignore = [path for path, library in ONLY_WITH.items() if not importlib.util.find_spec(library)]
