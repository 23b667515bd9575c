"""A Gaussian process over the unit cube, small and for few points: where to look next."""

from __future__ import annotations

import math

import numpy as np

from fastlr.buffers import Array

_LENGTHS = np.geomspace(0.05, 1.0, 10)
_NOISES = (1e-4, 1e-2, 1e-1)  # variance, where the signal's is 1
_CANDIDATES = 1024


def scores(values: Array) -> Array:
    """The values by rank, as quantiles of the normal distribution: how bad the bad ones are does not matter."""
    from statistics import NormalDist

    ranks = np.argsort(np.argsort(values)) + 0.5
    tied = np.array([ranks[values == v].mean() for v in values])
    return np.array([NormalDist().inv_cdf(q) for q in tied / len(values)])


def _matern(a: Array, b: Array, length: float) -> Array:
    """Matérn's covariance with ν = 5/2."""
    r = math.sqrt(5) * np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)) / length
    return (1 + r + r * r / 3) * np.exp(-r)  # type: ignore[no-any-return]


def expected_improvement(x: Array, values: Array, at: Array) -> Array:
    """How far below the best of `values`, measured at the rows of `x`, those of `at` are expected to be, in scores."""
    y = scores(values)
    best, found = -math.inf, None
    for length in _LENGTHS:
        covariance = _matern(x, x, float(length))
        for noise in _NOISES:
            factor = np.linalg.cholesky(covariance + noise * np.eye(len(x)))
            white = np.linalg.solve(factor, y)
            likelihood = -0.5 * white @ white - np.log(np.diag(factor)).sum()
            if likelihood > best:
                best, found = float(likelihood), (float(length), factor, white)
    assert found is not None
    length, factor, white = found
    cross = np.linalg.solve(factor, _matern(x, at, length))
    mean = cross.T @ white
    deviation = np.sqrt(np.maximum(1 - (cross**2).sum(0), 1e-12))
    z = (y.min() - mean) / deviation
    erf = np.array([math.erf(t / math.sqrt(2)) for t in z])
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return deviation * (z * (1 + erf) / 2 + density)  # type: ignore[no-any-return]


def propose(x: Array, values: Array, random: np.random.Generator) -> Array:
    """The point of the unit cube with the largest expected improvement, of many drawn."""
    n = x.shape[1]
    spread = random.random((_CANDIDATES, n))
    near = x[np.argmin(values)] + 0.05 * random.normal(size=(_CANDIDATES // 4, n))
    candidates = np.clip(np.concatenate([spread, near]), 0, 1)
    return candidates[np.argmax(expected_improvement(x, values, candidates))]  # type: ignore[no-any-return]
