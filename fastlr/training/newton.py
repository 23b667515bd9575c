"""Newton's method: the inverse Hessian is the rate. Dense for small problems, by conjugate gradients for large ones."""

from __future__ import annotations

import functools
from abc import abstractmethod
from typing import Any

import numpy as np

from fastlr.buffers import Array
from fastlr.extras import need
from fastlr.hyper import count, inside, nonnegative
from fastlr.training.hessian import Hessian
from fastlr.training.objective import Objective, joined, split
from fastlr.training.stepsize import Evaluate, StepRule, backtrack

_TRIES = 60


class _Newton(StepRule):
    """What both share: a direction d with gᵀd > 0, and backtracking from the full step."""

    def __init__(self, params: Any, objective: Objective, hvp: Any = None, c: float = 1e-4) -> None:
        super().__init__(params, 1.0)
        if not callable(objective):
            raise TypeError(
                f"objective must be callable as objective(params, step) -> (loss, grads), got {objective!r}"
            )
        if hvp is not None and not callable(hvp):
            raise TypeError(f"hvp must be callable as hvp(params, vector, step), got {hvp!r}")
        self._params, self._objective, self._hvp, self._c = params, objective, hvp, inside("c", c)
        self._direction: list[Array] = []

    def _rate(
        self, g: list[Array], size: float, loss: float | None, evaluate: Evaluate | None, before: list[Array]
    ) -> float:
        step = self.step_count
        if evaluate is None:
            evaluate = functools.partial(self._objective, self._params, step)
        if loss is None:
            loss = float(evaluate()[0])
        flat = joined(g)
        if size == 0:
            self._direction = [np.zeros_like(x) for x in g]
            return 0.0
        d = self._solve(Hessian(self._objective, self._params, self._hvp, step), flat, size)
        slope = float(flat @ d)
        if not slope > 0:  # the Hessian was too inexact: steepest descent
            d, slope = flat, size**2
        self._direction = [part.astype(x.dtype) for part, x in zip(split(d, g), g, strict=True)]
        return backtrack(self, before, self._direction, slope, loss, evaluate, 1.0, self._c, 0.5, _TRIES)

    def _move(self, before: Any, direction: Any, lr: float) -> None:
        super()._move(before, self._direction, lr)

    @abstractmethod
    def _solve(self, hessian: Hessian, g: Array, size: float) -> Array:
        """About H⁻¹g."""


class Newton(_Newton):
    """Newton's method with the whole Hessian, damped.

        (H + μI) d = g,  μ = damping · ‖g‖        p ← p − ηd,  η = 1, ½, ¼, ... by Armijo's condition

    Where H + μI is not positive definite, μ is raised tenfold until it is. Near a minimum μ vanishes with the gradient
    and η is 1: convergence is quadratic.

    Parameters
    ----------
    params : array, list or dict of arrays, or FlatBuffer
        Updated in place; float64 unless little accuracy is asked for. n parameters take n products with the Hessian and
        n³/3 operations a step: for up to a few thousand.
    objective : callable
        ``objective(params, step) -> (loss, grads)``.
    hvp : callable, optional
        ``hvp(params, vector, step)``, the Hessian at the parameters times a vector, in their structure; else central
        differences of gradients.
    damping : float, default 1e-3
        ≥ 0.

    Examples
    --------
    >>> import numpy as np
    >>> def objective(w, step):
    ...     return float(np.cosh(w - 1).sum()), np.sinh(w - 1)
    >>> w = np.array([3.0])
    >>> opt = Newton(w, objective)
    >>> for _ in range(6):
    ...     report = opt.step(objective(w, 0)[1])
    >>> bool(abs(w[0] - 1) < 1e-9)
    True

    References
    ----------
    Nocedal & Wright, Numerical optimization, 2006, chapter 3.
    """

    def __init__(
        self, params: Any, objective: Objective, hvp: Any = None, damping: float = 1e-3, c: float = 1e-4
    ) -> None:
        super().__init__(params, objective, hvp, c)
        self.damping = nonnegative("damping", damping)

    def _solve(self, hessian: Hessian, g: Array, size: float) -> Array:
        n = len(g)
        matrix = np.array([hessian(e) for e in np.eye(n)])
        matrix = (matrix + matrix.T) / 2
        mu = self.damping * size
        scale = max(float(np.abs(matrix).max()), np.finfo(np.float64).tiny)
        while True:
            try:
                factor = np.linalg.cholesky(matrix + mu * np.eye(n))
            except np.linalg.LinAlgError:
                mu = max(10 * mu, 1e-8 * scale)
                continue
            return np.linalg.solve(factor.T, np.linalg.solve(factor, g))


class NewtonCG(_Newton):
    """Newton's method, its system solved by conjugate gradients from products with the Hessian alone.

        H d = g  to ‖Hd − g‖ ≤ min(½, ‖g‖ / ‖g₀‖) ‖g‖        p ← p − ηd,  η = 1, ½, ¼, ... by Armijo's condition

    g₀ is the first gradient: the accuracy rises with convergence, which is quadratic near a minimum. A direction of
    negative curvature ends the conjugate gradients with what they have.

    Parameters
    ----------
    params : array, list or dict of arrays, or FlatBuffer
        Updated in place; float64 unless little accuracy is asked for.
    objective : callable
        ``objective(params, step) -> (loss, grads)``.
    hvp : callable, optional
        As for `Newton`.
    max_products : int, default 200
        Conjugate-gradient iterations a step.

    References
    ----------
    Dembo, Eisenstat & Steihaug, Inexact Newton methods, 1982.
    """

    _remembers = ("first",)

    def __init__(
        self, params: Any, objective: Objective, hvp: Any = None, max_products: int = 200, c: float = 1e-4
    ) -> None:
        super().__init__(params, objective, hvp, c)
        self.max_products = count("max_products", max_products)
        self._first = 0.0

    def _solve(self, hessian: Hessian, g: Array, size: float) -> Array:
        linalg = need("scipy.sparse.linalg", "tune", "NewtonCG")
        self._first = self._first or size
        best = [g]

        class _Concave(Exception):
            pass

        def product(p: Array) -> Array:
            hp = hessian(p)
            if not p @ hp > 0:
                raise _Concave
            return hp

        def keep(d: Array) -> None:
            best[0] = d.copy()

        operator = linalg.LinearOperator((len(g), len(g)), matvec=product, dtype=np.float64)
        tolerance = min(0.5, size / self._first)
        try:
            d, _ = linalg.cg(operator, g, rtol=tolerance, atol=0.0, maxiter=self.max_products, callback=keep)
        except _Concave:
            return best[0]
        return d  # type: ignore[no-any-return]
