"""AdaBelief: kernels/rules/adabelief.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, flag, pair_of_betas, positive
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AdaBelief(Optimizer):
    """Adam that divides by how far gradients stray from their mean: the steps are long where they agree.

        m ← β₁m + (1−β₁)g
        s ← β₂s + (1−β₂)(g − m)² + ε
        p ← p − ηλp − η (m/c₁) / (√(s/c₂) + ε)    cₖ = 1 − βₖᵗ,  t = 1, 2, …

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-16
        ε > 0, added to s at every step, where it stays, and outside the root beside the corrected s, as the authors'
        code and optax have it. The authors advise 1e-8 where SGD does better than Adam.
    weight_decay : float, default 0
        λ ≥ 0, times the learning rate, taken off the parameters, or without `decoupled_weight_decay` added to the
        gradient.
    decoupled_weight_decay : bool, default True
        Where the decay acts; decoupled as in AdamW.
    rectify : bool, default False
        Whether to step as `RAdam` does: by ηm/c₁ while v rests on few gradients, later by η r (m/c₁) √c₂/(√s + ε). The
        authors' package and timm do so by default; the paper and optax do not.
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 8 bytes more.

    Notes
    -----
    Not in torch. The same update as ``optax.adabelief``, and as that of adabelief-pytorch and timm with the same
    `rectify`, up to rounding. State: ``m``, ``s`` (exp_avg, exp_avg_var). Moves 28 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> opt = AdaBelief(p, lr=0.5, betas=(0.5, 0.75))
    >>> opt.step(np.float32([8, 0])).step
    1
    >>> p, opt.state["s"]
    (array([-1.,  0.], dtype=float32), array([4.e+00, 1.e-16], dtype=float32))

    References
    ----------
    Zhuang et al., AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients, 2020, Algorithm 2.
    """

    rule = "adabelief"
    states = ("m", "s")
    hypers = {
        "betas": pair_of_betas,
        "eps": positive,
        "decoupled_weight_decay": flag,
        "rectify": flag,
        "cautious": flag,
    }
    decoupled = "decoupled_weight_decay"

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-16,
        weight_decay: Number = 0.0,
        decoupled_weight_decay: bool = True,
        rectify: bool = False,
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (*group.betas, group.eps, group.rectify)
