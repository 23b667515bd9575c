"""D-Adaptation, gradient descent and Adam without a learning rate: kernels/rules/dadapt.h."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, flag, fraction, growth, pair_of_betas, positive
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class FindsDistance(Optimizer):
    """What D-Adaptation and Prodigy share: the estimate is the first number that the kernel carries, 0 at the start."""

    @property
    def d(self) -> float:
        """The estimate that the next step will use."""
        return self._plan.numbers[0][0] or self.groups[0].d0


class DAdaptSGD(FindsDistance):
    """Gradient descent that finds its rate: d, a lower bound of the distance from the start to a solution.

        g ← g + λp
        γ = ηd / G                                G = ‖g‖ of the first step
        r ← r + γ⟨g, s⟩
        s ← s + γg
        p ← μp + (1−μ)(x₀ − s)
        d ← max(d, min(2r / ‖s‖, d · growth))     for the next step

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1
        η ≥ 0, a factor on what is found, or a function of the 0-based step: for a schedule.
    momentum : float, default 0
        μ in [0, 1).
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient.
    d0 : float, default 1e-6
        d of the first step, > 0: well below the distance.
    growth_rate : float, default inf
        growth ≥ 1: by which factor d may grow in a step.

    Attributes
    ----------
    d : float
        The estimate that the next step will use.

    Notes
    -----
    The norms and the scalar product go over the whole model: all groups have one d, so `momentum`, `d0` and
    `growth_rate` must be theirs together. η and λ may be a group's own.

    The same update as the authors' ``dadaptation.DAdaptSGD`` up to rounding, but: their G lacks λp, η of groups must be
    one or 0, and a first gradient of zeros divides by it; here G is that of the first that is not zero. What is not a
    finite number leaves d as it is. x₀ is the parameter before its first step: state ``x0``, 0 until then, beside
    ``s``. d, r and G are in checkpoints. One pass, but for the first step's norm; moves 24 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.float32([3, -4])
    >>> opt = DAdaptSGD(p)
    >>> for _ in range(100):
    ...     report = opt.step(p.copy())    # the gradient of ‖p‖²/2
    >>> bool(abs(p).max() < 1e-6), round(opt.d, 2)    # the distance is 5
    (True, 4.34)

    References
    ----------
    Defazio & Mishchenko, Learning-Rate-Free Learning by D-Adaptation, 2023, Algorithm 4.
    """

    rule = "dadapt_sgd"
    tunable = False
    states = ("s", "x0")
    hypers = {"momentum": fraction, "d0": positive, "growth_rate": growth}
    shared = ("momentum", "d0", "growth_rate")

    def __init__(
        self,
        params: Any,
        lr: Rate = 1.0,
        momentum: Number = 0.0,
        weight_decay: Number = 0.0,
        d0: float = 1e-6,
        growth_rate: Number = math.inf,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return group.momentum, group.d0, group.growth_rate


class DAdaptAdam(FindsDistance):
    """Adam that finds its rate: d, a lower bound of the distance from the start to a solution.

        g ← g + λp                                          unless decouple
        γ = ηd                                              times √c₂/c₁ with use_bias_correction;  cₖ = 1 − βₖᵗ
        r ← β₃r + (1−β₃) γ⟨g, s / (√v + ε)⟩                 β₃ = √β₂
        m ← β₁m + (1−β₁)γg
        v ← β₂v + (1−β₂)g²
        s ← β₃s + (1−β₃)γg
        p ← p − m / (√v + ε)                                and − γλp if decouple
        d ← max(d, min(r / ((1−β₃) Σ|s|), d · growth))      for the next step

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1
        η ≥ 0, a factor on what is found, or a function of the 0-based step: for a schedule.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-8
        ε > 0, outside the root.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient, or with `decouple` taken off the parameters, times γ.
    decouple : bool, default False
        Where the decay acts; decoupled as in AdamW.
    use_bias_correction : bool, default False
        Whether γ has Adam's corrections (optax' always has). t counts the parameter's own steps, the authors' all.
    d0 : float, default 1e-6
        d of the first step, > 0: well below the distance.
    growth_rate : float, default inf
        growth ≥ 1: by which factor d may grow in a step; 1.02 is a slow start.

    Attributes
    ----------
    d : float
        The estimate that the next step will use.

    Notes
    -----
    The sums go over the whole model: all groups have one d, so `betas`, `use_bias_correction`, `d0` and `growth_rate`
    must be theirs together. η, λ and ε may be a group's own.

    The same update as the authors' ``dadaptation.DAdaptAdam`` up to rounding, but: where η is 0 they leave the step
    out, here γ is 0; until a gradient is not zero they do too, here decay acts; η of groups must be one or 0 there,
    and ``layer_scale`` the factor between groups, which enters r and m but not s. What is not a finite number leaves d
    as it is. State: ``m``, ``v``, ``s``; d and r are in checkpoints. One pass; moves 36 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.float32([3, -4])
    >>> opt = DAdaptAdam(p)
    >>> for _ in range(100):
    ...     report = opt.step(p.copy())    # the gradient of ‖p‖²/2
    >>> bool(abs(p).max() < 0.1), round(opt.d, 2)
    (True, 9.77)

    References
    ----------
    Defazio & Mishchenko, Learning-Rate-Free Learning by D-Adaptation, 2023, Algorithm 5.
    """

    rule = "dadapt_adam"
    tunable = False
    states = ("m", "v", "s")
    hypers = {
        "betas": pair_of_betas,
        "eps": positive,
        "decouple": flag,
        "use_bias_correction": flag,
        "d0": positive,
        "growth_rate": growth,
    }
    decoupled = "decouple"
    shared = ("betas", "use_bias_correction", "d0", "growth_rate")

    def __init__(
        self,
        params: Any,
        lr: Rate = 1.0,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        decouple: bool = False,
        use_bias_correction: bool = False,
        d0: float = 1e-6,
        growth_rate: Number = math.inf,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (*group.betas, group.eps, group.d0, group.growth_rate, float(group.use_bias_correction))
