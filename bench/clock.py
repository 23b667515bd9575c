"""Interleaved timing: round by round, each engine in its own steady state."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter_ns

SAMPLE_NS = 200_000  # a sample is a batch of calls at least this long, so that the clock's own 30 ns do not show
MOST_CALLS = 100
WARM_NS = 500_000
# Threads of the engine before may still be spinning on a processor, libgomp's for about 8 ms here: wait for their end.
SETTLE_S = 0.02


@dataclass
class Times:
    """Nanoseconds a call, one sample a round."""

    samples: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def min(self) -> float:
        return min(self.samples)

    def over(self, other: Times) -> float:
        """The median over the rounds of this one's time as a multiple of the other's in the same round.

        Where the machine has phases of different speed, as shared ones do, this holds still and the ratio of medians
        does not.
        """
        return median(a / b for a, b in zip(self.samples, other.samples, strict=True))


@contextlib.contextmanager
def no_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def batch(step: Callable[[], object], calls: int) -> float:
    """Nanoseconds a call."""
    repeats = itertools.repeat(None, calls)
    start = perf_counter_ns()
    for _ in repeats:
        step()
    return (perf_counter_ns() - start) / calls


def calls_for(step: Callable[[], object]) -> int:
    step()
    once = min(batch(step, 1) for _ in range(3))
    return min(MOST_CALLS, max(1, math.ceil(SAMPLE_NS / once)))


def sample(step: Callable[[], object], calls: int) -> float:
    """One sample, after a pause for others' threads and untimed calls of the engine itself."""
    time.sleep(SETTLE_S)
    start = perf_counter_ns()
    for _ in range(MOST_CALLS):
        step()
        if perf_counter_ns() - start > WARM_NS:
            break
    return batch(step, calls)


def interleave(
    steps: Mapping[str, Callable[[], object]], rounds: int, before: Callable[[str], None] = lambda name: None
) -> dict[str, Times]:
    """Times of all steps, in `rounds` rounds; each round starts with the next engine. `before` is called untimed."""
    times = {name: Times() for name in steps}
    with no_gc():
        calls = {name: calls_for(step) for name, step in steps.items()}
        for k in range(rounds):
            for name in rotated(list(steps), k):
                before(name)
                times[name].samples.append(sample(steps[name], calls[name]))
            gc.collect()
    return times


def rotated(names: Sequence[str], k: int) -> list[str]:
    k %= len(names)
    return [*names[k:], *names[:k]]
