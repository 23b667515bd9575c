"""Products with the Hessian of an objective: what curvature and Newton's method are computed from."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlr.buffers import Array
from fastlr.training.objective import Objective, Problem, split


class Hessian:
    """Products of the Hessian at the present parameters with vectors.

    Parameters
    ----------
    objective : callable
        ``objective(params, step) -> (loss, grads)``.
    params : array, list or dict of arrays, or FlatBuffer
        Where; moved for differences, and put back.
    hvp : callable, optional
        ``hvp(params, vector, step) -> product``, both in the structure of the parameters. Without it, central
        differences of gradients, (g(p + hv) − g(p − hv)) / 2h with h = ∛ε (1 + ‖p‖) / ‖v‖ for the ε of the parameters'
        type: exact to about ε^⅔, 4e-11 of the curvature's scale in float64 and 2e-5 in float32.
    step : int
        What the objective is called with: the same batch for all products.
    """

    def __init__(self, objective: Objective, params: Any, hvp: Any = None, step: int = 0) -> None:
        self.problem = Problem(objective, params)
        if hvp is not None and not callable(hvp):
            raise TypeError(f"hvp must be callable as hvp(params, vector, step), got {hvp!r}")
        self.problem.first(step)
        self._hvp, self._step, self._point = hvp, step, self.problem.vector()
        self._exact = [a.copy() for a in self.problem.arrays]
        self._difference = max(float(np.finfo(a.dtype).eps) for a in self.problem.arrays) ** (1 / 3)
        self.products = 0

    def __call__(self, v: Array) -> Array:
        self.products += 1
        return self._differences(v) if self._hvp is None else self._given(v)

    def _differences(self, v: Array) -> Array:
        size = float(np.linalg.norm(v))
        if size == 0:
            return np.zeros_like(v)
        h = self._difference * (1 + float(np.linalg.norm(self._point))) / size
        try:
            self.problem.put(self._point + h * v)
            above = self.problem.gradient(self._step)
            moved = self.problem.vector()
            self.problem.put(self._point - h * v)
            below = self.problem.gradient(self._step)
            moved -= self.problem.vector()
        finally:
            for a, exact in zip(self.problem.arrays, self._exact, strict=True):
                a[...] = exact
        # What the parameters moved by after rounding to their type, along v, not what they were meant to.
        found = (above - below) * (size**2 / float(moved @ v))
        if not np.isfinite(found).all():
            raise ValueError("the gradients near params are not finite, so there is no curvature to measure")
        return found

    def _given(self, v: Array) -> Array:
        problem = self.problem
        parts = [x.astype(a.dtype) for x, a in zip(split(v, problem.arrays), problem.arrays, strict=True)]
        return problem.gradient_of(self._hvp(problem.params, problem.structure.build(parts), self._step))
