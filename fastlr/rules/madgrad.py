"""MADGRAD: kernels/rules/madgrad.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, flag, fraction, positive
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class MADGRAD(Optimizer):
    """Dual averaging with momentum: always from where training began, along the sum of all gradients so far.

        g ← g + λp                                unless decoupled
        k = (η + ε) √t                            t = 1, 2, …;  0 where η is
        s ← s + kg
        v ← v + kg²
        z = x₀ − s / (∛v + ε)
        p ← μp + (1−μ)z                           and − (η + ε)λp if decoupled

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-2
        η ≥ 0, or a function of the 0-based step. Not comparable to that of SGD or Adam: search for it.
    momentum : float, default 0.9
        μ in [0, 1).
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient, or with `decoupled_weight_decay` taken off the parameters, times η + ε. The
        authors advise less of it than elsewhere, often none.
    eps : float, default 1e-6
        ε > 0, outside the root, and added to η.
    decoupled_weight_decay : bool, default False
        Where the decay acts; decoupled needs μ > 0, or z would forget it in the next step.

    Notes
    -----
    Not in torch. The same update as the authors' ``madgrad.MADGRAD`` and, without decoupled decay,
    ``optax.contrib.madgrad`` up to rounding. The authors' accepts ε = 0; for μ = 0 it does not keep x₀ but computes it
    back from p in each step; and its t is the model's, here it is the parameter's own. The cube root is right within
    1.71 roundings and has the same bits on every machine. x₀ is the parameter before its first step: state ``x0``, 0
    until then, beside ``s`` and ``v`` (grad_sum_sq). Moves 32 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> MADGRAD(p, lr=1.0, momentum=0.5).step(np.float32([8, 0])).step
    1
    >>> p.round(5)
    array([-1.,  0.], dtype=float32)

    References
    ----------
    Defazio & Jelassi, Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged Gradient Method for
    Stochastic Optimization, 2021, Algorithm 1.
    """

    rule = "madgrad"
    tunable = False
    states = ("s", "v", "x0")
    hypers = {"momentum": fraction, "eps": positive, "decoupled_weight_decay": flag}
    decoupled = "decoupled_weight_decay"

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        momentum: Number = 0.9,
        weight_decay: Number = 0.0,
        eps: Number = 1e-6,
        decoupled_weight_decay: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        if group.decoupled_weight_decay and group.weight_decay > 0 and group.momentum == 0:
            raise ValueError(
                f"decoupled_weight_decay needs momentum > 0, got {group.momentum!r}: without it p forgets what was no "
                "gradient; leave decoupled_weight_decay False, or choose a momentum"
            )
        return group.momentum, group.eps
