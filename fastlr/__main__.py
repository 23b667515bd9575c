"""The command line: `fastlr info`, `fastlr demo`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastlr.config import info


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fastlr", description="The optimizer step for CPUs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("info", help="versions, instruction set and threads: what a bug report needs")
    demo = commands.add_parser("demo", help="train a network on real digits with every rule")
    demo.add_argument("--png", default="demo.png", help="where the picture of the curves goes (default: demo.png)")
    arguments = parser.parse_args(argv)

    if arguments.command == "info":
        for key, value in info().items():
            print(f"{key:14} {value}")
        return 0
    from fastlr.demo import run

    return run(arguments.png)


if __name__ == "__main__":
    sys.exit(main())
