"""Libraries that only some functions need: imported when they are called, with the pip line if they are absent."""

from __future__ import annotations

import importlib
from typing import Any


def need(module: str, extra: str, purpose: str) -> Any:
    """The module, or the error that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        root = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != root:
            raise
        raise ImportError(f"{purpose} needs {root}: pip install 'fastlr-kernels[{extra}]'", name=root) from None
