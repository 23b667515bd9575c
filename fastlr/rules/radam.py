"""RAdam: kernels/rules/radam.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, eps_mode, flag, pair_of_betas, positive
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class RAdam(Optimizer):
    """Adam that takes plain momentum steps until v rests on enough gradients, and shorter steps until on many.

        g ← g + λp
        m ← β₁m + (1−β₁)g
        v ← β₂v + (1−β₂)g²
        ρ∞ = 2/(1−β₂) − 1,  ρ = ρ∞ − 2tβ₂ᵗ/c₂          cₖ = 1 − βₖᵗ,  t = 1, 2, …
        p ← p − η r (m/c₁) √c₂/(√v + ε)                ρ > 5,  r² = (ρ−4)(ρ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρ)
        p ← p − η m/c₁                                 ρ ≤ 5

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1). With β₂ = 0.999 the sixth step is the first with v; below β₂ = 2/3 none is.
    eps : float, default 1e-8
        ε > 0, outside the root and beside the uncorrected v: not as in Adam.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient, or with `decoupled_weight_decay` taken off the parameters, times η.
    decoupled_weight_decay : bool, default False
        Where the decay acts; decoupled as in AdamW.
    eps_mode : {"torch", "keras"}, default "torch"
        "keras": beside the corrected root, r (m/c₁) / (√(v/c₂) + ε), as in TensorFlow Addons and optax. (Keras itself
        has no RAdam.)
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 8 bytes more.

    Notes
    -----
    The same update as ``torch.optim.RAdam`` up to rounding; torch accepts ε = 0 too. State: ``m``, ``v`` (torch:
    exp_avg, exp_avg_sq). Moves 28 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> RAdam(p, lr=0.5).step(np.float32([4, 0])).step
    1
    >>> p.round(5)
    array([-2.,  0.], dtype=float32)

    References
    ----------
    Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, 2020, Algorithm 2.
    """

    rule = "radam"
    states = ("m", "v")
    hypers = {
        "betas": pair_of_betas,
        "eps": positive,
        "decoupled_weight_decay": flag,
        "eps_mode": eps_mode,
        "cautious": flag,
    }
    decoupled = "decoupled_weight_decay"

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        decoupled_weight_decay: bool = False,
        eps_mode: str = "torch",
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (*group.betas, group.eps, group.eps_mode == "keras")
