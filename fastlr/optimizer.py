"""`Optimizer`, the one abstract base: groups, state, step, state_dict.

From `opt.step(grads)` to the loop: here, then `Plan.step` in _core.pyx, then kernels/sweep.h with the rule inlined.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, TypedDict

from fastlr import _core, checkpoint
from fastlr.buffers import Array, allocate
from fastlr.groups import Group, Piece, are_groups, explicit, matched
from fastlr.hyper import Check, choice, flag, nonnegative, positive, rate
from fastlr.structure import structure_of

Rate = float | Callable[[int], float]


class Options(TypedDict, total=False):
    """What every optimizer takes beside its rule's hyper-parameters; see `Optimizer`."""

    groups: Sequence[Mapping[str, Any]] | None
    maximize: bool
    nonfinite: str


Variant = tuple[str, tuple[str, ...]]

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
        What to do with a gradient that holds inf or NaN: use it, leave the step out, or raise FloatingPointError. The
        last two leave parameters, state and step number as they were, and cost one more read of the gradients.

    Attributes
    ----------
    groups : tuple of Group
        Hyper-parameters, which may be set between steps: ``opt.groups[0].lr = 1e-4``. Every group has ``lr``,
        ``lr_scale`` (a factor on it, default 1) and ``weight_decay``.
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

        def make(label: str, own: Mapping[str, Any]) -> Group:
            return self._group(label, {**vars(defaults), **own})

        pieces: list[Piece]
        if are_groups(params):
            if groups is not None:
                raise ValueError("groups must be None where params is a list of groups; give one of the two")
            self._structure, made, pieces = explicit(params, make)
        else:
            self._structure = structure_of(params)
            if groups:
                made, pieces = matched(groups, self._structure, make)
            else:
                made, pieces = [defaults], [Piece(k, 0, a.size, 0) for k, a in enumerate(self._structure.arrays)]
        self.groups = tuple(made)
        arrays = self._structure.arrays
        if not arrays:
            raise ValueError("params must hold at least one array, got none")
        dtype = arrays[0].dtype
        for name, array in zip(self._structure.names, arrays, strict=True):
            if array.dtype != dtype:
                raise TypeError(
                    f"params{name}: expected {dtype} to match the first, got {array.dtype}; "
                    "use an optimizer for each dtype"
                )
        self.rule, self.states = self.variant(self.groups)

        state = {key: self._allocate(key, pieces) for key in self.states}
        self.state: Mapping[str, Any] = MappingProxyType({k: self._structure.build(s) for k, s in state.items()})
        self._entries = state
        self._plan = _core.Plan(self.rule, dtype.char, arrays, self._structure.names, state, pieces, len(self.groups))
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

    def _allocate(self, key: str, pieces: list[Piece]) -> list[Array]:
        """One allocation for all entries, and a view of it for each."""
        arrays, start = [], 0
        flat = allocate(sum(a.size for a in self._structure.arrays), self._structure.arrays[0].dtype)
        for a in self._structure.arrays:
            arrays.append(flat[start : start + a.size].reshape(a.shape))
            start += a.size
        for entry, offset, size, group in pieces:
            if value := self.initial(key, self.groups[group]):
                arrays[entry].reshape(-1)[offset : offset + size] = value
        return arrays

    def _refresh(self) -> None:
        """Checks the groups and hands them to the plan."""
        for group in self.groups:
            group.check()
        if (variant := self.variant(self.groups)) != (self.rule, self.states):
            raise ValueError(
                f"groups: these hyper-parameters need the state of rule {variant[0]!r}, "
                f"but the optimizer was built with that of {self.rule!r}; build a new one"
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
            Gradients in the structure of the parameters: same shapes, same dtype. None skips a parameter wholly: no
            state, no decay, no step count. Only read, unless `zero_grads`.
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
        >>> import fastlr, numpy as np
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
            return checkpoint.save(self)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` returned, wholly or, with an error, not at all.

        Nothing is converted: rule, groups, names, shapes and dtypes must be those of this optimizer.
        """
        with self._lock:
            checkpoint.load(self, saved)
