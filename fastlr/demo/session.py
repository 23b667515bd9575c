"""The demo from start to end: data, training, timing, table, picture."""

from __future__ import annotations

import os
import sys

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

import fastlr
from fastlr.demo import digits, picture, report, timing
from fastlr.demo.network import Network
from fastlr.demo.rules import RULES
from fastlr.demo.training import BATCH, EPOCHS, SEED, SIZES, History, train

REQUIRED = 0.97  # test accuracy
_MUST_REACH = ("Adam", "AdamW")


def demonstrate(png: str) -> int:
    """Runs everything; see `fastlr.demo.run`."""
    path = os.path.abspath(png)
    if os.path.isdir(path) or not os.path.isdir(os.path.dirname(path)):
        return _fail(f"--png must name a file in a directory that exists, got {png}")
    # One thread for all. NumPy's expressions use no more; a step on so few parameters is over before a second thread is
    # awake; and BLAS, which would split the network's small products, then trains five times slower whenever another
    # program keeps one of two processors busy. scikit-learn depends on threadpoolctl, so it is here.
    with fastlr.num_threads(1), threadpool_limits(1):
        return _demonstrate(path)


def _demonstrate(path: str) -> int:
    data = digits.load()
    shown = report.choose()
    size = Network(SIZES, SEED).params.data.size
    network = f"{'-'.join(map(str, SIZES))} network with {size:,} parameters in one FlatBuffer"
    shown.say(f"{len(data.train_x)} handwritten digits to train on, {len(data.test_x)} to test, {network}")

    histories: dict[str, History] = {}
    with shown:
        for name, rule in RULES.items():
            shown.start(name, EPOCHS)
            histories[name] = train(rule, data, epochs=EPOCHS, watch=shown.epoch)
            shown.finish(histories[name])

    shown.say("Timing one step of each rule, fastlr and plain NumPy in turn")
    times: dict[str, timing.StepTime] = {}
    for name, rule in RULES.items():
        try:
            timing.compare(name, rule, data)
        except timing.Disagreement as error:
            return _fail(str(error))
        times[name] = timing.measure(rule, data)

    shown.say("")
    shown.table([_row(name, histories[name], times[name]) for name in RULES])
    shown.say(
        f"steps/s: forward, backward and step, batches of {BATCH}; threads: {fastlr.get_num_threads()}\n"
        f"ns/param: the optimizer's step alone, median of {timing.CALLS} calls, {fastlr.isa()}\n"
        f"NumPy: the same step as whole-array expressions, equal within {timing.TOLERANCE:g} of the update\n"
    )
    try:
        picture.draw(histories, f"Handwritten digits, {network}", path)
    except OSError as error:
        return _fail(f"cannot write the picture: {error}")
    shown.say(f"Curves: {path}")

    short = [
        f"{name} {histories[name].accuracy[-1]:.1%}" for name in _MUST_REACH if histories[name].accuracy[-1] < REQUIRED
    ]
    return _fail(f"test accuracy must reach {REQUIRED:.0%}, got {', '.join(short)}") if short else 0


def _row(name: str, history: History, time: timing.StepTime) -> tuple[str, ...]:
    """The cells under `report.HEADER`."""
    return (
        name,
        f"{history.accuracy[-1]:.1%}",
        f"{history.test_loss[-1]:.4f}",
        f"{history.steps_per_second:,.0f}",
        f"{time.fastlr:.2f}",
        f"{time.numpy:.2f}",
        f"{time.ratio:.1f}",
    )


def _fail(message: str) -> int:
    print(f"fastlr demo: {message}", file=sys.stderr)
    return 1
