"""Adan: kernels/rules/adan.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, flag, positive, three_betas
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Adan(Optimizer):
    """Adam with Nesterov's momentum estimated from how the gradient changed since the step before.

        m ← β₁m + (1−β₁)g
        d ← β₂d + (1−β₂)(g − l)
        n ← β₃n + (1−β₃)(g + β₂(g − l))²
        p ← (p − η (m/c₁ + β₂d/c₂) / (√(n/c₃) + ε)) / (1 + ηλ)      cₖ = 1 − βₖᵗ,  t = 1, 2, …
        l ← g

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float, float), default (0.98, 0.92, 0.99)
        β₁, β₂, β₃ in [0, 1), as in the authors' code; the paper's are 1 − β.
    eps : float, default 1e-8
        ε > 0, outside the root and beside the corrected n.
    weight_decay : float, default 0
        λ ≥ 0, times the learning rate; the parameters are divided by 1 + ηλ after the step.
    no_prox : bool, default False
        Take ηλp off instead, as AdamW does.
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 16 bytes more.

    Notes
    -----
    Not in torch. The same update as that of the authors and timm up to rounding. At the first step l is g. (optax 0.2
    weighs d by 1−β₂ where the authors have β₂.) State: ``m``, ``d``, ``n`` (exp_avg, exp_avg_diff, exp_avg_sq), and l
    as ``last`` (theirs: −l, neg_pre_grad). Moves 44 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> opt = Adan(p, lr=0.5, betas=(0.5, 0.5, 0))
    >>> for g in ([4, 0], [2, 0]):
    ...     report = opt.step(np.float32(g))
    >>> opt.state["m"], opt.state["d"], opt.state["n"]
    (array([2., 0.], dtype=float32), array([-1.,  0.], dtype=float32), array([1., 0.], dtype=float32))

    References
    ----------
    Xie et al., Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models, 2022, Algorithm 1.
    """

    rule = "adan"
    states = ("m", "d", "n", "last")
    hypers = {"betas": three_betas, "eps": positive, "no_prox": flag, "cautious": flag}
    decoupled = True

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Number, Number, Number] = (0.98, 0.92, 0.99),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        no_prox: bool = False,
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (*group.betas, group.eps, not group.no_prox)
