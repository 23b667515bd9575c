"""ASGD: kernels/rules/asgd.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, nonnegative
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ASGD(Optimizer):
    """Gradient descent with rates that fall, and the average of where it has been.

        g ← g + λp
        p ← p − μΛp − μg                           μ = η at the first step, then what the one before left
        x ← x + (p − x) / max(1, t − 1 − t₀)       t = 1, 2, …
        μ ← η / (1 + Ληt)^α

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-2
        η ≥ 0, or a function of the 0-based step.
    lambd : float, default 1e-4
        Λ ≥ 0, how fast the rates fall, and a decay of the parameters.
    alpha : float, default 0.75
        α ≥ 0.
    t0 : float, default 1e6
        The step after which averaging begins, ≥ 0; until then x is p.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient.

    Notes
    -----
    The average is `state["x"]`: it has no influence on the steps. The same update as ``torch.optim.ASGD`` up to
    rounding; torch keeps μ in its default dtype, where fastlr has a double. State: ``x`` (torch: ax), and the number μ
    (eta). Moves 20 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.ones(2, np.float32)
    >>> opt = ASGD(p, lr=0.5, lambd=0, t0=0)
    >>> for g in ([1, 0], [1, 0], [1, 0]):
    ...     report = opt.step(np.float32(g))
    >>> p, opt.state["x"]
    (array([-0.5,  1. ], dtype=float32), array([-0.25,  1.  ], dtype=float32))

    References
    ----------
    Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992.
    Bottou, Large-Scale Machine Learning with Stochastic Gradient Descent, 2010 (the rates).
    """

    rule = "asgd"
    tunable = False
    states = ("x",)
    hypers = {"lambd": nonnegative, "alpha": nonnegative, "t0": nonnegative}

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        lambd: Number = 1e-4,
        alpha: Number = 0.75,
        t0: Number = 1e6,
        weight_decay: Number = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return group.lambd, group.alpha, group.t0
