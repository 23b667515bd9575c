"""Rules that take a diagonal of the Hessian beside the gradient: kernels/rules/adahessian.h, sophia.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr import _core
from fastlr.groups import Group
from fastlr.hyper import Number, flag, pair_of_betas, positive, real
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _power(name: str, x: object) -> float:
    value = real(name, x)
    if value not in (0.5, 1):
        raise ValueError(f"{name} must be 1 or 0.5, got {x!r}")
    return value


class AdaHessian(_core.InformedStepper, Optimizer):
    """Adam with a diagonal of the Hessian, D, in the place of the gradient in v.

        m ← β₁m + (1−β₁)g
        v ← β₂v + (1−β₂)D²
        p ← p − ηλp − η (m/c₁) / ((√(v/c₂))ᵏ + ε)          cₖ = 1 − βₖᵗ,  t = 1, 2, …

    Every step takes D: ``opt.step(grads, hessian=hutchinson(hvp, params, step=t))``. To estimate it every few steps
    only, give the last one again in between, as timm does.

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 0.15
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-4
        ε > 0, outside the root and beside the corrected v.
    weight_decay : float, default 0
        λ ≥ 0, times the learning rate, taken off the parameters (the authors call it L2, and have it here).
    hessian_power : float, default 1
        k, 1 or 0.5. Another power is not made of the operations that give the same bits everywhere.

    Notes
    -----
    The same update as the authors' ``Adahessian`` up to rounding. Its average of |D| over a convolution's kernel, or a
    row, is `spatial_average`, which acts on D before it is given. State: ``m``, ``v`` (exp_avg, exp_hessian_diag_sq).
    Moves 32 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> AdaHessian(p, lr=0.5, eps=1e-6).step(np.float32([4, 1]), hessian=np.float32([8, -1])).step
    1
    >>> p.round(5)    # g / |D|: Newton's step
    array([-0.25, -0.5 ], dtype=float32)

    References
    ----------
    Yao et al., ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning, 2021, Algorithm 1.
    """

    rule = "adahessian"
    informed = "adahessian"
    states = ("m", "v")
    hypers = {"betas": pair_of_betas, "eps": positive, "hessian_power": _power}
    decoupled = True

    def __init__(
        self,
        params: Any,
        lr: Rate = 0.15,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-4,
        weight_decay: Number = 0.0,
        hessian_power: Number = 1.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (*group.betas, group.eps, float(group.hessian_power == 0.5))


class Sophia(_core.InformedStepper, Optimizer):
    """Momentum over a running mean of Hessian diagonals D, and no farther than η: sign descent where D says little.

        m ← β₁m + (1−β₁)g
        h ← β₂h + (1−β₂)D                                   in steps that are given D
        p ← p − ηλp − η clip((m/c₁) / max(ρh, ε), ±1)       c₁ = 1, or 1 − β₁ᵗ with use_bias_correction

    ``opt.step(grads)`` uses the h it has; ``opt.step(grads, hessian=D)``, every ten steps or so, takes in a new one
    first. Sophia-H: D is ``hutchinson(hvp, params, step=t)``. Sophia-G: D is B·g̃², g̃ the gradient of a batch of B with
    labels drawn from the model itself (Gauss-Newton-Bartlett), never negative.

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-4
        η ≥ 0, or a function of the 0-based step. The longest way of a parameter in a step.
    betas : (float, float), default (0.965, 0.99)
        β₁, β₂ in [0, 1).
    rho : float, default 0.04
        ρ > 0, the paper's γ: 0.01 for H and 0.05 for G there, 0.04 for G in the authors' code. The larger, the fewer
        parameters are clipped; between a tenth and a half of them should not be.
    eps : float, default 1e-12
        ε > 0, the least denominator: where h is negative or 0 the step is η sign(m).
    weight_decay : float, default 0.1
        λ ≥ 0, times the learning rate, taken off the parameters.
    use_bias_correction : bool, default False
        Whether m is corrected for its start at 0, as in optax and in the authors' SophiaH.

    Notes
    -----
    The paper's update. The authors' SophiaG has ρBh + 1e-15 in the place of the maximum, with h of g̃², so D here is B
    times that. optax takes D in after the step, for the next. State: ``m``, ``h`` (exp_avg, hessian). Moves 28 or, in
    steps with D, 32 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(3, np.float32)
    >>> opt = Sophia(p, lr=0.5, betas=(0, 0), rho=1, weight_decay=0)
    >>> opt.step(np.float32([1, 1, 1]), hessian=np.float32([2, 0.1, -1])).step
    1
    >>> p
    array([-0.25, -0.5 , -0.5 ], dtype=float32)

    References
    ----------
    Liu et al., Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training, 2024, Algorithm 3.
    """

    rule = "sophia"
    informed = "sophia_informed"
    states = ("m", "h")
    hypers = {"betas": pair_of_betas, "rho": positive, "eps": positive, "use_bias_correction": flag}
    decoupled = True

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-4,
        betas: tuple[Number, Number] = (0.965, 0.99),
        rho: Number = 0.04,
        eps: Number = 1e-12,
        weight_decay: Number = 0.1,
        use_bias_correction: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (*group.betas, group.rho, group.eps, float(group.use_bias_correction))
