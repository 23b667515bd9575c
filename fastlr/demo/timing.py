"""The optimizer step by itself: fastlr's beside the same step in plain NumPy, first compared, then timed."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastlr.demo.network import Network
from fastlr.demo.rules import Rule
from fastlr.demo.training import BATCH, SEED, SIZES

if TYPE_CHECKING:  # digits imports scikit-learn
    from fastlr.demo.digits import Digits

CALLS = 400
TOLERANCE = 1e-5  # of the update; float32 rounds at 6e-8, about ten times in a step
_COMPARED = 10  # steps
_WARM = 20  # calls before the clock counts: caches, memory for the temporaries, threads


class Disagreement(Exception):
    """Plain NumPy and fastlr computed different updates, so their times cannot be compared."""


class StepTime(NamedTuple):
    """Nanoseconds per parameter of one step, the median of `CALLS`."""

    fastlr: float
    numpy: float

    @property
    def ratio(self) -> float:
        return self.numpy / self.fastlr


def compare(name: str, rule: Rule, data: Digits) -> None:
    """Takes a few steps with both, on the demo's network; raises `Disagreement` if more than rounding parts them."""
    network = Network(SIZES, SEED)
    start = network.params.data.copy()
    p = start.copy()
    optimizer, plain = rule.build(network.params, rule.lr), rule.build_plain(p, rule.lr)
    for k in range(_COMPARED):
        batch = slice(k * BATCH, (k + 1) * BATCH)
        network.gradients(data.train_x[batch], data.train_labels[batch])
        optimizer.step(network.grads)
        plain(network.grads.data)
    ours = network.params.data
    # Beside the rounding of the update there is that of p itself, once a step.
    bound = TOLERANCE * np.abs(ours - start).max() + _COMPARED * np.spacing(np.abs(ours).max())
    worst = np.abs(ours - p).max()
    if not worst <= bound:
        raise Disagreement(
            f"{name}: plain NumPy and fastlr differ by {worst:.2g} after {_COMPARED} steps, over {bound:.2g}"
        )


def measure(rule: Rule, data: Digits) -> StepTime:
    """Times both in turn, on copies of the demo's parameters, so that a disturbance meets both alike."""
    network = Network(SIZES, SEED)
    p = network.params.data.copy()
    optimizer, plain = rule.build(network.params, rule.lr), rule.build_plain(p, rule.lr)
    network.gradients(data.train_x[:BATCH], data.train_labels[:BATCH])
    grads, clock = network.grads, time.perf_counter_ns
    ours, theirs = [], []
    for _ in range(_WARM + CALLS):
        t0 = clock()
        optimizer.step(grads)
        t1 = clock()
        plain(grads.data)
        t2 = clock()
        ours.append(t1 - t0)
        theirs.append(t2 - t1)
    return StepTime(statistics.median(ours[_WARM:]) / p.size, statistics.median(theirs[_WARM:]) / p.size)
