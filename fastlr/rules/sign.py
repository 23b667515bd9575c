"""Rules that take the sign of the gradient or of its average: kernels/rules/sign.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, flag, fraction, pair_of_betas
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SignSGD(Optimizer):
    """Steps of one size, against the sign of the gradient.

        p ← p − ηλp − η sign(g)

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-4
        η ≥ 0, or a function of the 0-based step.
    weight_decay : float, default 0
        λ ≥ 0, times the learning rate, taken off the parameters, as in the paper.

    Notes
    -----
    sign(0) is 0 and sign(NaN) NaN. Not in torch. No state. Moves 12 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(3, np.float32)
    >>> SignSGD(p, lr=0.5).step(np.float32([1e-9, -7, 0])).step
    1
    >>> p
    array([-0.5,  0.5,  0. ], dtype=float32)

    References
    ----------
    Bernstein et al., signSGD: Compressed Optimisation for Non-Convex Problems, 2018.
    """

    rule = "sign_sgd"
    states = ()
    hypers = {}
    decoupled = True

    def __init__(self, params: Any, lr: Rate = 1e-4, weight_decay: float = 0.0, **options: Unpack[Options]) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (0.0,)


class Signum(Optimizer):
    """Steps of one size, against the sign of a running mean of gradients.

        m ← βm + (1−β)g
        p ← p − ηλp − η sign(m)

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-4
        η ≥ 0, or a function of the 0-based step.
    beta : float, default 0.9
        β in [0, 1).
    weight_decay : float, default 0
        λ ≥ 0, times the learning rate, taken off the parameters, as in the paper.
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 8 bytes more.

    Notes
    -----
    The same update as ``optax.signum``. sign(0) is 0 and sign(NaN) NaN. Not in torch. State: ``m``. Moves 20 bytes a
    float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> opt = Signum(p, lr=0.5, beta=0.75)
    >>> for g in ([8, 1], [-1, -1]):
    ...     report = opt.step(np.float32(g))
    >>> p, opt.state["m"]
    (array([-1.,  0.], dtype=float32), array([ 1.25  , -0.0625], dtype=float32))

    References
    ----------
    Bernstein et al., signSGD: Compressed Optimisation for Non-Convex Problems, 2018, Algorithm 2.
    """

    rule = "signum"
    states = ("m",)
    hypers = {"beta": fraction, "cautious": flag}
    decoupled = True

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-4,
        beta: Number = 0.9,
        weight_decay: Number = 0.0,
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (group.beta,)


class Lion(Optimizer):
    """Steps of one size, against the sign of the running mean with the new gradient weighed in.

        p ← p − ηλp − η sign(β₁m + (1−β₁)g)
        m ← β₂m + (1−β₂)g

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-4
        η ≥ 0, or a function of the 0-based step. The authors advise a third to a tenth of AdamW's.
    betas : (float, float), default (0.9, 0.99)
        β₁, β₂ in [0, 1). The mean keeps β₂; β₁ weighs it against the gradient.
    weight_decay : float, default 0
        λ ≥ 0, times the learning rate, taken off the parameters. The authors advise three to ten times AdamW's.
    cautious : bool, default False
        Whether elements of the step that point up the gradient are left out, and the others divided by their share in
        the tensor, 10⁻³ or more (Liang et al., Cautious Optimizers, 2024). The same in all groups; moves 8 bytes more.

    Notes
    -----
    The same update as the authors', lion-pytorch's, timm's and optax' up to rounding; DeepSpeed has other defaults. The
    state is updated after its use, and with the gradient, not with the mean of the step. sign(0) is 0 and sign(NaN)
    NaN. State: ``m`` (exp_avg). Moves 20 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(3, np.float32)
    >>> opt = Lion(p, lr=0.5, betas=(0.5, 0.75))
    >>> opt.step(np.float32([1, -2, 0])).step
    1
    >>> p, opt.state["m"]
    (array([-0.5,  0.5,  0. ], dtype=float32), array([ 0.25, -0.5 ,  0.  ], dtype=float32))

    References
    ----------
    Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, Algorithm 2.
    """

    rule = "lion"
    states = ("m",)
    hypers = {"betas": pair_of_betas, "cautious": flag}
    decoupled = True

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-4,
        betas: tuple[Number, Number] = (0.9, 0.99),
        weight_decay: Number = 0.0,
        cautious: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return tuple(group.betas)
