"""Schedule-Free: kernels/rules/schedule_free.h."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlr import _core
from fastlr.buffers import as_array, refuse
from fastlr.groups import Group, Piece
from fastlr.hyper import Number, fraction, nonnegative, positive, real
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


def within(name: str, x: object) -> float:
    """β: where it is 0, x cannot be told from y and z."""
    value = real(name, x)
    if not 0 < value < 1:
        raise ValueError(f"{name} must be in (0, 1), got {x!r}")
    return value


def pair_of_betas(name: str, x: object) -> tuple[float, float]:
    if not isinstance(x, tuple | list) or len(x) != 2:
        raise TypeError(f"{name} must be a pair of numbers, in (0, 1) and [0, 1), got {x!r}")
    return within(f"{name}[0]", x[0]), fraction(f"{name}[1]", x[1])


class _ScheduleFree(Optimizer):
    """What the two share: the average, on demand."""

    tunable = False

    @staticmethod
    @abstractmethod
    def share(group: Group) -> float:
        """β: how much of y is x."""

    @classmethod
    def average(
        cls,
        out: list[Any],
        names: list[str],
        y: Sequence[Any],
        z: Sequence[Any],
        pieces: Sequence[Piece],
        groups: Sequence[Group],
    ) -> None:
        """Writes x to arrays, where y is not None."""
        rule = "schedule_free_x"
        plan = _core.Plan(rule, out[0].dtype.char, out, names, {}, pieces, len(groups), rule)
        for k, group in enumerate(groups):
            plan.set_group(k, 0.0, 0.0, 0.0, (cls.share(group),))
        plan.step(y, 1.0, False, -1.0, False, _core.PROPAGATE, z)

    def eval_params(self, out: Any = None) -> Any:
        """x, the average that was learnt: what to evaluate, save or deploy. The parameters stay as they are.

            x = (y − (1−β)z) / β

        Parameters
        ----------
        out : optional
            Where to write it: buffers in the structure of the parameters, same shapes and dtype, which share no memory
            with them. By default, new arrays.

        Returns
        -------
        `out`, or new arrays in the structure of the parameters. What has made no step yet is a copy of the parameter.
        """
        with self._lock:
            arrays = self._structure.arrays
            if out is None:
                entries = [np.empty_like(a) for a in arrays]
                out = self._structure.build(entries)
            else:
                entries = list(self._structure.take(out, "out"))
                for name, x, a in zip(self._structure.names, entries, arrays, strict=True):
                    if as_array("out", x).dtype != a.dtype:
                        refuse(f"out{name}", x, a.dtype.char, a.shape, True)
            names = [f"{name} of out" for name in self._structure.names]
            for group in self.groups:
                group.check()
            made = self._plan.steps_made
            y = [a if steps else None for a, steps in zip(arrays, made, strict=True)]
            self.average(entries, names, y, self._entries["z"], self._pieces, self.groups)
            for entry, a, steps in zip(entries, arrays, made, strict=True):
                if not steps:
                    np.copyto(entry, a)
            return out


class ScheduleFreeSGD(_ScheduleFree):
    """Gradient descent that needs no schedule: it averages as it goes.

        g ← g + λy
        η ← η min(1, t/W)                          t = 1, 2, …
        w = tʳ max(η so far)^q,  c = w / Σw
        y ← (1−c)y + cz − η(1 − β(1−c))g           z = y before the first step
        z ← z − ηg

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 1.0
        η ≥ 0, or a function of the 0-based step.
        The authors advise 10 to 50 times the rate of scheduled descent.
    momentum : float, default 0.9
        β in (0, 1).
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient, at y.
    warmup_steps : float, default 0
        W ≥ 0: the rate grows over them in a straight line. Use it rather than a schedule.
    r : float, default 0
        r ≥ 0: later z weigh more, by their number to this power.
    weight_lr_power : float, default 2
        q ≥ 0: z made with larger rates weigh more, by the largest rate so far to this power.

    Notes
    -----
    The parameter is y, where gradients are to be taken; what was learnt is x, which `eval_params` computes into a
    buffer beside it: there is no mode to switch, and none to forget. Not in torch. The same update as the authors'
    SGDScheduleFree and, with a constant rate, as ``optax.contrib.schedule_free_sgd``, up to rounding. State: ``z``, and
    two numbers, the largest rate and Σw. Moves 20 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.ones(2, np.float32)
    >>> opt = ScheduleFreeSGD(p, lr=0.5, momentum=0.5)
    >>> for g in ([1, 0], [1, 0]):
    ...     report = opt.step(np.float32(g))
    >>> p, opt.state["z"], opt.eval_params()
    (array([0.125, 1.   ], dtype=float32), array([0., 1.], dtype=float32), array([0.25, 1.  ], dtype=float32))

    References
    ----------
    Defazio et al., The Road Less Scheduled, 2024, Algorithm 1.
    """

    rule = "schedule_free_sgd"
    states = ("z",)
    hypers = {
        "momentum": within,
        "warmup_steps": nonnegative,
        "r": nonnegative,
        "weight_lr_power": nonnegative,
    }

    def __init__(
        self,
        params: Any,
        lr: Rate = 1.0,
        momentum: Number = 0.9,
        weight_decay: Number = 0.0,
        warmup_steps: Number = 0.0,
        r: Number = 0.0,
        weight_lr_power: Number = 2.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return group.momentum, group.warmup_steps, group.r, group.weight_lr_power

    @staticmethod
    def share(group: Group) -> float:
        return float(group.momentum)


class ScheduleFreeAdamW(_ScheduleFree):
    """AdamW that needs no schedule: it averages as it goes.

        v ← β₂v + (1−β₂)g²
        u = g / (√(v/c₂) + ε) + λy                 c₂ = 1 − β₂ᵗ,  t = 1, 2, …
        η ← η min(1, t/W)
        w = tʳ max(η so far)^q,  c = w / Σw
        y ← (1−c)y + cz − η(1 − β₁(1−c))u          z = y before the first step
        z ← z − ηu

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 0.0025
        η ≥ 0, or a function of the 0-based step.
        The authors advise 1 to 10 times the rate of scheduled AdamW.
    betas : (float, float), default (0.9, 0.999)
        β₁ in (0, 1), β₂ in [0, 1).
    eps : float, default 1e-8
        ε > 0, outside the root and beside the corrected v.
    weight_decay : float, default 0
        λ ≥ 0, times the learning rate, of y.
    warmup_steps : float, default 0
        W ≥ 0: the rate grows over them in a straight line. Use it rather than a schedule.
    r : float, default 0
        r ≥ 0: later z weigh more, by their number to this power.
    weight_lr_power : float, default 2
        q ≥ 0: z made with larger rates weigh more, by the largest rate so far to this power.

    Notes
    -----
    The parameter is y, where gradients are to be taken; what was learnt is x, which `eval_params` computes into a
    buffer beside it: there is no mode to switch, and none to forget. Not in torch. The same update as the authors'
    AdamWScheduleFree since its version 1.3 (before, ε stood beside the uncorrected root and √c₂ was in η) and, with a
    constant rate, as ``optax.contrib.schedule_free_adamw``, up to rounding. State: ``z``, ``v`` (exp_avg_sq), and two
    numbers, the largest rate and Σw. Moves 28 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> opt = ScheduleFreeAdamW(p, lr=0.5, betas=(0.5, 0))
    >>> for g in ([4, 0], [2, 0]):
    ...     report = opt.step(np.float32(g))
    >>> p, opt.state["z"], opt.eval_params()
    (array([-0.875,  0.   ], dtype=float32), array([-1.,  0.], dtype=float32), array([-0.75,  0.  ], dtype=float32))

    References
    ----------
    Defazio et al., The Road Less Scheduled, 2024, Algorithm 1 with Adam's v.
    """

    rule = "schedule_free_adamw"
    states = ("z", "v")
    hypers = {
        "betas": pair_of_betas,
        "eps": positive,
        "warmup_steps": nonnegative,
        "r": nonnegative,
        "weight_lr_power": nonnegative,
    }

    def __init__(
        self,
        params: Any,
        lr: Rate = 0.0025,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        warmup_steps: Number = 0.0,
        r: Number = 0.0,
        weight_lr_power: Number = 2.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        free = group.betas[0], group.warmup_steps, group.r, group.weight_lr_power
        return (*free, group.betas[1], group.eps, group.weight_decay)

    @classmethod
    def decay(cls, group: Group) -> tuple[float, float]:
        return 0.0, 0.0  # of u, in the kernel

    @staticmethod
    def share(group: Group) -> float:
        return float(group.betas[0])
