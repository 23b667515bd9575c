"""`fastlr demo`: a small network on real handwritten digits, trained with every rule.

It needs the extras in `fastlr-kernels[demo]`; importing this package does not.
"""

from __future__ import annotations

import sys

_EXTRAS = ("sklearn", "matplotlib", "rich")
_INTERRUPTED = 130  # what a shell reports for a program that Ctrl-C ended: 128 + SIGINT


def run(png: str) -> int:
    """Runs the demo and writes its picture to the file `png`.

    Returns
    -------
    int
        The exit code: 0, 1 for any failure, which has been described on stderr, or 130 after Ctrl-C.
    """
    try:
        try:
            from fastlr.demo.session import demonstrate
        except ImportError as error:
            if (error.name or "").partition(".")[0] not in _EXTRAS:
                raise
            print(
                "fastlr demo needs scikit-learn, matplotlib and rich: pip install 'fastlr-kernels[demo]'",
                file=sys.stderr,
            )
            return 1
        return demonstrate(png)
    except KeyboardInterrupt:
        print("\nfastlr demo: interrupted", file=sys.stderr)
        return _INTERRUPTED
