"""AdEMAMix: kernels/rules/ademamix.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, flag, nonnegative, optional, positive, three_betas
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AdEMAMix(Optimizer):
    """AdamW with a second, much slower average of gradients beside the first.

        m ← β₁m + (1−β₁)g
        n ← βn + (1−β)g
        v ← β₂v + (1−β₂)g²
        p ← p − ηλp − η (m/c₁ + αn) / (√(v/c₂) + ε)       cₖ = 1 − βₖᵗ,  t = 1, 2, …

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float, float), default (0.9, 0.999, 0.9999)
        β₁, β₂, β₃ in [0, 1); β = β₃ once warmed up.
    alpha : float, default 5
        α ≥ 0, the weight of n once warmed up. The paper's experiments have 5 to 10 (the authors' PyTorch default is 2).
    eps : float, default 1e-8
        ε > 0, outside the root and beside the corrected v.
    weight_decay : float, default 0
        λ ≥ 0, times the learning rate, taken off the parameters.
    t_alpha_beta3 : float, optional
        Steps of warm-up T, usually all of training. With s = t/T < 1, α is s times `alpha`, and β has the half-life
        between those of β₁ and β₃, 1/ln β = (1−s)/ln β₁ + s/ln β₃. None starts with `alpha` and β₃.
    alpha_warmup, beta3_warmup : float, optional
        T of α and of β, where they differ as in the authors' code; 0 is no warm-up. None, the paper's, is
        `t_alpha_beta3`.
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 12 bytes more.

    Notes
    -----
    Not in torch. The same update as the authors' in PyTorch (they add 1e-8 to β inside the logarithm, and their JAX
    version counts from 0) and, without warm-up, as ``optax.contrib.ademamix``, up to rounding. State: ``m``, ``n``,
    ``v`` (exp_avg_fast, exp_avg_slow, exp_avg_sq). Moves 36 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> opt = AdEMAMix(p, lr=0.5, betas=(0.5, 0.5, 0.75), alpha=2)
    >>> opt.step(np.float32([4, 0])).step
    1
    >>> p.round(6), opt.state["n"]
    (array([-0.75,  0.  ], dtype=float32), array([1., 0.], dtype=float32))

    References
    ----------
    Pagliardini, Ablin & Grangier, The AdEMAMix Optimizer: Better, Faster, Older, 2024, Algorithm 1.
    """

    rule = "ademamix"
    states = ("m", "n", "v")
    hypers = {
        "betas": three_betas,
        "alpha": nonnegative,
        "eps": positive,
        "t_alpha_beta3": optional(nonnegative),
        "alpha_warmup": optional(nonnegative),
        "beta3_warmup": optional(nonnegative),
        "cautious": flag,
    }
    decoupled = True

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Number, Number, Number] = (0.9, 0.999, 0.9999),
        alpha: Number = 5.0,
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        t_alpha_beta3: Number | None = None,
        alpha_warmup: Number | None = None,
        beta3_warmup: Number | None = None,
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        both = group.t_alpha_beta3 or 0.0
        warmups = (both if x is None else x for x in (group.alpha_warmup, group.beta3_warmup))
        return (*group.betas, group.alpha, group.eps, *warmups)
