"""The suggestions of fastai's ``Learner.lr_find``, by their names there, as alternatives.

Each takes rates and smoothed losses, and returns a rate. They are as fastai computes them, oddities included.
"""

from __future__ import annotations

import math

import numpy as np

from fastlr.buffers import Array

_SMOOTHING = 0.98
_SLIDE, _FLAT = 15, 0.005  # points apart, and the difference of their slopes that counts as none


def smooth(losses: Array) -> Array:
    """The running average of fastai's recorder, debiased."""
    average, out = 0.0, np.empty_like(losses)
    for k, loss in enumerate(losses):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        out[k] = average / (1 - _SMOOTHING ** (k + 1))
    return out


def valley(lrs: Array, losses: Array) -> float:
    """The middle of the longest run of falling losses, which need not be neighbours."""
    n = len(losses)
    length = np.ones(n, int)
    for i in range(1, n):
        falls = np.flatnonzero(losses[:i] > losses[i])
        if len(falls):
            length[i] = max(1, int(length[falls].max()) + 1)
    end = int(np.argmax(length))
    start = end - int(length[end]) if end else 0  # no loss falls: the first
    section = (end - start) / 3
    return float(lrs[start + int(section) + int(section / 2)])


def slide(lrs: Array, losses: Array) -> float:
    """Seen from the right, the last rate whose slope still differs from the one further right."""
    slopes = np.gradient(losses)
    found = left = len(losses) - 1 - _SLIDE
    while left >= 0 and abs(slopes[left + _SLIDE] - slopes[left]) > _FLAT:
        found, left = left, left - 1
    return float(lrs[found])


def minimum(lrs: Array, losses: Array) -> float:
    """A tenth of the rate of the smallest loss."""
    return float(lrs[np.argmin(losses)]) / 10


def steep(lrs: Array, losses: Array) -> float:
    """The rate of the steepest descent, by neighbours in log rate."""
    return float(lrs[np.argmin(np.diff(losses) / np.diff(np.log(lrs)))])


def all_of(lrs: Array, losses: Array, steps: int) -> dict[str, float]:
    """Every suggestion, after fastai's cut: the first tenth of all `steps` and the last five made are left out."""
    lrs, losses = lrs[steps // 10 : -5], smooth(losses)[steps // 10 : -5]
    if len(losses) <= _SLIDE:
        return dict.fromkeys(("valley", "slide", "minimum", "steep"), math.nan)
    return {rule.__name__: rule(lrs, losses) for rule in (valley, slide, minimum, steep)}
