"""torch.optim.lr_scheduler: the base rate first, then each class's own arguments.

The values are those of stepping once per update: update n uses ``scheduler.get_last_lr()`` after n calls of ``step()``,
in real arithmetic; torch's recursions differ from it in the last digits (1e-12 relative over thousands of steps).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from fastlr.schedules import curves, recipes
from fastlr.schedules.feedback import Plateau
from fastlr.schedules.schedule import Schedule

__all__ = [
    "SWALR",
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "from_torch",
]


def LambdaLR(lr: float, lr_lambda: Callable[[int], float]) -> Schedule:
    """`lr` times a Python function."""
    return curves.custom(_Whole(lr_lambda)) * lr


def MultiplicativeLR(lr: float, lr_lambda: Callable[[int], float]) -> Schedule:
    """`lr` times the product of a Python function at 1, 2, …, n."""
    return curves.custom(_Product(lr_lambda)) * lr


class _Whole:
    """A function of whole steps, as one of floats."""

    def __init__(self, fn: Callable[[int], float]) -> None:
        self.fn = fn

    def __call__(self, n: float) -> float:
        return float(self.fn(int(n)))


class _Product(_Whole):
    def __init__(self, fn: Callable[[int], float]) -> None:
        super().__init__(fn)
        self.products = [1.0]

    def __call__(self, n: float) -> float:
        while len(self.products) <= n:
            self.products.append(self.products[-1] * self.fn(len(self.products)))
        return self.products[int(n)]


def ConstantLR(lr: float, factor: float = 1 / 3, total_iters: int = 5) -> Schedule:
    """First lr · factor for `total_iters` updates, then lr: not constant."""
    return curves.piecewise([total_iters], [lr * factor, lr]) if total_iters else curves.constant(lr)


def LinearLR(lr: float, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5) -> Schedule:
    """From lr · start_factor to lr · end_factor."""
    if total_iters == 0:  # never steps
        return curves.constant(lr * start_factor)
    return curves.linear(lr * start_factor, lr * end_factor, total_iters)


def StepLR(lr: float, step_size: int, gamma: float = 0.1) -> Schedule:
    return curves.step(lr, gamma, step_size)


def MultiStepLR(lr: float, milestones: Sequence[int], gamma: float = 0.1) -> Schedule:
    """A milestone that is given k times counts k times."""
    return curves.multistep(lr, {at: gamma**count for at, count in sorted(Counter(milestones).items())})


def ExponentialLR(lr: float, gamma: float) -> Schedule:
    return curves.exponential(lr, gamma)


def PolynomialLR(lr: float, total_iters: int = 5, power: float = 1.0) -> Schedule:
    """Down to 0: there is no floor."""
    return curves.polynomial(lr, 0.0, total_iters, power)


def CosineAnnealingLR(lr: float, T_max: int, eta_min: float = 0.0) -> Schedule:
    """Half a cosine down in T_max, and up again in the next, for ever: it is not held at eta_min."""
    return (curves.cosine(lr, eta_min, T_max) >> curves.cosine(eta_min, lr, T_max)).repeat()


def CosineAnnealingWarmRestarts(lr: float, T_0: int, T_mult: int = 1, eta_min: float = 0.0) -> Schedule:
    """As with ``step()``; ``step(epoch)`` misses some restarts by a rounded logarithm, which is not reproduced."""
    return curves.warm_restarts(lr, eta_min, T_0, T_mult)


def CyclicLR(
    base_lr: float,
    max_lr: float,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
    scale_fn: Callable[[float], float] | None = None,
    scale_mode: str = "cycle",
) -> Schedule:
    """`scale_fn` is given the cycle, counted from 1, or with ``scale_mode="iterations"`` the update."""
    if scale_fn is None:
        return curves.cyclical(base_lr, max_lr, step_size_up, step_size_down, mode, gamma)
    per = "cycle" if scale_mode == "cycle" else "step"
    height = _FromOne(scale_fn) if per == "cycle" else scale_fn
    return curves.cyclical_custom(base_lr, max_lr, step_size_up, step_size_down, height=height, per=per)


class _FromOne:
    def __init__(self, fn: Callable[[float], float]) -> None:
        self.fn = fn

    def __call__(self, n: float) -> float:
        return float(self.fn(n + 1))


def OneCycleLR(
    max_lr: float,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """Phases end with the last update in them. Update `total_steps`, one too many, is allowed and overshoots the end.

    A loop that calls ``step()`` after each of its updates leaves that value in the optimizer: with
    ``anneal_strategy="linear"`` it is negative. Later updates raise ValueError, as in torch.
    """
    if total_steps is None:
        if epochs is None or steps_per_epoch is None:
            raise ValueError("total_steps must be given, or epochs and steps_per_epoch")
        total_steps = epochs * steps_per_epoch
    shape = {"cos": "cosine", "linear": "linear"}.get(anneal_strategy)
    if shape is None:
        raise ValueError(f"anneal_strategy must be one of 'cos', 'linear', got {anneal_strategy!r}")
    s = recipes.one_cycle(
        max_lr, total_steps, pct_start, div_factor, final_div_factor, shape, three_phase, endpoint="inclusive"
    )
    start = max_lr / div_factor
    high, low = (start if three_phase else max_lr), start / final_div_factor
    begin = 2 * pct_start * total_steps - 2 if three_phase else pct_start * total_steps - 1
    beyond = (total_steps - begin) / (total_steps - 1 - begin)
    way = (1 - math.cos(math.pi * beyond)) / 2 if shape == "cosine" else beyond
    return s.then(curves.constant(high + (low - high) * way, 1)).after("raise")


def SWALR(lr: float, swa_lr: float, anneal_epochs: int = 10, anneal_strategy: str = "cos") -> Schedule:
    """From lr to swa_lr, the first step of which the first call of ``step()`` makes."""
    shape = {"cos": "cosine", "linear": "linear"}.get(anneal_strategy)
    if shape is None:
        raise ValueError(f"anneal_strategy must be one of 'cos', 'linear', got {anneal_strategy!r}")
    return curves.ramp(lr, swa_lr, anneal_epochs, shape) if anneal_epochs else curves.constant(swa_lr)


def SequentialLR(schedules: Sequence[Schedule], milestones: Sequence[int]) -> Schedule:
    """Each from its milestone on, on its own clock."""
    if len(milestones) != len(schedules) - 1:
        raise ValueError(f"milestones must be one less than schedules, got {len(milestones)} and {len(schedules)}")
    whole = schedules[-1]
    for k in range(len(milestones) - 1, -1, -1):
        whole = schedules[k].then(whole, at=milestones[k] - (milestones[k - 1] if k else 0))
    return whole


def ChainedScheduler(lr: float, schedules: Sequence[Schedule]) -> Schedule:
    """`lr` times what each schedule makes of it; each must have been built with the same `lr`."""
    whole = schedules[0]
    for other in schedules[1:]:
        whole = whole * (other * (1 / lr))
    return whole


def ReduceLROnPlateau(
    lr: float,
    mode: str = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: str = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
) -> Plateau:
    """A `Plateau`, whose scale multiplies lr; right for negative metrics, unlike torch's, and without ``eps=1e-8``."""
    return Plateau(factor, patience, threshold, threshold_mode, cooldown, min_lr / lr, mode)


def from_torch(scheduler: Any, group: int = 0) -> Schedule:
    """The schedule of a scheduler object of torch, for one of its parameter groups: the whole curve, from update 0 on.

    For all classes that are functions of the step; ReduceLROnPlateau is none.
    """
    s, name = scheduler, type(scheduler).__name__
    if name == "ChainedScheduler":
        return ChainedScheduler(s._schedulers[0].base_lrs[group], [from_torch(x, group) for x in s._schedulers])
    if name == "SequentialLR":
        return SequentialLR([from_torch(x, group) for x in s._schedulers], s._milestones)
    if name == "OneCycleLR":
        own = s.optimizer.param_groups[group]
        last = s._schedule_phases[0]["end_step"]
        return OneCycleLR(
            own["max_lr"],
            s.total_steps,
            pct_start=(float(last) + 1) / s.total_steps,
            anneal_strategy=s._anneal_func_type,
            div_factor=own["max_lr"] / own["initial_lr"],
            final_div_factor=own["initial_lr"] / own["min_lr"],
            three_phase=len(s._schedule_phases) == 3,
        )
    lr = s.base_lrs[group] if hasattr(s, "base_lrs") else math.nan
    match name:
        case "LambdaLR":
            return LambdaLR(lr, s.lr_lambdas[group])
        case "MultiplicativeLR":
            return MultiplicativeLR(lr, s.lr_lambdas[group])
        case "ConstantLR":
            return ConstantLR(lr, s.factor, s.total_iters)
        case "LinearLR":
            return LinearLR(lr, s.start_factor, s.end_factor, s.total_iters)
        case "StepLR":
            return StepLR(lr, s.step_size, s.gamma)
        case "MultiStepLR":
            return MultiStepLR(lr, list(s.milestones.elements()), s.gamma)
        case "ExponentialLR":
            return ExponentialLR(lr, s.gamma)
        case "PolynomialLR":
            return PolynomialLR(lr, s.total_iters, s.power)
        case "CosineAnnealingLR":
            return CosineAnnealingLR(lr, s.T_max, s.eta_min)
        case "CosineAnnealingWarmRestarts":
            return CosineAnnealingWarmRestarts(lr, s.T_0, s.T_mult, s.eta_min)
        case "CyclicLR":
            up = s.total_size * s.step_ratio
            custom = s._scale_fn_custom
            top = s.max_lrs[group]
            if custom is not None:
                return CyclicLR(lr, top, up, s.total_size - up, scale_fn=custom, scale_mode=s.scale_mode)
            return CyclicLR(lr, top, up, s.total_size - up, s.mode, s.gamma)
    raise TypeError(f"{name} is not a function of the step that is known here; write it as a schedule")
