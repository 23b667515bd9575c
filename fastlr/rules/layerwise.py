"""Rules whose step depends on norms of each tensor: kernels/rules/lars.h, lamb.h, novograd.h and stable_adamw.h."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, bound, flag, nonnegative, pair_of_betas, positive, real
from fastlr.optimizer import Optimizer, Options, Rate, Variant, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LARS(Optimizer):
    """Gradient descent with a gradient that, in each tensor, is as long as a fixed share κ of the tensor.

        r ← κ ‖p‖ / (‖g‖ + λ‖p‖ + ε)       1 where ‖p‖ or ‖g‖ is 0, or λ is 0
        d ← r (g + λp)
        p ← p − η d                          without momentum

        b ← μb + (1−τ)d                      b ← d at a tensor's first step
        p ← p − η b                          with momentum
        p ← p − η (d + μb)                   with Nesterov momentum

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`. Each array, and
        each name of a FlatBuffer, is a tensor.
    lr : float or callable, default 1
        η ≥ 0, or a function of the 0-based step.
    momentum : float, default 0
        μ ≥ 0, usually 0.9. The optimizer keeps a buffer if any group has momentum; that cannot change later.
    dampening : float, default 0
        τ; has no effect where μ = 0, nor on a tensor's first step.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient.
    nesterov : bool, default False
        Needs momentum > 0 and dampening 0.
    trust_coeff : float, default 0.001
        κ > 0.
    eps : float, default 1e-8
        ε > 0, in the denominator of r.
    trust_clip : bool, default False
        Whether r is at most 1/η, so that η is the largest step: r ← min(r/η, 1) (LARC).
    always_adapt : bool, default False
        Whether r is used without weight decay too. As in timm, a group without decay, such as biases and norms, is left
        to plain momentum otherwise.

    Notes
    -----
    The same update as timm's ``Lars`` up to rounding. Implementations differ: optax' has ‖g + λp‖ in the denominator,
    adapts always, and keeps the rate inside the momentum, as the paper does. Not in torch. State: none, or ``b``. The
    norms cost one more read of p and g: in all 20 or 28 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.float32([3, 4])
    >>> opt = LARS(p, lr=0.5, trust_coeff=0.25, always_adapt=True)
    >>> opt.step(np.float32([0, 100])).step
    1
    >>> p  # ‖p‖ is 5: d is 1.25 long, whatever the gradient's length
    array([3.   , 3.375], dtype=float32)

    References
    ----------
    You, Gitman & Ginsburg, Large Batch Training of Convolutional Networks, 2017, Algorithm 1.
    """

    rule = "lars"
    states = ()
    optional_states = ("b",)
    hypers = {
        "momentum": nonnegative,
        "dampening": real,
        "nesterov": flag,
        "trust_coeff": positive,
        "eps": positive,
        "trust_clip": flag,
        "always_adapt": flag,
    }

    def __init__(
        self,
        params: Any,
        lr: Rate = 1.0,
        momentum: Number = 0.0,
        dampening: Number = 0.0,
        weight_decay: Number = 0.0,
        nesterov: bool = False,
        trust_coeff: Number = 1e-3,
        eps: Number = 1e-8,
        trust_clip: bool = False,
        always_adapt: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @classmethod
    def variant(cls, groups: Sequence[Group]) -> Variant:
        return ("lars_momentum", ("b",)) if any(g.momentum for g in groups) else ("lars", ())

    @classmethod
    def decay(cls, group: Group) -> tuple[float, float]:
        return 0.0, 0.0  # the kernel's business: ‖g‖ is that of the gradient without it

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        if group.nesterov and not (group.momentum > 0 and group.dampening == 0):
            raise ValueError(
                "nesterov needs momentum > 0 and dampening 0, "
                f"got momentum {group.momentum} and dampening {group.dampening}"
            )
        return (
            group.momentum,
            group.dampening,
            group.nesterov,
            group.weight_decay,
            group.trust_coeff,
            group.eps,
            group.always_adapt,
            group.trust_clip,
        )


class LAMB(Optimizer):
    """Adam with a step that, in each tensor, is as long as the tensor, times the rate.

        m ← β₁m + (1−β₁)g
        v ← β₂v + (1−β₂)g²
        u ← (m/c₁) / (√(v/c₂) + ε) + λp      cₖ = 1 − βₖᵗ,  t = 1, 2, …
        p ← p − η u φ(‖p‖)/‖u‖                p − η u where ‖p‖ or ‖u‖ is 0, or λ is 0
        φ(x) = min(x, max_norm)

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`. Each array, and
        each name of a FlatBuffer, is a tensor.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-6
        ε > 0, outside the root and beside the corrected v.
    weight_decay : float, default 0.01
        λ ≥ 0, added to the direction, before its norm.
    grad_averaging : bool, default True
        Whether the gradient enters m with 1 − β₁; else with 1.
    trust_clip : bool, default False
        Whether φ(‖p‖)/‖u‖ is at most 1.
    always_adapt : bool, default False
        Whether φ(‖p‖)/‖u‖ is used without weight decay too, as the paper and optax do. Otherwise, as in timm and
        NVIDIA's implementation, a group without decay, such as biases and norms, is left to plain Adam.
    bias_correction : bool, default True
        Whether c₁ and c₂ are as above; else 1, as in pytorch_optimizer with ``adam_debias=True``, which also adds ε to
        ‖u‖.
    max_norm : float, default inf
        What a tensor's norm counts as at most, > 0: γᵤ of the paper, whose γₗ is 0 here. 10 in pytorch_optimizer; timm,
        NVIDIA's and optax' have no bound.
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out before the decay is added, and the others
        divided by their share in the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024), as in timm. The
        same in all groups.

    Notes
    -----
    The same update as timm's ``Lamb`` up to rounding, but for the clipping of the gradients' norm to 1 that is its
    default: here that is ``opt.step(grads, clip_norm=1)``. Not in torch. State: ``m``, ``v`` (exp_avg, exp_avg_sq). The
    norms cost one more read of g, p, m and v: in all 44 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.float32([3, 4])
    >>> opt = LAMB(p, lr=0.1, weight_decay=0, always_adapt=True)
    >>> opt.step(np.float32([7, 0])).step
    1
    >>> p.round(5)  # ‖p‖ is 5
    array([2.5, 4. ], dtype=float32)

    References
    ----------
    You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 minutes, 2020, Algorithm 2.
    """

    rule = "lamb"
    states = ("m", "v")
    hypers = {
        "betas": pair_of_betas,
        "eps": positive,
        "grad_averaging": flag,
        "trust_clip": flag,
        "always_adapt": flag,
        "bias_correction": flag,
        "max_norm": bound,
        "cautious": flag,
    }

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-6,
        weight_decay: Number = 0.01,
        grad_averaging: bool = True,
        trust_clip: bool = False,
        always_adapt: bool = False,
        bias_correction: bool = True,
        max_norm: Number = math.inf,
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @classmethod
    def decay(cls, group: Group) -> tuple[float, float]:
        return 0.0, 0.0  # the kernel's business: it is part of the direction

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        flags = (group.grad_averaging, group.always_adapt, group.trust_clip, group.bias_correction)
        most = 0.0 if group.max_norm == math.inf else group.max_norm
        return (*group.betas, group.eps, group.weight_decay, *flags, most)


class NovoGrad(Optimizer):
    """Momentum of gradients divided, in each tensor, by a running root mean square of their norm.

        v ← β₂v + (1−β₂)‖g‖²                 v ← ‖g‖² while v is 0
        m ← β₁m + g / (√v + ε) + λp
        p ← p − η m

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`. Each array, and
        each name of a FlatBuffer, is a tensor.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.95, 0.98)
        β₁, β₂ in [0, 1). The paper's experiments have β₂ from 0.25 to 0.98.
    eps : float, default 1e-8
        ε > 0, outside the root.
    weight_decay : float, default 0
        λ ≥ 0, added to the divided gradient.
    grad_averaging : bool, default False
        Whether what is added to m is multiplied by 1 − β₁.

    Notes
    -----
    The same update as NVIDIA's and timm's ``NvNovoGrad`` up to rounding; optax' differs where the first gradient is
    zero. Not in torch. State: ``m``; v is one number a tensor, kept beside it in float64. The norm costs one more read
    of g: in all 24 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.float32([0, 0])
    >>> opt = NovoGrad(p, lr=0.5, betas=(0.5, 0.5))
    >>> opt.step(np.float32([3, 4])).step
    1
    >>> p
    array([-0.3, -0.4], dtype=float32)

    References
    ----------
    Ginsburg et al., Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep Networks, 2019,
    Algorithm 1.
    """

    rule = "novograd"
    states = ("m",)
    hypers = {"betas": pair_of_betas, "eps": positive, "grad_averaging": flag}

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Number, Number] = (0.95, 0.98),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        grad_averaging: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @classmethod
    def decay(cls, group: Group) -> tuple[float, float]:
        return 0.0, 0.0  # the kernel's business: it is added to the divided gradient

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (*group.betas, group.eps, group.weight_decay, group.grad_averaging)


class StableAdamW(Optimizer):
    """AdamW that slows down, in each tensor, at gradients larger than the running mean of their squares knows.

        m ← β₁m + (1−β₁)g
        v ← β₂v + (1−β₂)g²                    cₖ = 1 − βₖᵗ,  t = 1, 2, …
        r ← √(mean of g² / max(v/c₂, ε²))
        α ← η / max(1, r)
        p ← p − αλp − α (m/c₁) / (√(v/c₂) + ε)

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`. Each array, and
        each name of a FlatBuffer, is a tensor.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.9, 0.99)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-6
        ε > 0, outside the root and beside the corrected v.
    weight_decay : float, default 0.01
        λ ≥ 0, times the slowed rate, taken off the parameters.

    Notes
    -----
    Makes the clipping of gradients unnecessary, its authors find. They write the corrections of m and v into the β,
    which is the same. Not in torch. State: ``m``, ``v`` (exp_avg, exp_avg_sq). The mean costs one more read of g and v:
    in all 36 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.ones(2, np.float32)
    >>> opt = StableAdamW(p, lr=0.1, betas=(0, 0.75), weight_decay=0)
    >>> for g in ([1, 1], [5, 5]):
    ...     report = opt.step(np.float32(g))
    >>> p.round(6)  # the second step alone would be 5/√(103/7) times 0.1, but r is as large
    array([0.8, 0.8], dtype=float32)

    References
    ----------
    Wortsman et al., Stable and low-precision training for large-scale vision-language models, 2023, Algorithm 2.
    """

    rule = "stable_adamw"
    states = ("m", "v")
    hypers = {"betas": pair_of_betas, "eps": positive}
    decoupled = True

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.99),
        eps: Number = 1e-6,
        weight_decay: Number = 0.01,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (*group.betas, group.eps)
