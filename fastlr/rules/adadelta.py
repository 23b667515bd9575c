"""Adadelta: kernels/rules/adadelta.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, fraction, positive
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Adadelta(Optimizer):
    """Adadelta: the gradient in units of the parameter: its own root mean square over that of the moves so far.

        g ← g + λp
        v ← ρv + (1−ρ)g²
        Δ = √(d + ε) / √(v + ε) · g
        d ← ρd + (1−ρ)Δ²
        p ← p − ηΔ

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1
        η ≥ 0, or a function of the 0-based step; the paper has none.
    rho : float, default 0.9
        ρ in [0, 1).
    eps : float, default 1e-6
        ε > 0, inside both roots. It sets the size of the first steps.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient.

    Notes
    -----
    The same update as ``torch.optim.Adadelta`` up to rounding; torch accepts ε = 0 and ρ = 1 too. State: ``v``, ``d``
    (torch: square_avg, acc_delta). Moves 28 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> Adadelta(p, rho=0.75, eps=1.0).step(np.float32([4, 0])).step
    1
    >>> p.round(6)
    array([-1.788854,  0.      ], dtype=float32)

    References
    ----------
    Zeiler, ADADELTA: An Adaptive Learning Rate Method, 2012, Algorithm 1.
    """

    rule = "adadelta"
    states = ("v", "d")
    hypers = {"rho": fraction, "eps": positive}

    def __init__(
        self,
        params: Any,
        lr: Rate = 1.0,
        rho: Number = 0.9,
        eps: Number = 1e-6,
        weight_decay: Number = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return group.rho, group.eps
