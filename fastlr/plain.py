"""Rules for libraries that keep state themselves: those whose state is arrays like the parameter, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastlr import _core, functional
from fastlr.custom import Custom
from fastlr.hyper import is_scheduled, nonnegative
from fastlr.optimizer import Optimizer


class Plain(NamedTuple):
    """`update` of `fastlr.functional` with its hyper-parameters, and what each state, by letter, holds at first.

    `kernel` is the rule in the kernels' table; `numbers` what that is given at a step, from 0: lr, coupled and
    decoupled weight decay, and its own. They are `constant` where nothing is a schedule.
    """

    update: Callable[..., None]
    hyper: dict[str, Any]
    first: dict[str, float]
    kernel: str
    numbers: Callable[[int], tuple[float, ...]]
    constant: bool


def plain(rule: type[Optimizer], hyper: Mapping[str, Any]) -> Plain:
    """What is needed of a rule, or the error that says why it cannot be used so."""
    made = isinstance(rule, type) and issubclass(rule, Custom)
    if not made and rule not in functional.BY_RULE:
        raise TypeError(f"rule must be a class of fastlr's, such as fastlr.AdamW, or of fastlr.rule, got {rule!r}")
    update = getattr(rule, "function", None) or functional.BY_RULE[rule]
    for dtype in (np.float64, np.float32) if made else (np.float32,):  # a user's rule is compiled for each
        probe = rule(np.zeros((1, 1), dtype), **hyper)  # refuses what it would refuse
    if not is_plain(rule):
        raise TypeError(f"rule must keep arrays of the parameters' shapes and nothing else, unlike {rule.__name__}")
    (group,) = probe.groups
    first = {key: probe.initial(key, group) for key in probe.states}

    def numbers(step: int) -> tuple[float, ...]:
        group.check(step)
        now = group.at(step)
        lr = nonnegative(f"lr({step})", now.lr(step)) if callable(now.lr) else now.lr
        return float(lr) * now.lr_scale, *rule.decay(now), *rule.kernel(now)

    own = {name: x for name, x in hyper.items() if name not in rule.starting}
    constant = not any(is_scheduled(x) or callable(x) for _, x in group)
    return Plain(update, own, first, probe.rule, numbers, constant)


def is_plain(rule: type[Optimizer]) -> bool:
    """Whether arrays like the parameter are all that the rule keeps, and gradients all that it is given."""
    return not (rule.informed or rule.per_row or _core.carried(rule.rule)[0] or rule.layout is not Optimizer.layout)


def overrides(cls: type[Optimizer], method: str) -> bool:
    """Whether a rule does not go by the base class here."""
    own, base = getattr(cls, method), getattr(Optimizer, method)
    return getattr(own, "__func__", own) is not getattr(base, "__func__", base)
