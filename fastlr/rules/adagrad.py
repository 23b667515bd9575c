"""Adagrad: kernels/rules/adagrad.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, eps_mode, nonnegative, positive
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Adagrad(Optimizer):
    """Adagrad: each parameter's rate falls with the root of its summed squared gradients.

        g ← g + λp
        s ← s + g²
        p ← p − η/(1 + (t−1)δ) · g / (√s + ε)          t = 1, 2, …

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-2
        η ≥ 0, or a function of the 0-based step.
    lr_decay : float, default 0
        δ ≥ 0.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient.
    initial_accumulator_value : float, default 0
        s before the first step, ≥ 0.
    eps : float, default 1e-10
        ε > 0, outside the root.
    eps_mode : {"torch", "keras"}, default "torch"
        "keras": inside the root, g / √(s + ε), as in Keras and optax. (Their own defaults: 1e-7, and 0.1 for the
        initial s.)

    Notes
    -----
    The same update as ``torch.optim.Adagrad`` up to rounding; torch accepts ε = 0 too. State: ``s`` (torch: sum).
    Moves 20 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> Adagrad(p, lr=0.5, initial_accumulator_value=9).step(np.float32([4, 0])).step
    1
    >>> p
    array([-0.4,  0. ], dtype=float32)

    References
    ----------
    Duchi, Hazan & Singer, Adaptive Subgradient Methods for Online Learning and Stochastic Optimization, 2011.
    """

    rule = "adagrad"
    states = ("s",)
    starting = ("initial_accumulator_value",)
    by_rows = True
    hypers = {"lr_decay": nonnegative, "initial_accumulator_value": nonnegative, "eps": positive, "eps_mode": eps_mode}

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        lr_decay: Number = 0.0,
        weight_decay: Number = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: Number = 1e-10,
        eps_mode: str = "torch",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return group.lr_decay, group.eps, group.eps_mode == "keras"

    @staticmethod
    def initial(key: str, group: Group) -> float:
        return float(group.initial_accumulator_value)
