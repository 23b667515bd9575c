"""Gradient descent and momentum: kernels/rules/sgd.h."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, flag, nonnegative, real
from fastlr.optimizer import Optimizer, Options, Rate, Variant, cautious, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SGD(Optimizer):
    """Gradient descent; with momentum the heavy ball, or Nesterov's look ahead.

        g ← g + λp
        p ← p − ηg                                          (μ = 0)

        b ← μb + (1−τ)g        (b ← g at the first step)    (μ > 0)
        p ← p − ηb      or     p ← p − η(g + μb)            (Nesterov)

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    momentum : float, default 0
        μ ≥ 0, usually below 1. The optimizer keeps a buffer if any group has momentum; that cannot change later.
    dampening : float, default 0
        τ; has no effect where μ = 0, nor on a parameter's first step.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient.
    nesterov : bool, default False
        Needs momentum > 0 and dampening 0.
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). Needs momentum > 0. The same in all groups;
        moves 8 bytes more.

    Notes
    -----
    The same update as ``torch.optim.SGD`` up to rounding: the rate is outside the buffer, unlike in Sutskever et al.
    and TensorFlow. State: none, or ``b`` (torch: momentum_buffer). Moves 12 or 20 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.ones(2, np.float32)
    >>> opt = SGD(p, lr=0.5, momentum=0.5)
    >>> for _ in range(2):
    ...     report = opt.step(np.float32([1, 0]))
    >>> p, opt.state["b"]
    (array([-0.25,  1.  ], dtype=float32), array([1.5, 0. ], dtype=float32))

    References
    ----------
    Polyak, Some methods of speeding up the convergence of iteration methods, 1964.
    Sutskever et al., On the importance of initialization and momentum in deep learning, 2013.
    """

    rule = "sgd"
    states = ()
    optional_states = ("b",)
    by_rows = True
    hypers = {"momentum": nonnegative, "dampening": real, "nesterov": flag, "cautious": flag}

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        momentum: Number = 0.0,
        dampening: Number = 0.0,
        weight_decay: Number = 0.0,
        nesterov: bool = False,
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @classmethod
    def variant(cls, groups: Sequence[Group]) -> Variant:
        return (cautious("momentum", groups), ("b",)) if any(g.momentum for g in groups) else ("sgd", ())

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        if group.nesterov and not (group.momentum > 0 and group.dampening == 0):
            raise ValueError(
                "nesterov needs momentum > 0 and dampening 0, "
                f"got momentum {group.momentum} and dampening {group.dampening}"
            )
        if group.cautious and group.momentum == 0:
            raise ValueError("cautious needs momentum > 0, got momentum 0: without it every step is down the gradient")
        return group.momentum, group.dampening, float(group.nesterov)
