"""Rules for tables of which few rows have a gradient at each step: kernels/rows.c, and kernels/rules/ for each.

`Optimizer.step_rows` is how they are used; `SGD` and `Adagrad` have it too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, nonnegative, pair_of_betas, positive
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _adam(group: Group) -> tuple[float, ...]:
    return (*group.betas, group.eps, False)


def _hat(group: Group) -> tuple[float, ...]:
    return (*group.betas, group.eps, True)


class SparseAdam(Optimizer):
    """Adam for the rows that have a gradient, with "epsilon hat"; other rows' averages stand still.

        g ← g + λp                                           of each row given, t of the table
        m ← β₁m + (1−β₁)g
        v ← β₂v + (1−β₂)g²
        p ← p − η (√c₂/c₁) m / (√v + ε)           cₖ = 1 − βₖᵗ,  t = 1, 2, …

    Parameters
    ----------
    params : array, list or dict of arrays, or list of groups
        Tables, updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-8
        ε > 0, outside the root and beside the uncorrected v: the paper's epsilon-hat, where `Adam` has Algorithm 1's ε.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient of the rows given. torch has none.

    Notes
    -----
    The same update as ``torch.optim.SparseAdam`` up to rounding. Not Adam of a gradient that is 0 in the other rows:
    those would go on moving, and their m and v fade; `LazyAdam` has the latter. `step` takes a whole gradient, for
    all rows. State: ``m``, ``v`` (torch: exp_avg, exp_avg_sq). Moves 28 bytes a float32 parameter of a row given.

    Examples
    --------
    >>> import numpy as np
    >>> table = np.ones((4, 2), np.float32)
    >>> SparseAdam(table, lr=0.1).step_rows(np.array([2, 0]), np.float32([[1, -2], [3, 0]])).step
    1
    >>> table.round(6)
    array([[0.9, 1. ],
           [1. , 1. ],
           [0.9, 1.1],
           [1. , 1. ]], dtype=float32)

    References
    ----------
    Kingma & Ba, Adam: A Method for Stochastic Optimization, 2015, end of section 2.
    """

    rule = "adam"
    states = ("m", "v")
    hypers = {"betas": pair_of_betas, "eps": positive}
    by_rows = True
    kernel = staticmethod(_hat)

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))


class LazyAdam(Optimizer):
    """Adam for tables: a row's averages have faded at every step, though only a row that is given is written.

        k ← t − 1 − l        l ← t                           steps that the row has missed
        g ← g + λp
        m ← β₁·β₁ᵏm + (1−β₁)g
        v ← β₂·β₂ᵏv + (1−β₂)g²
        p ← p − η (m/c₁) / (√(v/c₂) + ε)          cₖ = 1 − βₖᵗ,  t = 1, 2, …

    Parameters
    ----------
    params : array, list or dict of arrays, or list of groups
        Tables, updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    betas : (float, float), default (0.9, 0.999)
        β₁, β₂ in [0, 1).
    eps : float, default 1e-8
        ε > 0, outside the root and beside the corrected v, as in `Adam`.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient of the rows given.

    Notes
    -----
    What is exact: m and v of a row that is given, up to rounding, are those of `Adam` with a gradient of 0 at the steps
    that the row missed, if λ is 0; βᵏ is of the β of this step. With all rows given at every step the bits are Adam's.
    What is not: at the steps it missed the row did not move, where Adam goes on moving it by its fading m; that is the
    point of it, since a row is only read when it is given. And decay reaches it only then. `state` of a row that is
    behind is as it was at step l. `tensorflow_addons.optimizers.LazyAdam` and torch's SparseAdam do not let m and v
    fade. State: ``m``, ``v`` and ``l``, an int64 for each row. Moves 28 bytes a float32 parameter of a row given, and
    16 a row.

    Examples
    --------
    >>> import numpy as np
    >>> table = np.ones((4, 2), np.float32)
    >>> opt = LazyAdam(table, lr=0.1, betas=(0.5, 0.5))
    >>> for row in (2, 0, 2):
    ...     _ = opt.step_rows(np.array([row]), np.float32([[8, -8]]))
    >>> opt.state["m"][2], opt.state["l"]
    (array([ 5., -5.], dtype=float32), array([2, 0, 3, 0]))

    References
    ----------
    Kingma & Ba, Adam: A Method for Stochastic Optimization, 2015, Algorithm 1.
    """

    rule = "lazy_adam"
    narrows = False
    states = ("m", "v", "l")
    hypers = {"betas": pair_of_betas, "eps": positive}
    by_rows = True
    per_row = {"l": "count"}
    kernel = staticmethod(_adam)

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))


class RowAdagrad(Optimizer):
    """Adagrad with one sum for each row of a table, of the mean squares of its gradients.

        g ← g + λp
        s ← s + Σⱼ gⱼ²/d                                     over the d elements of a row
        p ← p − η/(1 + (t−1)δ) · g / (√s + ε)          t = 1, 2, …

    Parameters
    ----------
    params : array, list or dict of arrays, or list of groups
        Tables, updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1e-2
        η ≥ 0, or a function of the 0-based step.
    lr_decay : float, default 0
        δ ≥ 0.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient of the rows given.
    initial_accumulator_value : float, default 0
        s before the first step, ≥ 0.
    eps : float, default 1e-10
        ε > 0, outside the root.

    Notes
    -----
    The same update as FBGEMM's exact row-wise Adagrad, which has no δ, up to rounding; torch has none. With rows of one
    element it is `Adagrad`. State: ``s``, one number for each row. Moves 12 bytes a float32 parameter of a row given,
    and 8 a row.

    Examples
    --------
    >>> import numpy as np
    >>> table = np.zeros((3, 2), np.float32)
    >>> opt = RowAdagrad(table, lr=0.5)
    >>> opt.step_rows(np.array([1]), np.float32([[7, 1]])).step
    1
    >>> table[1], opt.state["s"]
    (array([-0.7, -0.1], dtype=float32), array([ 0., 25.,  0.], dtype=float32))

    References
    ----------
    Gupta, Bengio & Weston, Training Highly Multiclass Classifiers, 2014, section 4.
    Mudigere et al., Software-Hardware Co-design for Fast and Scalable Training of Deep Learning Recommendation
    Models, 2022.
    """

    rule = "row_adagrad"
    narrows = False
    states = ("s",)
    starting = ("initial_accumulator_value",)
    hypers = {"lr_decay": nonnegative, "initial_accumulator_value": nonnegative, "eps": positive}
    by_rows = True
    per_row = {"s": "number"}

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        lr_decay: Number = 0.0,
        weight_decay: Number = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: Number = 1e-10,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return group.lr_decay, group.eps

    @staticmethod
    def initial(key: str, group: Group) -> float:
        return float(group.initial_accumulator_value)
