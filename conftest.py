"""Modules for a library that is not installed are not collected; Ctrl-C can be sent."""

import importlib.util
import os
import signal

ONLY_WITH = {
    "fastlr/torch": "torch",
    "tests/torch_models.py": "torch",
    "fastlr/jax.py": "optax",
    "fastlr/thinc.py": "thinc",
    "fastlr/keras.py": "keras",
    "tests/keras_backend.py": "keras",
    "fastlr/jit.py": "numba",
    "fastlr/compiled.py": "numba",
    "fastlr/custom.py": "numba",
}
collect_ignore = [path for path, library in ONLY_WITH.items() if not importlib.util.find_spec(library)]
if os.environ.get("KERAS_BACKEND") not in ("numpy", "torch"):  # tests/test_keras.py has a process for each
    collect_ignore += ["fastlr/keras.py", "tests/keras_backend.py"]

# What a shell starts in the background has Ctrl-C ignored, and so have its children; the tests of it need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
