"""NAdam: kernels/rules/nadam.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, flag, nonnegative, pair_of_betas, positive
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class NAdam(Optimizer):
    """Adam with Nesterov's momentum, on a schedule of its own.

        g ← g + λp
        μ(t) = β₁(1 − ½·0.96^(tψ))                Π ← Πμ(t), at first 1,  t = 1, 2, …
        m ← β₁m + (1−β₁)g
        v ← β₂v + (1−β₂)g²                        c₂ = 1 − β₂ᵗ
        p ← p − η ((1−μ(t))g/(1−Π) + μ(t+1)m/(1−Πμ(t+1))) / (√(v/c₂) + ε)

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 2e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-8
        ε > 0, outside the root and beside the corrected v; in Keras too.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient, or with `decoupled_weight_decay` taken off the parameters, times η.
    momentum_decay : float, default 4e-3
        ψ ≥ 0. (Dozat: 4e-3; Keras: 1.)
    decoupled_weight_decay : bool, default False
        Where the decay acts; decoupled as in AdamW.
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 8 bytes more.

    Notes
    -----
    The same update as ``torch.optim.NAdam`` up to rounding; torch accepts ε = 0 too, and keeps Π in its default dtype,
    where fastlr has a double. optax' nadam has no schedule of μ. State: ``m``, ``v`` (torch: exp_avg, exp_avg_sq), and
    the number Π (mu_product). Moves 28 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> NAdam(p, lr=0.5, betas=(0.5, 0.75), momentum_decay=0).step(np.float32([4, 0])).step
    1
    >>> p.round(5)
    array([-0.56667,  0.     ], dtype=float32)

    References
    ----------
    Dozat, Incorporating Nesterov Momentum into Adam, 2016, Algorithm 2.
    """

    rule = "nadam"
    states = ("m", "v")
    hypers = {
        "betas": pair_of_betas,
        "eps": positive,
        "momentum_decay": nonnegative,
        "decoupled_weight_decay": flag,
        "cautious": flag,
    }
    decoupled = "decoupled_weight_decay"

    def __init__(
        self,
        params: Any,
        lr: Rate = 2e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        momentum_decay: Number = 4e-3,
        decoupled_weight_decay: bool = False,
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (*group.betas, group.eps, group.momentum_decay)
