"""Mechanic, which finds the rate of any rule: kernels/rules/mechanic.h, kernels/mechanic.c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from fastlr import _core
from fastlr.groups import Group
from fastlr.hyper import fraction, nonnegative, positive
from fastlr.optimizer import Optimizer, State, Variant
from fastlr.structure import Structure

Cls = TypeVar("Cls", bound=type[Optimizer])

BETAS = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
OWN = ("delta", "start")


def _betas(name: str, x: object) -> tuple[float, ...]:
    if not isinstance(x, tuple | list) or not 0 < len(x) <= 8:
        raise TypeError(f"{name} must be 1 to 8 numbers in [0, 1), got {x!r}")
    return tuple(fraction(f"{name}[{k}]", b) for k, b in enumerate(x))


def mechanize(
    cls: Cls, betas: tuple[float, ...] = BETAS, s_init: float = 1e-8, s_decay: float = 0.01, eps: float = 1e-8
) -> Cls:
    """The class of an optimizer that finds the scale of its steps, and so its rate: Mechanic.

        h = ⟨δ, g⟩ + λ_s S ‖g‖ / (‖p‖ + ε) ⟨δ, p⟩          δ: all that the optimizer would have moved p so far
        m ← max(βm, |h|)                                 for each β; m is 10⁻⁶ at first, all else 0
        v ← β²v + h²
        r ← max(0, βr − sh)
        s ← (m s₀/n + r) / (√v + ε)                      n of them;  S = Σs
        δ ← δ + the optimizer's step from p
        p ← x₀ + Sδ                                      x₀: p before its first step

    The class has the arguments, methods and states of `cls`, and two states more. What rate it is given hardly matters,
    but for its course, a schedule, and as long as p's dtype shows a step of it: δ is made of differences of p.

    Parameters
    ----------
    cls : type of optimizer
        One that keeps no point beside p, as dual averages and means of p are, and finds no rate itself: there δ would
        not be what it takes it for. So not `ASGD`, `DAdaptAdam`, `DAdaptSGD`, `DoG`, `DoWG`, `FTRL`, `LDoG`, `MADGRAD`,
        `Prodigy`, `AdamHD`, `SGDHD`, `ScheduleFreeAdamW` or `ScheduleFreeSGD`; nor those with rows alone.
    betas : tuple of float, default (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
        β, each in [0, 1): over how many steps what was found is forgotten. One to eight.
    s_init : float, default 1e-8
        s₀ > 0: the scale to begin with is of that size.
    s_decay : float, default 0.01
        λ_s ≥ 0: pulls p to 0 with a part of the gradient's norm.
    eps : float, default 1e-8
        ε > 0.

    Notes
    -----
    The sums go over the whole model, as S does: one for all groups, each with its own η. Clipping, scaling and
    `maximize` act on g before all. A gradient that is not finite leaves S as it is. ``opt.scale`` is S; it is in
    checkpoints, with ``delta`` (δ) and ``start`` (x₀, 0 before the first step). Row-wise steps (`step_rows`) have none.
    `fastlr.functional.mechanize` makes the function of one update of an array.

    The same update as the authors' ``mechanic_pytorch.mechanize`` with ``store_delta=True`` up to rounding, but for the
    decay: p is that of before the step here, as in the paper, and that of after it there. optax keeps no δ, takes h no
    larger than m for r, and starts m at 0. Moves 32 bytes more a float32 parameter: one read of g, p and δ for the
    sums, and p, δ and x₀ after the step.

    Examples
    --------
    >>> import fastlr, numpy as np
    >>> p = np.float32([3, -4])
    >>> opt = mechanize(fastlr.SGD)(p, lr=1.0)
    >>> for _ in range(200):
    ...     report = opt.step(p.copy())    # the gradient of ‖p‖²/2
    >>> bool(abs(p).max() < 1e-3), opt.scale > 0.01
    (True, True)

    References
    ----------
    Cutkosky, Defazio & Mehta, Mechanic: A Learning Rate Tuner, 2023, Algorithm 1.
    """
    if not (isinstance(cls, type) and issubclass(cls, Optimizer)):
        raise TypeError(f"cls must be a class of optimizers, such as fastlr.AdamW, got {cls!r}")
    if cls.per_row or issubclass(cls, _Mechanized):
        raise TypeError(f"cls must be a class of optimizers that step whole and are not mechanized, got {cls.__name__}")
    if not cls.tunable:
        raise TypeError(
            f"cls must keep no point beside the parameters and find no rate itself, got {cls.__name__}; "
            "use it as it is, or mechanize another, such as fastlr.SGD or fastlr.AdamW"
        )
    tuning = (
        _betas("betas", betas),
        positive("s_init", s_init),
        nonnegative("s_decay", s_decay),
        positive("eps", eps),
    )

    def layout(key: str, structure: Structure) -> Structure:
        return structure if key in OWN else cls.layout(key, structure)

    def initial(key: str, group: Group) -> float:
        return 0.0 if key in OWN else cls.initial(key, group)

    own = {
        "_tuning": tuning,
        "states": (*cls.states, *OWN),
        "layout": staticmethod(layout),
        "initial": staticmethod(initial),
        "by_rows": False,
        "narrows": False,
    }
    return type(f"Mechanic{cls.__name__}", (_Mechanized, cls), {"__doc__": cls.__doc__, **own})  # type: ignore[return-value]


class _Mechanized(Optimizer):
    """What is mixed into the class: two more states, and a plan beside the plan."""

    _tuning: tuple[tuple[float, ...], float, float, float]

    @classmethod
    def variant(cls, groups: Sequence[Group]) -> Variant:
        rule, states = super().variant(groups)
        return rule, (*(key for key in states if key not in OWN), *OWN)

    @classmethod
    def plan(
        cls,
        rule: str,
        structure: Structure,
        state: State,
        pieces: Sequence[tuple[int, int, int, int]],
        groups: int,
        beside: Mapping[str, list[Any]] | None = None,
    ) -> _core.Plan:
        theirs = {key: x for key, x in state.items() if key not in OWN}
        own, kind = {key: state[key] for key in OWN}, structure.arrays[0].dtype.char
        tuner = _core.Tuner("mechanic", kind, structure.arrays, structure.names, own, pieces, groups)
        tuner.set_tuning(*cls._tuning)
        plan = super().plan(rule, structure, theirs, pieces, groups, beside)
        plan.tune(tuner)
        return plan

    @property
    def scale(self) -> float:
        """S: what the optimizer's own steps are multiplied by."""
        return self._plan.scale
