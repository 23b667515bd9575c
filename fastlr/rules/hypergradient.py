"""Rules whose rate follows its own gradient: kernels/rules/hypergradient.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, flag, nonnegative, pair_of_betas, positive
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _pull(group: Group) -> tuple[float, ...]:
    if not group.additive and group.hypergrad_lr >= 1:
        raise ValueError(f"hypergrad_lr must be in [0, 1) unless additive, got {group.hypergrad_lr}")
    return group.hypergrad_lr, group.additive


class SGDHD(Optimizer):
    """Gradient descent whose rate grows while gradients agree with the last step and shrinks where they do not.

        g ← g + λp
        x ← x + β(1+x) ⟨g, b⟩ / (‖g‖‖b‖)     x = 0 at first; unchanged where a norm is 0
        b ← μb + g
        p ← p − η(1+x) b

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`. Product and norms
        go over a group, and each group has a rate.
    lr : float or callable, default 1e-3
        η ≥ 0, where the rate starts, or a function of the 0-based step that the rate is a multiple of.
    momentum : float, default 0
        μ ≥ 0, usually below 1. Nesterov's form is not offered: its direction is not what the buffer holds.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient.
    hypergrad_lr : float, default 0.02
        β ≥ 0, and below 1 unless `additive`: the most that the rate changes in a step, relatively. The paper's additive
        rule has values from 1e-7 to 1e-2, by the scale of the loss.
    additive : bool, default False
        The paper's first rule, x ← x + β⟨g, b⟩ and p ← p − (η+x) b, whose β depends on the scale of loss and
        parameters. The rate stays at 0 or above; in the authors' code it may fall below.

    Attributes
    ----------
    rates : list of float
        The rate of the last step, η(1+x) or η+x, of each group; `Report.lr` has η.

    Notes
    -----
    Not in torch. State: ``b``, the last direction (without momentum the last gradient); x is one number a group, kept
    beside it in float64. Gradients that are None leave product and norms. These cost one more read of g and b: in all
    28 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2)
    >>> opt = SGDHD(p, lr=0.5, hypergrad_lr=0.5)
    >>> for g in ([1, 0], [1, 0], [-1, 0], [0, 1]):
    ...     report = opt.step(np.float64(g))
    ...     print(opt.rates)
    [0.5]
    [0.75]
    [0.375]
    [0.375]

    References
    ----------
    Baydin et al., Online Learning Rate Adaptation with Hypergradient Descent, 2018, Algorithm 4, or its
    multiplicative rule.
    """

    rule = "sgd_hd"
    tunable = False
    states = ("b",)
    hypers = {"momentum": nonnegative, "hypergrad_lr": nonnegative, "additive": flag}

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        momentum: Number = 0.0,
        weight_decay: Number = 0.0,
        hypergrad_lr: Number = 0.02,
        additive: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (group.momentum, *_pull(group))

    @property
    def rates(self) -> list[float]:
        return [numbers[-1] for numbers in self._plan.numbers]


class AdamHD(Optimizer):
    """Adam whose rate grows while gradients agree with the last step and shrinks where they do not.

        g ← g + λp
        x ← x + β(1+x) ⟨g, u⟩ / (‖g‖‖u‖)     x = 0 at first; unchanged where a norm is 0
        m ← β₁m + (1−β₁)g
        v ← β₂v + (1−β₂)g²
        u ← (m/c₁) / (√(v/c₂) + ε)           cₖ = 1 − βₖᵗ,  t = 1, 2, …
        p ← p − η(1+x) u

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`. Product and norms
        go over a group, and each group has a rate.
    lr : float or callable, default 1e-3
        η ≥ 0, where the rate starts, or a function of the 0-based step that the rate is a multiple of.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-8
        ε > 0, outside the root and beside the corrected v.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient.
    hypergrad_lr : float, default 0.02
        β ≥ 0, and below 1 unless `additive`: the most that the rate changes in a step, relatively. The paper's additive
        rule has values from 1e-8 to 1e-4, by the scale of the loss.
    additive : bool, default False
        The paper's first rule, x ← x + β⟨g, u⟩ and p ← p − (η+x) u, whose β depends on the scale of the loss. The rate
        is not let below 0.

    Attributes
    ----------
    rates : list of float
        The rate of the last step, η(1+x) or η+x, of each group; `Report.lr` has η.

    Notes
    -----
    The authors' code changes the rate from tensor to tensor within a step, and lets it fall below 0; here a group has
    one. Not in torch. State: ``m``, ``v``, from which the last u is made again; x is one number a group, kept beside
    them in float64. Gradients that are None leave product and norms. These cost one more read of g, m and v: in all 40
    bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2)
    >>> opt = AdamHD(p, lr=0.5, hypergrad_lr=0.5)
    >>> for g in ([1, 0], [1, 0], [-1, 0]):
    ...     report = opt.step(np.float64(g))
    ...     print(opt.rates)
    [0.5]
    [0.75]
    [0.375]

    References
    ----------
    Baydin et al., Online Learning Rate Adaptation with Hypergradient Descent, 2018, Algorithm 6, or its
    multiplicative rule.
    """

    rule = "adam_hd"
    tunable = False
    states = ("m", "v")
    hypers = {"betas": pair_of_betas, "eps": positive, "hypergrad_lr": nonnegative, "additive": flag}

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        hypergrad_lr: Number = 0.02,
        additive: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (*group.betas, group.eps, *_pull(group))

    @property
    def rates(self) -> list[float]:
        return [numbers[-1] for numbers in self._plan.numbers]
