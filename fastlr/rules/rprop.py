"""Rprop: kernels/rules/rprop.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, least_and_most, shrink_and_grow
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Rprop(Optimizer):
    """Steps of each parameter's own size, which grow while its gradient keeps the sign and shrink where it turns.

        s ← clamp(s·f)       f = f₊ where sign(g) = sign(l) ≠ 0, f₋ where they differ, 1 where either is 0
        g ← 0                where they differ
        p ← p − s sign(g)
        l ← g

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-2
        s before the first step, ≥ 0; what it is later does not matter.
    etas : (float, float), default (0.5, 1.2)
        f₋ in (0, 1) and f₊ > 1.
    step_sizes : (float, float), default (1e-6, 50.0)
        What s is clamped to, 0 < least ≤ most.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient. (torch has none.)

    Notes
    -----
    For full batches: the sign of a noisy gradient turns at random. The same update as ``torch.optim.Rprop`` up to
    rounding, but where g·l underflows to 0: torch takes it for 0, fastlr multiplies the signs. optax 0.2 finds the same
    steps and makes each one step late. sign(0) is 0. State: ``s``, and l as ``last`` (torch: step_size, prev). Moves 28
    bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> opt = Rprop(p, lr=0.5, etas=(0.5, 2))
    >>> for g in ([4, 1], [1, -1]):
    ...     report = opt.step(np.float32(g))
    >>> p, opt.state["s"]
    (array([-1.5, -0.5], dtype=float32), array([1.  , 0.25], dtype=float32))

    References
    ----------
    Riedmiller & Braun, A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP Algorithm, 1993.
    Igel & Hüsken, Improving the Rprop Learning Algorithm, 2000 (without backtracking).
    """

    rule = "rprop"
    states = ("s", "last")
    signs = ("last",)
    hypers = {"etas": shrink_and_grow, "step_sizes": least_and_most}

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        etas: tuple[Number, Number] = (0.5, 1.2),
        step_sizes: tuple[Number, Number] = (1e-6, 50.0),
        weight_decay: Number = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (*group.etas, *group.step_sizes)
