"""Adopt: kernels/rules/adopt.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, flag, nonnegative, optional, pair_of_betas, positive
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Adopt(Optimizer):
    """Adam that divides by what v was before the gradient, and averages after that: it converges with any β₂.

        g ← g + λp
        v ← g²                                        t = 1: nothing moves
        d = g / max(√v, ε), clipped to ±(t−1)^k       t > 1
        m ← β₁m + (1−β₁)d
        p ← p − ηm
        v ← β₂v + (1−β₂)g²

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.9, 0.9999)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-6
        ε > 0, the least that is divided by.
    clip_exponent : float, optional, default 0.25
        k ≥ 0, as in the authors' code and optax (timm: 0.333). None does not clip: the algorithm as first published.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient, or with `decoupled_weight_decay` taken off the parameters, times η.
    decoupled_weight_decay : bool, default False
        Where the decay acts; decoupled as in AdamW.
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 12 bytes more.

    Notes
    -----
    Not in torch. The same update as the authors' and as ``optax.contrib.adopt`` up to rounding. The decay waits for the
    second step too. State: ``m``, ``v`` (exp_avg, exp_avg_sq). Moves 28 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> opt = Adopt(p, lr=0.5, betas=(0.5, 0.5))
    >>> for g in ([4, 0], [-2, 0]):
    ...     report = opt.step(np.float32(g))
    >>> p, opt.state["v"]
    (array([0.125, 0.   ], dtype=float32), array([10.,  0.], dtype=float32))

    References
    ----------
    Taniguchi et al., ADOPT: Modified Adam Can Converge with Any β₂ with the Optimal Rate, 2024, Algorithm 2.
    """

    rule = "adopt"
    states = ("m", "v")
    hypers = {
        "betas": pair_of_betas,
        "eps": positive,
        "clip_exponent": optional(nonnegative),
        "decoupled_weight_decay": flag,
        "cautious": flag,
    }
    decoupled = "decoupled_weight_decay"

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.9999),
        eps: Number = 1e-6,
        clip_exponent: Number | None = 0.25,
        weight_decay: Number = 0.0,
        decoupled_weight_decay: bool = False,
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (*group.betas, group.eps, -1.0 if group.clip_exponent is None else group.clip_exponent)
