"""LaProp: kernels/rules/laprop.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, flag, pair_of_betas, positive
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LaProp(Optimizer):
    """Adam that divides the gradient first and averages then, so that β₁ and β₂ are free of each other.

        v ← β₂v + (1−β₂)g²
        m ← β₁m + (1−β₁)ηg / (√(v/c₂) + ε)        c₂ = 1 − β₂ᵗ,  t = 1, 2, …
        l ← β₁l + (1−β₁)η
        p ← p − ηλp − (η/l)m

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 4e-4
        η ≥ 0, or a function of the 0-based step.
        The average m is one of steps, each made with the rate of its time.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-15
        ε > 0, outside the root and beside the corrected v.
    weight_decay : float, default 0
        λ ≥ 0, times the learning rate, taken off the parameters.
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 12 bytes more.

    Notes
    -----
    Not in torch. The same update as that of the authors and timm up to rounding, with two differences: the decay is of
    the parameters before the step (timm: after it; the authors leave η out), and at η = 0 nothing moves (they: by m).
    While η stays the same, η/l is 1/(1−β₁ᵗ), as in the paper, which has η outside of m. State: ``m``, ``v`` (exp_avg,
    exp_avg_sq), and the number l (exp_avg_lr_1). Moves 28 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> opt = LaProp(p, lr=0.5, betas=(0.5, 0.5))
    >>> opt.step(np.float32([4, 0])).step
    1
    >>> p.round(6), opt.state["m"].round(6)
    (array([-0.5,  0. ], dtype=float32), array([0.25, 0.  ], dtype=float32))

    References
    ----------
    Ziyin, Wang & Ueda, LaProp: Separating Momentum and Adaptivity in Adam, 2020, Algorithm 1.
    """

    rule = "laprop"
    states = ("m", "v")
    hypers = {"betas": pair_of_betas, "eps": positive, "cautious": flag}
    decoupled = True

    def __init__(
        self,
        params: Any,
        lr: Rate = 4e-4,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-15,
        weight_decay: Number = 0.0,
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (*group.betas, group.eps)
