"""Adam and its kin: kernels/rules/adam.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, eps_mode, flag, pair_of_betas, positive
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _kernel(group: Group) -> tuple[float, ...]:
    return (*group.betas, group.eps, group.eps_mode == "keras")


class Adam(Optimizer):
    """Adam: a running mean of gradients over the root of one of their squares, both corrected for their start at zero.

        g ← g + λp
        m ← β₁m + (1−β₁)g
        v ← β₂v + (1−β₂)g²
        p ← p − η (m/c₁) / (√(v/c₂) + ε)          cₖ = 1 − βₖᵗ,  t = 1, 2, …

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-8
        ε > 0, outside the root and beside the corrected v (the paper's Algorithm 1, not its epsilon-hat).
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient. For decay of the parameters themselves use `AdamW`.
    eps_mode : {"torch", "keras"}, default "torch"
        "keras": beside the uncorrected root, (m √c₂/c₁) / (√v + ε), the paper's epsilon-hat, as in Keras, TensorFlow
        and most federated servers. There ε weighs more in the first steps. (Keras' own default is 1e-7.)
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 8 bytes more.

    Notes
    -----
    The same update as ``torch.optim.Adam`` up to rounding; torch accepts ε = 0 too. State: ``m``, ``v`` (torch:
    exp_avg, exp_avg_sq). Moves 28 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.ones(3, np.float32)
    >>> Adam(p, lr=0.1).step(np.float32([1, -2, 0])).step
    1
    >>> p.round(6)
    array([0.9, 1.1, 1. ], dtype=float32)

    References
    ----------
    Kingma & Ba, Adam: A Method for Stochastic Optimization, 2015, Algorithm 1.
    """

    rule = "adam"
    states = ("m", "v")
    hypers = {"betas": pair_of_betas, "eps": positive, "eps_mode": eps_mode, "cautious": flag}
    kernel = staticmethod(_kernel)

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        eps_mode: str = "torch",
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))


class AdamW(Optimizer):
    """Adam with decoupled weight decay: the parameters shrink by themselves, not through the gradient.

        m ← β₁m + (1−β₁)g
        v ← β₂v + (1−β₂)g²
        p ← p − ηλp − η (m/c₁) / (√(v/c₂) + ε)    cₖ = 1 − βₖᵗ,  t = 1, 2, …

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-8
        ε > 0, outside the root and beside the corrected v.
    weight_decay : float, default 1e-2
        λ ≥ 0, times the learning rate, taken off the parameters before the step.
    eps_mode : {"torch", "keras"}, default "torch"
        "keras": beside the uncorrected root, (m √c₂/c₁) / (√v + ε), the paper's epsilon-hat, as in Keras, TensorFlow
        and most federated servers. There ε weighs more in the first steps. (Keras' own default is 1e-7.)
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 8 bytes more.

    Notes
    -----
    The same update as ``torch.optim.AdamW`` up to rounding: torch rounds p − ηλp before it takes off the rest, fastlr
    rounds once. It accepts ε = 0 too. State: ``m``, ``v`` (torch: exp_avg, exp_avg_sq). Moves 28 bytes a float32
    parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.ones(3, np.float32)
    >>> AdamW(p, lr=0.1, weight_decay=0.5).step(np.float32([1, -2, 0])).lr
    0.1
    >>> p
    array([0.85, 1.05, 0.95], dtype=float32)

    References
    ----------
    Loshchilov & Hutter, Decoupled Weight Decay Regularization, 2019, Algorithm 2.
    """

    rule = "adam"
    states = ("m", "v")
    hypers = {"betas": pair_of_betas, "eps": positive, "eps_mode": eps_mode, "cautious": flag}
    decoupled = True
    kernel = staticmethod(_kernel)

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 1e-2,
        eps_mode: str = "torch",
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))


class AMSGrad(Optimizer):
    """Adam whose v never shrinks in the denominator, so that the effective rate never grows.

        g ← g + λp
        m ← β₁m + (1−β₁)g
        v ← β₂v + (1−β₂)g²
        x ← max(x, v)
        p ← p − η (m/c₁) / (√(x/c₂) + ε)          cₖ = 1 − βₖᵗ,  t = 1, 2, …

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-8
        ε > 0, outside the root and beside the corrected x.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient, or with `decoupled_weight_decay` taken off the parameters, times η.
    decoupled_weight_decay : bool, default False
        Where the decay acts; decoupled as in AdamW.
    eps_mode : {"torch", "keras"}, default "torch"
        "keras": beside the uncorrected root, (m √c₂/c₁) / (√x + ε), the paper's epsilon-hat, as in Keras, TensorFlow
        and most federated servers. There ε weighs more in the first steps. (Keras' own default is 1e-7.)
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 8 bytes more.

    Notes
    -----
    The same update as ``torch.optim.Adam(amsgrad=True)``, or decoupled ``AdamW(amsgrad=True)``, up to rounding: the
    maximum is over the uncorrected v (optax takes that of the corrected); torch accepts ε = 0 too. NaN stays in x.
    State: ``m``, ``v``, ``x`` (torch: exp_avg, exp_avg_sq, max_exp_avg_sq). Moves 36 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.ones(1, np.float32)
    >>> opt = AMSGrad(p, lr=0.1, betas=(0, 0))
    >>> for g in (4, 2):
    ...     _ = opt.step(np.float32([g]))
    >>> p.round(6), opt.state["v"], opt.state["x"]
    (array([0.85], dtype=float32), array([4.], dtype=float32), array([16.], dtype=float32))

    References
    ----------
    Reddi, Kale & Kumar, On the Convergence of Adam and Beyond, 2018, Algorithm 2, with Adam's bias corrections.
    """

    rule = "amsgrad"
    states = ("m", "v", "x")
    hypers = {
        "betas": pair_of_betas,
        "eps": positive,
        "decoupled_weight_decay": flag,
        "eps_mode": eps_mode,
        "cautious": flag,
    }
    decoupled = "decoupled_weight_decay"
    kernel = staticmethod(_kernel)

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


class Adamax(Optimizer):
    """Adam with the largest recent gradient, fading, in the place of the root mean square.

        g ← g + λp
        m ← β₁m + (1−β₁)g
        n ← max(β₂n, |g| + ε)
        p ← p − η (m/c₁) / n                      c₁ = 1 − β₁ᵗ,  t = 1, 2, …

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 2e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-8
        ε > 0, added to |g| (torch's; the paper has none, optax adds it to n).
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient.
    eps_mode : {"torch", "keras"}, default "torch"
        "keras": outside the maximum, n ← max(β₂n, |g|) and m / (n + ε), as in Keras. (Its own default is 1e-7.)
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 8 bytes more.

    Notes
    -----
    The same update as ``torch.optim.Adamax`` up to rounding; torch accepts ε = 0 too. NaN stays in n. State: ``m``,
    ``n`` (torch: exp_avg, exp_inf). Moves 28 bytes a float32 parameter. Kernel: kernels/rules/adamax.h.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> Adamax(p, lr=0.5).step(np.float32([4, 0])).step
    1
    >>> p
    array([-0.5,  0. ], dtype=float32)

    References
    ----------
    Kingma & Ba, Adam: A Method for Stochastic Optimization, 2015, Algorithm 2.
    """

    rule = "adamax"
    states = ("m", "n")
    hypers = {"betas": pair_of_betas, "eps": positive, "eps_mode": eps_mode, "cautious": flag}
    kernel = staticmethod(_kernel)

    def __init__(
        self,
        params: Any,
        lr: Rate = 2e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        eps_mode: str = "torch",
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))
