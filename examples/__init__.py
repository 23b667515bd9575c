"""Programs that show the library on real cases: ``python -m examples.<name> [picture.png]`` from the repository.

They need ``pip install 'fastlr-kernels[examples]'``; the data comes with those packages. Each has a function ``run``
that returns what it measured and writes its picture; tests/test_examples.py runs them all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def main(run: Callable[[str], dict[str, Any]], name: str) -> None:
    """Runs an example, prints what it returned, and says where the picture is."""
    png = sys.argv[1] if len(sys.argv) > 1 else f"{name}.png"
    for key, value in run(png).items():
        print(f"{key:32} {value:.5g}" if isinstance(value, float) else f"{key:32} {value}")
    print(f"picture: {png}")
