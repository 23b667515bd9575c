"""`Optimizer`, the one abstract base: groups, state, step, state_dict.

From `opt.step(grads)` to the loop: here, then `Plan.step` in _core.pyx, then kernels/sweep.h with the rule inlined.
"""

from __future__ import annotations

import fnmatch
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, TypedDict

import numpy as np

from fastlr import _core
from fastlr.buffers import Array, allocate
from fastlr.hyper import Check, Group, choice, flag, nonnegative, positive, rate
from fastlr.structure import Many, Structure, structure_of

Rate = float | Callable[[int], float]


class Options(TypedDict, total=False):
    """What every optimizer takes beside its rule's hyper-parameters; see `Optimizer`."""

    groups: Sequence[Mapping[str, Any]] | None
    maximize: bool
    nonfinite: str


Variant = tuple[str, tuple[str, ...]]
Piece = tuple[int, int, int, int]  # entry, offset, size, group

_ONE = 1.0
_NONFINITE = {"propagate": _core.PROPAGATE, "skip": _core.SKIP, "raise": _core.RAISE}


class Optimizer(ABC):
    """What all optimizers share. A subclass names its rule, its state and its hyper-parameters; see `Adam`.

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place, never copied: C-contiguous, aligned, writable, all float32 or all float64; numpy arrays, CPU
        torch tensors, or anything with a buffer. A group is a dict with "params" (any of the above) and
        hyper-parameters of its own.
    groups : list of dict, optional
        Groups by name, for a FlatBuffer or a dict: each has "match", a pattern as in `fnmatch`, and hyper-parameters.
        A parameter belongs to the first that matches; the others form the last group.
    maximize : bool, default False
        Whether to go up the gradient.
    nonfinite : {"propagate", "skip", "raise"}, default "propagate"
        What to do with a gradient that holds inf or NaN: use it, leave the step out, or raise FloatingPointError. The last
        two leave parameters, state and step number as they were, and cost one more read of the gradients.

    Attributes
    ----------
    groups : tuple of Group
        Hyper-parameters, which may be set between steps: ``opt.groups[0].lr = 1e-4``. Every group has ``lr``, ``lr_scale``
        (a factor on it, default 1) and ``weight_decay``.
    state : mapping of str to arrays
        Each state in the structure of the parameters, by the letter that it has in the formula.
    step_count : int
        Updates made.
    """

    rule: str
    """The kernel, in kernels/rules/."""
    states: tuple[str, ...]
    """Its state buffers, in the kernel's order."""
    hypers: ClassVar[dict[str, Check]]
    """The rule's own hyper-parameters and what they may be."""
    decoupled: ClassVar[bool] = False
    """Whether weight decay acts on the parameters directly, not through the gradient."""

    def __init__(
        self,
        params: Any,
        *,
        groups: Sequence[Mapping[str, Any]] | None = None,
        maximize: bool = False,
        nonfinite: str = "propagate",
        **hyper: Any,
    ) -> None:
        self._checks = self.checks()
        self._maximize = flag("maximize", maximize)
        self._nonfinite = _NONFINITE[choice(*_NONFINITE)("nonfinite", nonfinite)]
        self._lock = threading.Lock()
        self._changed = [True]
        self._scheduled: list[tuple[int, Any, float]] = []

        defaults = self._group("", {"lr_scale": 1.0, **hyper})
        if _is_groups(params):
            if groups is not None:
                raise ValueError("groups must be None where params is a list of groups; give one of the two")
            self._structure, self.groups, owners = self._explicit_groups(params, defaults)
        else:
            self._structure = structure_of(params)
            self.groups, owners = self._matched_groups(groups, defaults)
        arrays = self._structure.arrays
        if not arrays:
            raise ValueError("params must hold at least one array, got none")
        dtype = arrays[0].dtype
        for name, array in zip(self._structure.names, arrays, strict=True):
            if array.dtype != dtype:
                raise TypeError(
                    f"params{name}: expected {dtype} to match the first, got {array.dtype}; use an optimizer for each dtype"
                )
        self.rule, self.states = self.variant(self.groups)

        state = {key: self._allocate(key, owners) for key in self.states}
        self.state: Mapping[str, Any] = MappingProxyType({k: self._structure.build(s) for k, s in state.items()})
        self._entries = state
        self._plan = _core.Plan(
            self.rule, dtype.char, arrays, self._structure.names, state, owners, len(self.groups)
        )
        self._refresh()

    # ---- what a subclass says ---------------------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def kernel(group: Group) -> tuple[float, ...]:
        """The rule's hyper-parameters, in the order of the kernel's <rule>_hyper. May refuse a combination."""

    @classmethod
    def variant(cls, groups: Sequence[Group]) -> Variant:
        """Rule and states, where they depend on hyper-parameters."""
        return cls.rule, cls.states

    @staticmethod
    def initial(key: str, group: Group) -> float:
        """What a state holds before the first step."""
        return 0.0

    @classmethod
    def checks(cls) -> dict[str, Check]:
        return {"lr": rate, "lr_scale": nonnegative, "weight_decay": nonnegative, **cls.hypers}

    @classmethod
    def decay(cls, group: Group) -> tuple[float, float]:
        """Weight decay as (coupled, decoupled)."""
        return (0.0, group.weight_decay) if cls.decoupled else (group.weight_decay, 0.0)

    # ---- construction -----------------------------------------------------------------------------------------------

    def _group(self, label: str, values: Mapping[str, Any]) -> Group:
        for name in values:
            if name not in self._checks:
                raise TypeError(f"{label}{name}: unknown hyper-parameter; there are {', '.join(self._checks)}")
        group = Group(label, self._checks, values, self._changed)
        group.check()
        return group

    def _explicit_groups(
        self, given: Sequence[Mapping[str, Any]], defaults: Group
    ) -> tuple[Structure, tuple[Group, ...], list[Piece]]:
        parts, groups, owners, entry = {}, [], [], 0
        for k, own in enumerate(given):
            if not isinstance(own, Mapping) or "params" not in own:
                raise TypeError(f'groups[{k}] must be a dict with "params" and hyper-parameters, got {type(own).__name__}')
            values = {name: x for name, x in own.items() if name != "params"}
            groups.append(self._group(f"groups[{k}].", {**dict(defaults), **values}))
            parts[k] = structure_of(own["params"], f"[{k}]")
            for array in parts[k].arrays:
                owners.append((entry, 0, array.size, k))
                entry += 1
        return Many(parts), tuple(groups), owners

    def _matched_groups(
        self, given: Sequence[Mapping[str, Any]] | None, defaults: Group
    ) -> tuple[tuple[Group, ...], list[Piece]]:
        """Groups, and the pieces that belong to them: neighbours in one entry and one group are one piece."""
        if not given:
            return (defaults,), [(k, 0, a.size, 0) for k, a in enumerate(self._structure.arrays)]
        groups, used = [], set()
        for k, own in enumerate(given):
            if not isinstance(own, Mapping) or not isinstance(own.get("match"), str):
                raise TypeError(f'groups[{k}] must be a dict with "match", a pattern, and hyper-parameters, got {own!r}')
            values = {name: x for name, x in own.items() if name != "match"}
            groups.append(self._group(f"groups[{k}].", {**dict(defaults), **values}))
        rest = len(groups)
        owners: list[Piece] = []
        for entry, labels in enumerate(self._structure.labels()):
            offset = 0
            for name, size in labels:
                if name is None:
                    raise TypeError("groups by pattern need names: pass params as a FlatBuffer or a dict, or as groups")
                owner = next((k for k, own in enumerate(given) if fnmatch.fnmatchcase(name, own["match"])), rest)
                used.add(owner)
                if owners and owners[-1][0] == entry and owners[-1][3] == owner:
                    owners[-1] = (entry, owners[-1][1], owners[-1][2] + size, owner)
                else:
                    owners.append((entry, offset, size, owner))
                offset += size
        for k, own in enumerate(given):
            if k not in used:
                raise ValueError(f"groups[{k}]: no parameter is left for the pattern {own['match']!r}; remove it or reorder")
        if rest in used:
            groups.append(self._group(f"groups[{rest}].", dict(defaults)))
        return tuple(groups), owners

    def _allocate(self, key: str, owners: list[Piece]) -> list[Array]:
        """One allocation for all entries, and a view of it for each."""
        arrays, start = [], 0
        flat = allocate(sum(a.size for a in self._structure.arrays), self._structure.arrays[0].dtype)
        for a in self._structure.arrays:
            arrays.append(flat[start : start + a.size].reshape(a.shape))
            start += a.size
        for entry, offset, size, group in owners:
            if value := self.initial(key, self.groups[group]):
                arrays[entry].reshape(-1)[offset : offset + size] = value
        return arrays

    def _refresh(self) -> None:
        """Checks the groups and hands them to the plan."""
        for group in self.groups:
            group.check()
        if (variant := self.variant(self.groups)) != (self.rule, self.states):
            raise ValueError(
                f"groups: these hyper-parameters need the state of rule {variant[0]!r}, but the optimizer was built with "
                f"that of {self.rule!r}; build a new one"
            )
        rules = [self.kernel(group) for group in self.groups]
        scheduled = []
        for k, (group, rule) in enumerate(zip(self.groups, rules, strict=True)):
            if callable(group.lr):
                scheduled.append((k, group.lr, group.lr_scale))
            lr = 0.0 if callable(group.lr) else group.lr * group.lr_scale
            self._plan.set_group(k, lr, *self.decay(group), rule)
        self._scheduled = scheduled
        self._changed[0] = False

    # ---- use --------------------------------------------------------------------------------------------------------

    def step(
        self, grads: Any, *, grad_scale: float = _ONE, clip_norm: float | None = None, zero_grads: bool = False
    ) -> _core.Report:
        """Updates the parameters in place, in one pass over memory.

        Everything is checked before anything is written, so an error leaves parameters, state and step number as they
        were. An interrupt (Ctrl-C) that comes before the writing does too; one that comes during it is raised after the
        step is complete, the step number with it. Two threads that call `step` on one optimizer take turns.

        Parameters
        ----------
        grads
            Gradients in the structure of the parameters: same shapes, same dtype. None skips a parameter wholly: no state,
            no decay, no step count. Only read, unless `zero_grads`.
        grad_scale : float, default 1
            The gradients are multiplied by it, > 0, on the way in: 1 / loss_scale, or 1 / batches summed.
        clip_norm : float, optional
            Scale the gradients by min(1, clip_norm / (‖grad_scale · g‖₂ + 1e-6)), the norm over all of them, as
            ``torch.nn.utils.clip_grad_norm_`` does. > 0. Costs one more read of the gradients.
        zero_grads : bool, default False
            Set the gradients to zero in the same pass; also when the step is skipped.

        Returns
        -------
        Report
            ``step``, ``lr``, ``grad_norm`` and ``skipped``.

        Examples
        --------
        >>> import fastlr
        >>> p = np.ones(2, np.float32)
        >>> fastlr.SGD(p, lr=0.5).step(np.float32([3, 4]), clip_norm=1.0)
        Report(step=1, lr=0.5, grad_norm=5.0, skipped=False)
        >>> p
        array([0.70000005, 0.6000001 ], dtype=float32)
        """
        clip = -1.0 if clip_norm is None else positive("clip_norm", clip_norm)
        if grad_scale is not _ONE:
            grad_scale = positive("grad_scale", grad_scale)
        if zero_grads is not False:
            zero_grads = flag("zero_grads", zero_grads)
        with self._lock:
            if self._changed[0]:
                self._refresh()
            for k, lr, scale in self._scheduled:
                step = self._plan.step_count
                self._plan.set_lr(k, scale * nonnegative(f"lr({step})", lr(step)))
            entries = self._structure.take(grads)
            return self._plan.step(entries, grad_scale, self._maximize, clip, zero_grads, self._nonfinite)

    @property
    def step_count(self) -> int:
        return self._plan.step_count

    @property
    def nbytes(self) -> int:
        """Bytes of state."""
        return sum(a.nbytes for arrays in self._entries.values() for a in arrays)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.groups))}, step_count={self.step_count})"

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything but the parameters, as plain numbers, strings and copies of arrays.

        A learning rate that is a function is saved as None; the optimizer that loads it must have a function too.
        """
        with self._lock:
            return {
                "format": 1,
                "rule": self.rule,
                "step": self._plan.step_count,
                "steps": self._plan.steps_made,
                "groups": [{n: None if callable(x) else x for n, x in group} for group in self.groups],
                "state": {
                    key: {n: a.copy() for n, a in self._structure.named(arrays).items()}
                    for key, arrays in self._entries.items()
                },
            }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` returned, wholly or, with an error, not at all.

        Nothing is converted: rule, groups, names, shapes and dtypes must be those of this optimizer.
        """
        with self._lock:
            _expect("state_dict", set(saved), {"format", "rule", "step", "steps", "groups", "state"})
            _expect("state_dict['format']", saved["format"], 1)
            _expect("state_dict['rule']", saved["rule"], self.rule)
            _expect("state_dict['groups']: count", len(saved["groups"]), len(self.groups))
            _expect("state_dict['steps']: count", len(saved["steps"]), len(self._structure.arrays))
            steps = [_count(f"state_dict['steps'][{k}]", t) for k, t in enumerate(saved["steps"])]
            step = _count("state_dict['step']", saved["step"])
            updates = []
            for k, (group, own) in enumerate(zip(self.groups, saved["groups"], strict=True)):
                _expect(f"state_dict['groups'][{k}]", set(own), set(self._checks))
                if callable(group.lr) != (own["lr"] is None):
                    raise ValueError(
                        f"state_dict['groups'][{k}]['lr'] was {'a function' if own['lr'] is None else own['lr']} when it was "
                        f"saved, and this optimizer's is {group.lr!r}; build the optimizer with the same kind"
                    )
                checked = self._group(f"state_dict['groups'][{k}].", {**own, "lr": group.lr if own["lr"] is None else own["lr"]})
                self.kernel(checked)
                updates.append((vars(group), dict(checked)))
            _expect("state_dict['state']", set(saved["state"]), set(self.states))
            arrays = {key: self._collect(key, saved["state"][key]) for key in self.states}
            self._plan.load(arrays, step, steps, updates)
            self._changed[0] = True

    def _collect(self, key: str, saved: Mapping[str, Any]) -> list[Array]:
        """New arrays, one an entry, from saved ones by name."""
        entries = [np.empty_like(a) for a in self._structure.arrays]
        places = self._structure.named(entries)
        _expect(f"state_dict['state'][{key!r}]", set(saved), set(places))
        for name, place in places.items():
            label = f"state_dict['state'][{key!r}][{name!r}]"
            array = np.asarray(saved[name])
            _expect(f"{label}: dtype", array.dtype, place.dtype)
            _expect(f"{label}: shape", array.shape, place.shape)
            place[...] = array
        return entries


def _is_groups(params: Any) -> bool:
    return isinstance(params, list | tuple) and any(isinstance(x, Mapping) and "params" in x for x in params)


def _expect(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise ValueError(f"{what} must be {wanted!r}, got {found!r}")


def _count(what: str, x: object) -> int:
    if isinstance(x, bool) or not isinstance(x, int | np.integer) or x < 0:
        raise ValueError(f"{what} must be an integer >= 0, got {x!r}")
    return int(x)
