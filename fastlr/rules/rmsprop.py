"""RMSprop: kernels/rules/rmsprop.h."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, eps_mode, flag, fraction, nonnegative, positive
from fastlr.optimizer import Optimizer, Options, Rate, Variant, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class RMSprop(Optimizer):
    """RMSprop: the gradient over the root of a running mean of its squares.

        g ← g + λp
        v ← αv + (1−α)g²
        a ← αa + (1−α)g                                         (centered)
        d = g / (√v + ε)      or     g / (√(v − a²) + ε)        (centered)
        p ← p − ηd            or     b ← μb + d,  p ← p − ηb    (μ > 0)

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-2
        η ≥ 0, or a function of the 0-based step.
    alpha : float, default 0.99
        α in [0, 1).
    eps : float, default 1e-8
        ε > 0, outside the root.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient.
    momentum : float, default 0
        μ ≥ 0, usually below 1. The optimizer keeps a buffer if any group has momentum; that cannot change later.
    centered : bool, default False
        Whether to divide by an estimate of the variance. The same in all groups, for good.
    initial_accumulator_value : float, default 0
        What v starts at, ≥ 0: 0 as in torch and Keras, or 1 as in TensorFlow's first version, whose first steps are so
        the shorter.
    eps_mode : {"torch", "keras"}, default "torch"
        "keras": inside the root, g / √(v + ε) or g / √(v − a² + ε), as in Keras, TensorFlow and, with `eps_in_sqrt`,
        optax. (Keras' own default is 1e-7, and it keeps η inside b.)

    Notes
    -----
    The same update as ``torch.optim.RMSprop`` up to rounding; torch accepts ε = 0 too, and starts v at 0.
    As in torch v − a² is not clamped: a gradient that stays constant for very long rounds it below zero, and the step
    to NaN. State: ``v``, with `centered` ``a``, with `momentum` ``b`` (torch: square_avg, grad_avg, momentum_buffer).
    Moves 20, 28 or 36 bytes a float32 parameter, for one, two or three of these.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> RMSprop(p, lr=0.5, alpha=0.75).step(np.float32([4, 0])).step
    1
    >>> p
    array([-1.,  0.], dtype=float32)

    References
    ----------
    Tieleman & Hinton, Lecture 6.5 of Neural Networks for Machine Learning, 2012.
    Graves, Generating Sequences With Recurrent Neural Networks, 2013 (centered).
    """

    rule = "rmsprop"
    states = ("v",)
    optional_states = ("a", "b")
    starting = ("initial_accumulator_value",)
    hypers = {
        "alpha": fraction,
        "eps": positive,
        "momentum": nonnegative,
        "centered": flag,
        "initial_accumulator_value": nonnegative,
        "eps_mode": eps_mode,
    }

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        alpha: Number = 0.99,
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        momentum: Number = 0.0,
        centered: bool = False,
        initial_accumulator_value: float = 0.0,
        eps_mode: str = "torch",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @classmethod
    def variant(cls, groups: Sequence[Group]) -> Variant:
        centered = {g.centered for g in groups}
        if len(centered) > 1:
            raise ValueError("centered must be the same in all groups; use an optimizer for each")
        rule, states = ("rmsprop_centered", ("v", "a")) if centered == {True} else ("rmsprop", ("v",))
        return (f"{rule}_momentum", (*states, "b")) if any(g.momentum for g in groups) else (rule, states)

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return group.alpha, group.eps, group.momentum, group.eps_mode == "keras"

    @staticmethod
    def initial(key: str, group: Group) -> float:
        return float(group.initial_accumulator_value) if key == "v" else 0.0
