"""The extreme eigenvalues of the Hessian, from products with it, and the rates beyond which a rule diverges."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastlr.buffers import Array
from fastlr.extras import need
from fastlr.groups import Group
from fastlr.hyper import count, inside
from fastlr.optimizer import Optimizer
from fastlr.rules.adam import Adam, AdamW, AMSGrad
from fastlr.rules.rmsprop import RMSprop
from fastlr.rules.sgd import SGD
from fastlr.training.hessian import Hessian
from fastlr.training.objective import Objective, joined

Product = Callable[[Array], Array]

_DENSE = 32  # parameters up to which the whole matrix takes fewer products than Lanczos


@dataclass(frozen=True)
class Curvature:
    """Eigenvalues of the Hessian at a point.

    Attributes
    ----------
    largest, smallest : float
        The extreme eigenvalues. The smallest is negative at a saddle.
    residual : float
        ‖Hv − λv‖₂ for the worse of the two with ‖v‖ = 1: an eigenvalue of the symmetric H is within this of each.
    products : int
        Products with the Hessian that it took.

    Notes
    -----
    For least squares and logistic regression `threshold` is exact, and a bound everywhere. For a neural network it is a
    diagnostic: training at a constant rate raises the largest eigenvalue until it meets the threshold and then stays
    there, at the edge of stability (Cohen et al., 2021). A rate above the threshold at the start need not diverge,
    and one below it is not safe for ever.
    """

    largest: float
    smallest: float
    residual: float
    products: int
    vector: Array = field(repr=False)
    hessian: Hessian = field(repr=False)

    def threshold(self, optimizer: Optimizer | None = None) -> float:
        """The rate beyond which the optimizer diverges on the quadratic with this curvature; ∞ where it is nowhere > 0.

        Parameters
        ----------
        optimizer : Optimizer, optional
            `SGD` with its momentum, `RMSprop`, `Adam`, `AdamW` or `AMSGrad` over these parameters; plain gradient
            descent unless given. Adaptive ones with the preconditioner that they have now, as if it stayed.
        """
        if optimizer is None:
            return stable_rate(self.largest)
        groups = optimizer.groups
        n = sum(a.size for a in optimizer._structure.arrays)
        if n != self.hessian.problem.size:
            raise ValueError(f"optimizer must be over {self.hessian.problem.size} parameters, got one over {n}")
        if len({tuple(sorted((k, repr(x)) for k, x in g if not k.startswith("lr"))) for g in groups}) > 1:
            raise ValueError("threshold needs groups with the same hyper-parameters except lr and lr_scale")
        scales = np.concatenate([np.full(piece.size, groups[piece.group].lr_scale) for piece in optimizer._pieces])
        coupled, decoupled = optimizer.decay(groups[0])
        if np.ptp(scales) == 0 and isinstance(optimizer, SGD):
            return _rate(groups[0], (self.largest + coupled) * float(scales[0]), 0.0)
        # P^-1 (H + λ) has the eigenvalues of the symmetric P^-1/2 (H + λ) P^-1/2.
        root = np.sqrt(scales / _preconditioner(optimizer))

        def product(v: Array) -> Array:
            return root * (self.hessian(root * v) + coupled * (root * v))

        largest, _, _ = _extremes(product, n, 1e-6, 0, both=False)
        return _rate(groups[0], largest, decoupled * float(scales.max()))


def curvature(
    objective: Objective,
    params: Any,
    hvp: Any = None,
    *,
    step: int = 0,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> Curvature:
    """The largest and the smallest eigenvalue of the Hessian, by Lanczos' method on products with it.

    Parameters
    ----------
    objective : callable
        ``objective(params, step) -> (loss, grads)``: the whole data, or one batch, the same for each product. Put
        weight decay that it does not contain into the optimizer given to `Curvature.threshold`.
    params : array, list or dict of arrays, or FlatBuffer
        Where. Unchanged afterwards, bit for bit.
    hvp : callable, optional
        ``hvp(params, vector, step) -> product``, both in the structure of the parameters; else central differences of
        gradients are taken.
    step : int, default 0
        What the objective is called with.
    tolerance : float, default 1e-6
        Relative accuracy asked of Lanczos. With differences in float32 the gradients limit it to about 1e-4.
    seed : int, default 0
        Of the first vector.

    Returns
    -------
    Curvature

    Examples
    --------
    >>> import fastlr, numpy as np
    >>> w = np.ones(2)
    >>> found = fastlr.tune.curvature(lambda w, step: (w[0] ** 2 - w[1] ** 2, np.array([2 * w[0], -2 * w[1]])), w)
    >>> round(found.largest, 6), round(found.smallest, 6), round(found.threshold(), 6)
    (2.0, -2.0, 1.0)
    """
    step = count("step", step, least=0)
    tolerance = inside("tolerance", tolerance)
    hessian = Hessian(objective, params, hvp, step)
    largest, smallest, vectors = _extremes(hessian, hessian.problem.size, tolerance, seed)
    residual = max(float(np.linalg.norm(hessian(v) - x * v)) for x, v in zip((largest, smallest), vectors, strict=True))
    return Curvature(largest, smallest, residual, hessian.products, vectors[0], hessian)


def stable_rate(
    largest: float, momentum: float = 0.0, *, nesterov: bool = False, dampening: float = 0.0, decay: float = 0.0
) -> float:
    """The rate beyond which gradient descent diverges on a quadratic whose largest curvature is `largest`.

        2 / L        2(1+μ) / (1−τ)L  with momentum        2(1+μ) / (1+2μ)L  with Nesterov's

    where L includes `decay`. ∞ if L ≤ 0. Adam's average m ← βm + (1−β)g is momentum β with dampening β.

    Examples
    --------
    >>> stable_rate(10.0), stable_rate(10.0, 0.9), round(stable_rate(10.0, 0.9, nesterov=True), 3)
    (0.2, 0.38, 0.136)
    """
    curved = (largest + decay) * ((1 + 2 * momentum) if nesterov else (1 - dampening))
    return 2 * (1 + momentum) / curved if curved > 0 else math.inf


def _rate(group: Group, largest: float, decoupled: float) -> float:
    """The threshold of `lr` where the curvature, after preconditioning, scales and coupled decay, is `largest`."""
    hyper = dict(group)
    if "betas" not in hyper:
        momentum = hyper.get("momentum", 0.0)
        # Dampening has no effect without momentum.
        dampening = hyper.get("dampening", 0.0) if momentum else 0.0
        return stable_rate(largest, momentum, nesterov=hyper.get("nesterov", False), dampening=dampening)
    b = hyper["betas"][0]
    # m ← βm + (1−β)hx, x ← x − η(m + λx) has the eigenvalue −1 where 2(1+β) = η((1−β)h + (1+β)λ).
    curved = (1 - b) * largest + (1 + b) * decoupled
    return 2 * (1 + b) / curved if curved > 0 else math.inf


def _preconditioner(optimizer: Optimizer) -> Array:
    """The diagonal that the optimizer divides its average gradient by, as of now."""
    if isinstance(optimizer, SGD):
        return np.ones(sum(a.size for a in optimizer._structure.arrays))
    if not isinstance(optimizer, Adam | AdamW | AMSGrad | RMSprop):
        raise TypeError(
            f"threshold is known for SGD, RMSprop, Adam, AdamW and AMSGrad, not for {type(optimizer).__name__}"
        )
    if optimizer.step_count == 0:
        raise ValueError("optimizer must have made a step, or there is no preconditioner; train it first")
    group = optimizer.groups[0]
    key = "x" if isinstance(optimizer, AMSGrad) else "v"
    v = joined(optimizer._entries[key])
    eps = float(group.eps)
    if isinstance(optimizer, RMSprop):
        if group.centered:
            v = v - joined(optimizer._entries["a"]) ** 2
    elif group.betas[1]:
        correction = -math.expm1(optimizer.step_count * math.log(group.betas[1]))
        v = v / correction
        if group.eps_mode == "keras":  # added before the correction
            eps /= math.sqrt(correction)
    return np.sqrt(np.maximum(v, 0)) + eps


def _extremes(
    product: Product, n: int, tolerance: float, seed: int, both: bool = True
) -> tuple[float, float, list[Array]]:
    """Largest and smallest eigenvalue, and their vectors."""
    if n <= _DENSE:
        matrix = np.array([product(e) for e in np.eye(n)])
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        return float(values[-1]), float(values[0]), [vectors[:, -1], vectors[:, 0]]
    linalg = need("scipy.sparse.linalg", "tune", "curvature")
    operator = linalg.LinearOperator((n, n), matvec=product, dtype=np.float64)
    start = np.random.default_rng(seed).normal(size=n)
    found = []
    for which in ("LA", "SA") if both else ("LA",):
        values, vectors = linalg.eigsh(operator, k=1, which=which, v0=start, tol=tolerance)
        found.append((float(values[0]), vectors[:, 0]))
    return found[0][0], found[-1][0], [vector for _, vector in found]
