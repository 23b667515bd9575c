"""Quasi-hyperbolic momentum: kernels/rules/qhm.h and qhadam.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, flag, fraction, pair_of_betas, pair_of_nus, positive, share
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class QHAdam(Optimizer):
    """Adam that weighs each of its averages against the newest gradient, or its square.

        g ← g + λp
        m ← β₁m + (1−β₁)g
        v ← β₂v + (1−β₂)g²
        p ← p − η (ν₁m/c₁ + (1−ν₁)g) / (√(ν₂v/c₂ + (1−ν₂)g²) + ε)      cₖ = 1 − βₖᵗ,  t = 1, 2, …

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1). The authors advise 0.995 for β₁ with ν₁ = 0.8.
    nus : (float, float), default (1.0, 1.0)
        ν₁, ν₂ in [0, 1]. (1, 1) is Adam, (β₁, 1) nearly NAdam.
    eps : float, default 1e-8
        ε > 0, outside the root.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient, or with `decoupled_weight_decay` taken off the parameters, times η (QHAdamW).
    decoupled_weight_decay : bool, default False
        Where the decay acts; decoupled as in AdamW.
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 8 bytes more.

    Notes
    -----
    Not in torch. The same update as that of the authors' package qhoptim up to rounding. State: ``m``, ``v``, not yet
    corrected (theirs are m/c₁ and v/c₂). Moves 28 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> opt = QHAdam(p, lr=0.5, betas=(0.5, 0.5), nus=(0.5, 0))
    >>> for g in ([3, 0], [1, 0]):
    ...     report = opt.step(np.float32(g))
    >>> p.round(4)
    array([-1.1667,  0.    ], dtype=float32)

    References
    ----------
    Ma & Yarats, Quasi-hyperbolic Momentum and Adam for Deep Learning, 2019, section 4.
    """

    rule = "qhadam"
    states = ("m", "v")
    hypers = {
        "betas": pair_of_betas,
        "nus": pair_of_nus,
        "eps": positive,
        "decoupled_weight_decay": flag,
        "cautious": flag,
    }
    decoupled = "decoupled_weight_decay"

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        nus: tuple[Number, Number] = (1.0, 1.0),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        decoupled_weight_decay: bool = False,
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (*group.betas, group.eps, *group.nus)


class QHM(Optimizer):
    """A step between that of gradient descent and that of momentum.

        g ← g + λp
        b ← μb + (1−μ)g
        p ← p − η ((1−ν)g + νb)

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
        Dampened: 1/(1−μ) times the rate of `SGD` with momentum.
    momentum : float, default 0.999
        μ in [0, 1).
    nu : float, default 0.7
        ν in [0, 1]. 0 is gradient descent, 1 dampened momentum, μ Nesterov's. The authors advise 0.7 with μ = 0.999.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient, or with `decoupled_weight_decay` taken off the parameters, times η.
    decoupled_weight_decay : bool, default False
        Where the decay acts; decoupled as in AdamW.
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 8 bytes more.

    Notes
    -----
    Not in torch. The same update as that of the authors' package qhoptim up to rounding. State: ``b``
    (momentum_buffer). Moves 20 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> QHM(p, lr=0.5, momentum=0.5, nu=0.5).step(np.float32([4, 0])).step
    1
    >>> p
    array([-1.5,  0. ], dtype=float32)

    References
    ----------
    Ma & Yarats, Quasi-hyperbolic Momentum and Adam for Deep Learning, 2019, section 3.
    """

    rule = "qhm"
    states = ("b",)
    hypers = {"momentum": fraction, "nu": share, "decoupled_weight_decay": flag, "cautious": flag}
    decoupled = "decoupled_weight_decay"

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        momentum: Number = 0.999,
        nu: Number = 0.7,
        weight_decay: Number = 0.0,
        decoupled_weight_decay: bool = False,
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return group.momentum, group.nu
