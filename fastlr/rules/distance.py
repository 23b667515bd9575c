"""Rules that learn their rate from the way they have made: kernels/rules/distance.h."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, nonnegative, optional, positive
from fastlr.optimizer import Optimizer, Options, Rate, Variant, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class DoG(Optimizer):
    """Gradient descent whose rate is the largest distance from the start over the root of all squared gradients.

        g ← g + λp
        r ← max(r, ‖p − x₀‖)                 r = ρ(1 + ‖x₀‖) at first
        G ← G + ‖g‖²                         G = ε at first
        p ← p − η r/√G g
        a ← a + (1+γ)/(t+γ) (p − a)          with `averaging`,  t = 1, 2, …

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`. Norms go over a
        group, and each group has a rate.
    lr : float or callable, default 1
        η ≥ 0, a factor that the authors leave at 1, or a function of the 0-based step.
    reps_rel : float, default 1e-6
        ρ > 0. The authors advise 1e-4 for models with batch normalization.
    eps : float, default 1e-8
        ε > 0, added to G once.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient.
    averaging : float, optional
        γ ≥ 0: keep the average a of the parameters, in a buffer of its own. The authors evaluate it, not p, with γ = 8.
        In all groups or in none.

    Attributes
    ----------
    rates : list of float
        The rate of the last step, ηr/√G, of each group; `Report.lr` has η.

    Notes
    -----
    The same update as the authors' up to rounding; optax' takes ‖p − x₀‖ at the first step for ‖x₀‖ too. x₀ are the
    parameters before the first step, and the distance that of the parameters as a step left them: what is done to them
    in between counts from the step after the next. Gradients that are None leave the norms. State: ``x0``, with
    `averaging` ``a``; r and G are two numbers a group, kept beside it in float64. Moves 20 or 28 bytes a float32
    parameter: the step adds up ‖p − x₀‖ for the next one, so that before it only g is read.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.float32([3, -4])
    >>> opt = DoG(p, averaging=8)
    >>> for _ in range(200):
    ...     report = opt.step(p.copy())    # the gradient of ‖p‖²/2
    >>> bool(abs(p).max() < 0.1), bool(abs(opt.eval_params()).max() < 0.1)
    (True, True)

    References
    ----------
    Ivgi, Hinder & Carmon, DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule, 2023.
    """

    rule = "dog"
    tunable = False
    states = ("x0",)
    optional_states = ("a",)
    hypers = {"reps_rel": positive, "eps": positive, "averaging": optional(nonnegative)}

    def __init__(
        self,
        params: Any,
        lr: Rate = 1.0,
        reps_rel: Number = 1e-6,
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        averaging: Number | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @classmethod
    def variant(cls, groups: Sequence[Group]) -> Variant:
        given = {group.averaging is not None for group in groups}
        if len(given) > 1:
            raise ValueError("averaging must be a number in all groups, or None in all; use an optimizer for each")
        return (f"{cls.rule}_averaged", ("a", "x0")) if given == {True} else (cls.rule, ("x0",))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return group.reps_rel, group.eps, group.averaging or 0.0

    @property
    def rates(self) -> list[float]:
        return [numbers[-1] for numbers in self._plan.numbers]

    def eval_params(self) -> Any:
        """The average of the parameters, in their structure: the buffer that steps update, not a copy.

        Before a parameter's first step it is 0.
        """
        if "a" not in self.states:
            raise ValueError("averaging must be a number for eval_params, got None; the authors' is 8")
        return self.state["a"]


class LDoG(DoG):
    """`DoG` with norms of each tensor by itself, so that each has a rate.

        g ← g + λp
        r ← max(r, ‖p − x₀‖)                 r = ρ(1 + ‖x₀‖) at first, of each tensor
        G ← G + ‖g‖²                         G = ε at first
        p ← p − η r/√G g
        a ← a + (1+γ)/(t+γ) (p − a)          with `averaging`,  t = 1, 2, …

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`. Each array, and
        each name of a FlatBuffer, is a tensor.
    lr : float or callable, default 1
        η ≥ 0, a factor that the authors leave at 1, or a function of the 0-based step.
    reps_rel : float, default 1e-6
        ρ > 0.
    eps : float, default 1e-8
        ε > 0, added to G once.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient.
    averaging : float, optional
        γ ≥ 0: keep the average a of the parameters, in a buffer of its own. The authors evaluate it, not p, with γ = 8.
        In all groups or in none.

    Attributes
    ----------
    rates : list of float
        The rate of the last step, ηr/√G, of each tensor; `Report.lr` has η.

    Notes
    -----
    As in `DoG`. optax has no such rule. Moves 20 or 28 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = [np.float32([3, -4]), np.float32([0])]
    >>> opt = LDoG(p, reps_rel=0.5)
    >>> report = opt.step([np.float32([0, 1]), np.float32([2])])
    >>> p[0], p[1], [round(rate, 6) for rate in opt.rates]
    (array([ 3., -7.], dtype=float32), array([-0.5], dtype=float32), [3.0, 0.25])

    References
    ----------
    Ivgi, Hinder & Carmon, DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule, 2023, section 3.3.
    """

    rule = "ldog"


class DoWG(Optimizer):
    """Gradient descent with `DoG`'s rate, the squared gradients weighted by the squared distances.

        g ← g + λp
        r² ← max(r², ‖p − x₀‖²)              r² = ε at first
        G ← G + r²‖g‖²                       G = 0 at first
        p ← p − η r²/(√G + ε) g

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`. Norms go over a
        group, and each group has a rate.
    lr : float or callable, default 1
        η ≥ 0, a factor that the authors leave at 1, or a function of the 0-based step.
    eps : float, default 1e-4
        ε > 0, the first r², and in the denominator outside the root.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient.

    Attributes
    ----------
    rates : list of float
        The rate of the last step, ηr²/(√G + ε), of each group; `Report.lr` has η.

    Notes
    -----
    The same update as the authors' and optax' up to rounding. For x₀, distances and gradients that are None see `DoG`.
    State: ``x0``; r² and G are two numbers a group, kept beside it in float64. Moves 20 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.float32([3, -4])
    >>> opt = DoWG(p)
    >>> for _ in range(200):
    ...     report = opt.step(p.copy())    # the gradient of ‖p‖²/2
    >>> bool(abs(p).max() < 0.1)
    True

    References
    ----------
    Khaled, Mishchenko & Jin, DoWG Unleashed: An Efficient Universal Parameter-Free Gradient Descent Method, 2023.
    """

    rule = "dowg"
    tunable = False
    states = ("x0",)
    hypers = {"eps": positive}

    def __init__(
        self,
        params: Any,
        lr: Rate = 1.0,
        eps: Number = 1e-4,
        weight_decay: Number = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (group.eps,)

    @property
    def rates(self) -> list[float]:
        return [numbers[-1] for numbers in self._plan.numbers]
