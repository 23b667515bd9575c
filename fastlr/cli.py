"""The commands that work on an objective of the user's: range-test, search, curvature; and compare."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import fastlr
from fastlr.optimizer import Optimizer

_ENTRY = (
    "module:name of an objective with its parameters in .params, or of a function without arguments "
    "that returns one, or (objective, params)"
)


def rules() -> dict[str, type[Optimizer]]:
    """The optimizers by their names in lower case."""
    found = (getattr(fastlr, name) for name in fastlr.__all__)
    return {
        x.__name__.lower(): x for x in found if isinstance(x, type) and issubclass(x, Optimizer) and x is not Optimizer
    }


def add(commands: Any) -> None:
    """Adds the commands to an argument parser."""
    names = sorted(rules())

    def command(name: str, text: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        parser.set_defaults(run=run)
        return parser

    ranges = command("range-test", "raise the rate until training breaks, and suggest one", _range_test)
    ranges.add_argument("entry", help=_ENTRY)
    ranges.add_argument("--rule", choices=names, default="adamw", metavar="RULE", help=f"one of {', '.join(names)}")
    ranges.add_argument("--low", type=float, default=1e-7)
    ranges.add_argument("--high", type=float, default=10.0)
    ranges.add_argument("--steps", type=int, default=100)
    ranges.add_argument("--mode", choices=("ramp", "reset"), default="ramp")
    ranges.add_argument("--replicates", type=int, default=1)
    ranges.add_argument("--png", help="where a picture goes")

    search = command("search", "train with different rates, and print the best", _search)
    search.add_argument("entry", help=_ENTRY + "; a function is called anew for each trial")
    search.add_argument("--rule", choices=names, default="adamw", metavar="RULE", help="as for range-test")
    search.add_argument("--low", type=float, default=1e-5)
    search.add_argument("--high", type=float, default=1.0)
    search.add_argument("--method", choices=("bayes", "grid", "random"), default="bayes")
    search.add_argument("--budget", type=int, default=12, help="trials")
    search.add_argument("--steps", type=int, default=200, help="of each trial")
    search.add_argument("--storage", default=fastlr.tune.STORAGE, help="file or Optuna URL (default: %(default)s)")
    search.add_argument("--jobs", type=int, default=1, help="trials side by side")
    search.add_argument("--seed", type=int, default=0)
    search.add_argument("--png", help="where a picture goes")

    curvature = command("curvature", "the largest curvature, and the rates beyond which rules diverge", _curvature)
    curvature.add_argument("entry", help=_ENTRY)
    curvature.add_argument("--tolerance", type=float, default=1e-4)

    compare = command("compare", "train on the digits with every strategy for the rate", _compare)
    compare.add_argument("--epochs", type=int, default=20)


def load(entry: str) -> tuple[Any, Any]:
    """(objective, params) of an entry point."""
    module, colon, name = entry.partition(":")
    if not (module and colon and name):
        raise ValueError(f"entry must be module:name, got {entry!r}")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
            raise
        raise ValueError(f"entry: there is no module {module!r} here or among those installed") from None
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ValueError(f"entry: module {module!r} has no {name!r}") from None
    if not callable(found):
        raise TypeError(f"entry: {entry} must be callable, got {type(found).__name__}")
    made: Any = found
    if not hasattr(made, "params"):
        made = made()
    if isinstance(made, tuple) and len(made) == 2:
        return made
    if not hasattr(made, "params"):
        raise TypeError(f"entry: {entry} must return an objective with .params, or (objective, params)")
    return made, made.params


class Factory:
    """What `search` calls: the entry point anew, with an optimizer. Can be sent to another process."""

    def __init__(self, entry: str, rule: str) -> None:
        self.entry, self.rule = entry, rule

    def __call__(self, lr: float) -> tuple[Any, Any, Optimizer]:
        import copy

        objective, params = load(self.entry)
        if not _is_function(self.entry):  # one object for all trials: each trains a copy
            objective, params = copy.deepcopy((objective, params))
        make: Any = rules()[self.rule]
        return objective, params, make(params, lr=lr)


def _is_function(entry: str) -> bool:
    module, _, name = entry.partition(":")
    return not hasattr(getattr(importlib.import_module(module), name.partition(".")[0]), "params")


def _range_test(a: argparse.Namespace) -> None:
    objective, params = load(a.entry)
    found = fastlr.tune.range_test(objective, params, rules()[a.rule], a.low, a.high, a.steps, a.mode, a.replicates)
    print(f"suggestion  {found.suggestion:.4g}")
    print(f"bracket     {found.bracket[0]:.4g} to {found.bracket[1]:.4g}")
    print(f"confidence  {found.confidence:.2f}")
    for flag in found.flags:
        print(f"flag        {flag}")
    for name, lr in found.alternatives.items():
        print(f"{name:11} {lr:.4g}  (fastai's)")
    _picture(found, a.png)


def _search(a: argparse.Namespace) -> None:
    load(a.entry)
    found = fastlr.tune.search(
        Factory(a.entry, a.rule),
        {"lr": (a.low, a.high)},
        a.method,
        a.budget,
        a.storage,
        a.jobs,
        steps=a.steps,
        seed=a.seed,
        name=f"{a.entry} {a.rule} {a.method} {a.low:g} {a.high:g} {a.steps} {a.seed}",
    )
    for t in found.trials:
        print(
            f"{t.number:4}  lr {t.values['lr']:<10.4g} loss {t.loss:<10.5g} {'diverged' if t.diverged else ''}".rstrip()
        )
    if found.resumed:
        print(f"{found.resumed} of these were in {a.storage} already")
    print(f"best: lr {found.best['lr']:.4g}, loss {found.loss:.5g}")
    _picture(found, a.png)


def _curvature(a: argparse.Namespace) -> None:
    objective, params = load(a.entry)
    found = fastlr.tune.curvature(objective, params, getattr(objective, "hvp", None), tolerance=a.tolerance)
    print(f"largest eigenvalue   {found.largest:.6g}")
    print(f"smallest eigenvalue  {found.smallest:.6g}")
    print(f"residual             {found.residual:.2g}")
    print("diverges beyond the rate:")
    rate = fastlr.tune.stable_rate
    for name, lr in (
        ("gradient descent", rate(found.largest)),
        ("momentum 0.9", rate(found.largest, 0.9)),
        ("Nesterov 0.9", rate(found.largest, 0.9, nesterov=True)),
    ):
        print(f"  {name:18} {lr:.6g}")


def _compare(a: argparse.Namespace) -> None:
    from fastlr.demo import comparison

    print(comparison.table(comparison.compare(a.epochs)))


def _picture(found: Any, png: str | None) -> None:
    if png is not None:
        found.plot(png)
        print(f"picture: {png}")
