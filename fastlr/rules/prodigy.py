"""Prodigy: kernels/rules/prodigy.h."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, flag, fraction, growth, pair_of_betas, positive
from fastlr.optimizer import Options, Rate, given
from fastlr.rules.dadapt import FindsDistance

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _beta3(name: str, x: object) -> float | None:
    return None if x is None else fraction(name, x)


class Prodigy(FindsDistance):
    """Adam that finds its rate, sooner than D-Adaptation: d, a lower bound of the distance from start to solution.

        g ← g + λp                                          unless decouple
        γ = ηd                                              times √c₂/c₁ with use_bias_correction;  cₖ = 1 − βₖᵗ
        r ← β₃r + γ(d/d₀)⟨g, x₀ − p⟩
        m ← β₁m + (1−β₁)dg
        v ← β₂v + (1−β₂)d²g²
        s ← β₃s + γ(d/d₀)g                                  d in the place of γ with safeguard_warmup
        p ← p − γm / (√v + dε)                              and − γλp if decouple
        e = d_coef · r / Σ|s|                               the estimate; d ← max(d, e) if d is still d₀
        d ← min(max of d₀ and all e, d · growth)            for the next step

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1
        η ≥ 0, a factor on what is found, or a function of the 0-based step: for a schedule.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1).
    beta3 : float, optional
        β₃ in [0, 1); √β₂ if None.
    eps : float, default 1e-8
        ε > 0, outside the root, times d.
    weight_decay : float, default 0
        λ ≥ 0, taken off the parameters, times γ, or without `decouple` added to the gradient.
    decouple : bool, default True
        Where the decay acts; decoupled as in AdamW.
    use_bias_correction : bool, default False
        Whether γ has Adam's corrections (optax' always has). t counts the parameter's own steps, the authors' all.
    safeguard_warmup : bool, default False
        Keep η out of s, so that a small one at the start does not make the estimates large.
    d0 : float, default 1e-6
        d of the first step, > 0: well below the distance. Larger where d stays there.
    d_coef : float, default 1
        A factor on the estimates, > 0: the authors advise to tune this one, from 0.5 to 2.
    growth_rate : float, default inf
        growth ≥ 1: by which factor d may grow in a step; 1.02 is a slow start.

    Attributes
    ----------
    d : float
        The estimate that the next step will use.

    Notes
    -----
    The sums go over the whole model: all groups have one d, so `betas`, `beta3`, `use_bias_correction`,
    `safeguard_warmup`, `d0`, `d_coef` and `growth_rate` must be theirs together. η, λ and ε may be a group's own.

    The paper's update, with the d of before the step throughout. The authors' ``prodigyopt`` and optax have the d of
    after it in dε, which takes a second pass: a difference of some millionths, from the first steps, where d grows by
    orders of magnitude and v is nearly 0; with that ε matched they agree to rounding. Where η is 0 prodigyopt leaves
    the step out, and so it does until a gradient is not zero. Its ``slice_p``, s and x₀ of every p-th element only, is
    not offered. What is not a finite number leaves d as it is. x₀ is the parameter before its first step: state
    ``x0``, 0 until then, beside ``m``, ``v``, ``s``. d, r and the largest estimate are in checkpoints. One pass; moves
    40 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.float32([3, -4])
    >>> opt = Prodigy(p)
    >>> for _ in range(200):
    ...     report = opt.step(p.copy())    # the gradient of ‖p‖²/2
    >>> bool(abs(p).max() < 0.1), round(opt.d, 2)
    (True, 1.74)

    References
    ----------
    Mishchenko & Defazio, Prodigy: An Expeditiously Adaptive Parameter-Free Learner, 2024, Algorithm 4.
    """

    rule = "prodigy"
    tunable = False
    states = ("m", "v", "s", "x0")
    hypers = {
        "betas": pair_of_betas,
        "beta3": _beta3,
        "eps": positive,
        "decouple": flag,
        "use_bias_correction": flag,
        "safeguard_warmup": flag,
        "d0": positive,
        "d_coef": positive,
        "growth_rate": growth,
    }
    decoupled = "decouple"
    shared = ("betas", "beta3", "use_bias_correction", "safeguard_warmup", "d0", "d_coef", "growth_rate")

    def __init__(
        self,
        params: Any,
        lr: Rate = 1.0,
        betas: tuple[Number, Number] = (0.9, 0.999),
        beta3: Number | None = None,
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        decouple: bool = True,
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
        d0: float = 1e-6,
        d_coef: Number = 1.0,
        growth_rate: Number = math.inf,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        beta3 = math.sqrt(group.betas[1]) if group.beta3 is None else group.beta3
        flags = float(group.use_bias_correction), float(group.safeguard_warmup)
        return (*group.betas, beta3, group.eps, group.d0, group.d_coef, group.growth_rate, *flags)
