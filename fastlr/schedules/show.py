"""What `fastlr schedule` prints."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fastlr.schedules.parse import parse


def add(commands: Any) -> None:
    """Adds the command to an argument parser."""
    schedule = commands.add_parser("schedule", help="look at a schedule: what it is, a picture, its values")
    schedule.add_argument("text", help='an expression such as "cosine(1e-3, 0, 10000).warmup(500)"')
    schedule.add_argument("--plot", metavar="PATH", help="write a picture: PNG, SVG or PDF by its ending")
    schedule.add_argument("--ascii", action="store_true", help="draw it with characters")
    schedule.add_argument("--csv", action="store_true", help="print the value of every update")
    schedule.add_argument("--steps", type=int, help="how many updates to look at (default: its length)")
    schedule.set_defaults(run=show)


def show(arguments: argparse.Namespace) -> None:
    """Runs the command; raises what the user is to read."""
    schedule, steps = parse(arguments.text), arguments.steps
    if steps is not None and steps < 1:
        raise ValueError(f"--steps must be > 0, got {steps}")
    if steps is None and schedule.length is None:
        raise ValueError(f"{schedule!r} never ends; say how many updates to look at with --steps")
    if arguments.csv:
        count = steps if steps is not None else round(schedule.length or 0)
        lines = (f"{n},{value!r}\n" for n, value in enumerate(schedule.table(count).tolist()))
        sys.stdout.writelines(["step,value\n", *lines])
    if arguments.ascii:
        print(schedule.ascii(stop=steps))
    if arguments.plot:
        from fastlr.plots import finish, label, panels

        figure, (ax,) = panels(1, size=(7.0, 3.6))
        label(ax, repr(schedule), "update")
        schedule.plot(ax, steps)
        finish(figure, arguments.plot)
    if not (arguments.csv or arguments.ascii or arguments.plot):
        print(schedule.describe(steps))
        for warning in schedule.validate(steps):
            print(f"  beware  {warning}")
