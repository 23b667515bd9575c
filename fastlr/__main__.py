"""The command line: `fastlr info`, `fastlr demo`, `fastlr schedule`, and those of cli.py."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastlr import cli
from fastlr.config import info
from fastlr.schedules import show


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fastlr", description="The optimizer step for CPUs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("info", help="versions, instruction set and threads: what a bug report needs")
    demo = commands.add_parser("demo", help="train a network on real digits with every rule")
    demo.add_argument("--png", default="demo.png", help="where the picture of the curves goes (default: demo.png)")
    show.add(commands)
    cli.add(commands)
    arguments = parser.parse_args(argv)

    if arguments.command == "info":
        for key, value in info().items():
            print(f"{key:14} {value}")
        return 0
    if arguments.command != "demo":
        try:
            arguments.run(arguments)
        except (ValueError, TypeError, ImportError, OSError) as error:
            print(f"fastlr {arguments.command}: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"\nfastlr {arguments.command}: interrupted", file=sys.stderr)
            return 130
        return 0
    from fastlr.demo import run

    return run(arguments.png)


if __name__ == "__main__":
    sys.exit(main())
