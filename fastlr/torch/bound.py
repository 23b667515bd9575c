"""How an optimizer of torch's is one of ours, and what a plan is made for: tensors, groups, gradients."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from fastlr import _core
from fastlr.groups import Group
from fastlr.optimizer import Optimizer as Rule

COUNTED, CARRIED, SHARE = range(3)  # see `_core.Tensors`
STEP: Mapping[str, Any] = {"step": (COUNTED, lambda group: 0.0)}  # of `Row.numbers`


class Row(NamedTuple):
    """How an optimizer of torch's is one of ours.

    `choose` gives the class for a group. `keys` has torch's name for each of our states, by letter; `numbers` what
    torch keeps beside them: where it comes from, and its first value, of the group. `whole` are those that it saves as
    integers. `mean` gives the average that a rule has of a parameter, of its group and state.
    """

    choose: Callable[[Mapping[str, Any]], type[Rule]]
    keys: Mapping[str, str]
    numbers: Mapping[str, tuple[int, Callable[[Mapping[str, Any]], float]]]
    whole: tuple[str, ...] = ()
    mean: Callable[[Group, Any, Mapping[str, Any]], Any] | None = None


class Chosen(NamedTuple):
    """What the hyper-parameters of a group come to."""

    cls: type[Rule]
    group: Group
    rule: str
    states: tuple[str, ...]
    decay: tuple[float, float]
    maximize: bool

    @property
    def kind(self) -> tuple[Any, ...]:
        return self.cls, self.rule, self.states, self.maximize


class Member(NamedTuple):
    name: str
    group: int
    p: Any
    slot: dict[str, Any]


class Bound(NamedTuple):
    """A plan, and where its gradients come from."""

    kind: tuple[Any, ...]
    plan: _core.Plan
    tensors: _core.Tensors
    maximize: bool
    inputs: Callable[[Sequence[Any], float], Sequence[Any]] | None
    members: list[Member]
    sparse: int
    """The dimensions that a row of a sparse gradient has an index for; 0 where gradients are dense."""

    def step(
        self, beside: Any, grads: list[Any], scale: float, clip: float, nonfinite: int, then: Callable[[], Any] | None
    ) -> _core.Report:
        if self.sparse:
            return self.plan.step_rows(beside, grads, scale, self.maximize, clip, nonfinite, then)
        inputs = self.inputs if beside is None else beside
        return self.plan.step(grads, scale, self.maximize, clip, False, nonfinite, inputs, then)

    def norm(self, rows: Any, grads: list[Any]) -> float:
        return self.plan.norm_rows(rows, grads) if self.sparse else self.plan.norm(grads)


class Moved(Exception):
    """A gradient is sparse that was dense, or dense that was sparse: bind again."""


Work = tuple[Bound, Any, list[Any]]  # a plan; rows, or what else the rule is given, or None; gradients


def plain(x: Any) -> Any:
    """A hyper-parameter as fastlr checks it: torch takes tensors of one element too."""
    if isinstance(x, torch.Tensor):
        return x.item()
    return tuple(map(plain, x)) if isinstance(x, list | tuple) else x


def is_fixed(x: Any) -> bool:
    """Whether nobody can change it in place."""
    return all(map(is_fixed, x)) if isinstance(x, tuple) else x is None or isinstance(x, float | int | str)


def table(p: Any, sparse: int) -> tuple[int, ...]:
    """The shape of a parameter, or as a table with a row for each index that a sparse gradient may have."""
    shape = tuple(p.shape)
    return (math.prod(shape[:sparse]), math.prod(shape[sparse:])) if sparse else shape


def over_arrays(derived: Callable[[Sequence[Any], float], Sequence[Any]]) -> Callable[..., Sequence[Any]]:
    """A function of arrays as one of tensors."""
    return lambda grads, scale: derived([None if g is None else g.detach().numpy() for g in grads], scale)


@functools.cache
def defaults_of(cls: type[Rule]) -> dict[str, Any]:
    """The defaults of a rule's hyper-parameters."""
    own = inspect.signature(cls).parameters
    return {"lr_scale": 1.0} | {name: own[name].default for name in cls.checks() if name in own}


def grad_name(name: str) -> str:
    return name.replace("params", "grads", 1) if name.startswith("params") else f"the gradient of {name}"
