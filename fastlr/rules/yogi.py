"""Yogi: kernels/rules/yogi.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, eps_mode, flag, nonnegative, pair_of_betas, positive
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Yogi(Optimizer):
    """Adam whose v moves towards g² by no more than (1−β₂)g² a step: it forgets large gradients slowly.

        g ← g + λp
        m ← β₁m + (1−β₁)g
        v ← v − (1−β₂) sign(v − g²) g²
        p ← p − η (m/c₁) / (√(v/c₂) + ε)          cₖ = 1 − βₖᵗ,  t = 1, 2, …

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-2
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-3
        ε > 0, outside the root and beside the corrected v.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient.
    bias_correction : bool, default True
        Whether c₁ and c₂ are as above, as in TensorFlow Addons and optax; else 1, as in the paper and in federated
        servers.
    initial_accumulator_value : float, default 1e-6
        v before the first step, ≥ 0. (optax starts m there too; the paper starts v at the squares of a first batch.)
    eps_mode : {"torch", "keras"}, default "torch"
        "keras": beside the uncorrected root, (m √c₂/c₁) / (√v + ε), as in TensorFlow Addons. The same where
        `bias_correction` is False.
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 8 bytes more.

    Notes
    -----
    Not in torch. The same update as ``optax.yogi`` up to rounding and the initial m, which is 0 here. sign(0) is 0.
    State: ``m``, ``v``. Moves 28 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> opt = Yogi(p, lr=0.5, betas=(0.5, 0.5), eps=1, initial_accumulator_value=0, bias_correction=False)
    >>> for g in ([2, 0], [1, 0]):
    ...     report = opt.step(np.float32(g))
    >>> opt.state["v"], p.round(4)
    (array([1.5, 0. ], dtype=float32), array([-0.4319,  0.    ], dtype=float32))

    References
    ----------
    Zaheer et al., Adaptive Methods for Nonconvex Optimization, 2018, Algorithm 2.
    """

    rule = "yogi"
    states = ("m", "v")
    starting = ("initial_accumulator_value",)
    hypers = {
        "betas": pair_of_betas,
        "eps": positive,
        "bias_correction": flag,
        "initial_accumulator_value": nonnegative,
        "eps_mode": eps_mode,
        "cautious": flag,
    }

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-3,
        weight_decay: Number = 0.0,
        bias_correction: bool = True,
        initial_accumulator_value: float = 1e-6,
        eps_mode: str = "torch",
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (*group.betas, group.eps, group.eps_mode == "keras", group.bias_correction)

    @staticmethod
    def initial(key: str, group: Group) -> float:
        return float(group.initial_accumulator_value) if key == "v" else 0.0
