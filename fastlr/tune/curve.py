"""Reading a curve of loss against rate: smoothing, divergence, and what to suggest.

Everything here is unchanged by adding a constant to the loss or multiplying it by one, so losses may be negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fastlr.buffers import Array

BANDWIDTH = 1.0  # of the smoothing, in units of the natural logarithm of the rate: a part of the ramp, not of steps
RISE = 0.4  # the edge is where the loss is this share of its whole drop above its minimum
MARGIN = 8.0  # the suggestion is this factor below the edge
_DIVERGED = 4.0  # drops above the start
_PATIENCE = 3  # so many in a row, for one bad batch is no divergence
_AGREE = math.log(3)  # halves or replicates that differ by a factor of 3 have confidence 1/e


def local_line(x: Array, y: Array, bandwidth: float) -> tuple[Array, Array]:
    """Value and slope at each x of the line that fits best nearby, with Gaussian weights.

    Unlike a running average it neither lags nor leans on where the curve began: on a straight line it is exact, at the
    ends too.
    """
    distance = x[None, :] - x[:, None]
    weight = np.exp(-0.5 * (distance / bandwidth) ** 2)
    s0, s1, s2 = weight.sum(1), (weight * distance).sum(1), (weight * distance**2).sum(1)
    t0, t1 = weight @ y, (weight * distance) @ y
    determinant = s0 * s2 - s1**2
    return (s2 * t0 - s1 * t1) / determinant, (s0 * t1 - s1 * t0) / determinant


class Divergence:
    """Says when a loss, fed one by one, has left for good: not finite, or far above its start for a few steps.

    Far is several times what it has fallen by, or, while it has not, what it wandered before it could.
    """

    def __init__(self, start: float, calm: int, floor: float = 0.0) -> None:
        self._floor = max(floor, 1e-9 * abs(start))
        self._start = self._best = start
        self._calm, self._spread, self._seen, self._above = calm, 0.0, 0, 0

    def __call__(self, loss: float) -> bool:
        if not math.isfinite(loss):
            return True
        self._seen += 1
        if self._seen <= self._calm:
            self._spread = max(self._spread, abs(loss - self._start))
        self._best = min(self._best, loss)
        drop = max(self._start - self._best, self._spread, self._floor)
        self._above = self._above + 1 if loss > self._start + _DIVERGED * drop else 0
        return self._above >= _PATIENCE


@dataclass(frozen=True)
class Reading:
    """What one curve says; rates."""

    suggestion: float
    steepest: float
    minimum: float
    edge: float
    confidence: float
    flags: tuple[str, ...]


def read(lrs: Array, losses: Array, start: float) -> Reading:
    """Reads a curve: `losses` after updates with `lrs`, the last perhaps not finite, and the loss at the `start`."""
    whole = _points(lrs, losses, start)
    if whole.flags and "no descent" in whole.flags:
        return whole
    halves = [_points(lrs[k::2], losses[k::2], start) for k in (0, 1)]
    spread = abs(math.log(halves[0].suggestion / halves[1].suggestion))
    sure = 0.0 if math.isnan(spread) else math.exp(-spread / _AGREE)
    return replace(whole, confidence=sure * whole.confidence)


def agree(readings: Sequence[Reading]) -> Reading:
    """The median of several readings, and how well they agree."""
    found = [r for r in readings if "no descent" not in r.flags]
    if len(found) <= len(readings) / 2:
        one = found[0] if found else readings[0]
        return replace(one, confidence=0.0, flags=(*one.flags, "replicates disagree") if found else one.flags)
    rates = np.exp(np.median(np.log([(r.suggestion, r.steepest, r.minimum, r.edge) for r in found]), axis=0))
    logs = np.log([r.suggestion for r in found])
    spread = float(logs.max() - logs.min())
    confidence = float(np.mean([r.confidence for r in found])) * math.exp(-spread / _AGREE) * len(found) / len(readings)
    flags = tuple(dict.fromkeys(flag for r in readings for flag in r.flags))
    if spread > _AGREE:
        flags += ("replicates disagree",)
    suggestion, steepest, minimum, edge = map(float, rates)
    return Reading(suggestion, steepest, minimum, edge, confidence, flags)


def _points(lrs: Array, losses: Array, start: float) -> Reading:
    finite = np.isfinite(losses)
    diverged = not finite.all()
    lrs, losses = lrs[finite], losses[finite]
    calm = max(1, len(losses) // 10)
    nothing = Reading(math.nan, math.nan, math.nan, math.nan, 0.0, ("no descent",))
    if len(losses) < 3:
        return nothing
    start = float(np.median(np.append(losses[:calm], start)))
    noise = float(np.std(losses[:calm]))
    x = np.log(lrs)
    # Above the start a curve says no more than that it is there: cut, or one value would decide the whole fit.
    smooth, slope = local_line(x, np.minimum(losses, start + noise), BANDWIDTH)
    low = int(np.argmin(smooth))
    drop = start - float(smooth[low])
    # The smoothed curve averages over a few points at least, so twice the noise is more than it wanders by itself.
    if drop <= 2 * noise + 1e-12 * abs(start) or low == 0:
        return nothing
    steepest = int(np.argmin(slope[: low + 1]))
    over = np.flatnonzero(smooth[low:] > smooth[low] + RISE * drop)
    edge = low + int(over[0]) if len(over) else len(x) - 1
    flags: tuple[str, ...] = () if len(over) or diverged else ("no edge: raise high",)
    if steepest == 0:
        flags += ("falls from the start: lower low",)
    return Reading(
        float(lrs[edge]) / MARGIN,
        float(lrs[steepest]),
        float(lrs[low]),
        float(lrs[edge]),
        confidence=min(1.0, drop / (6 * noise) if noise else 1.0) * (1.0 if len(over) or diverged else 0.5),
        flags=flags,
    )
