"""`Optimizer`, the one abstract base: groups, state, step, state_dict.

From `opt.step(grads)` to the loop: `Stepper.step` in _core.pyx, which asks `_ready` here, then `Plan.step`, then
kernels/sweep.h with the rule inlined.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, TypedDict, cast

import numpy as np

from fastlr import _core, checkpoint
from fastlr.buffers import COUNTS, Array, allocate
from fastlr.groups import Group, Piece, apart, are_groups, explicit, matched
from fastlr.hyper import Check, Scheduled, choice, flag, is_scheduled, nonnegative, positive, rate
from fastlr.precision import STATE_DTYPES, Packed, Precision, entries_of, to_bfloat16
from fastlr.storage import Saved
from fastlr.structure import Layout, Structure, structure_of

Rate = float | Callable[[int], float]


class Options(TypedDict, total=False):
    """What every optimizer takes beside its rule's hyper-parameters; see `Optimizer`."""

    groups: Sequence[Mapping[str, Any]] | None
    maximize: bool
    nonfinite: str
    state_dtype: str
    dtype: str | None
    master: str | None
    rounding: str
    seed: int
    ema: float | None
    copy_to: Any
    denormals: str


def given(arguments: dict[str, Any]) -> dict[str, Any]:
    """What a constructor passes on, all of it: its `locals()`, with the options among the others."""
    own = {name: x for name, x in arguments.items() if name not in ("self", "__class__", "options")}
    return {**own, **arguments["options"]}


Variant = tuple[str, tuple[str, ...]]
State = dict[str, list[Array]]
Derived = Callable[[Sequence[Any], float], Sequence[Any]]


def cautious(rule: str, groups: Sequence[Group]) -> str:
    """The rule, or that with its direction masked where the groups say so."""
    chosen = {group.cautious for group in groups if "cautious" in vars(group)}
    if len(chosen) > 1:
        raise ValueError("cautious must be the same in all groups, got both; use an optimizer for each")
    return f"{rule}_cautious" if chosen == {True} else rule


NONFINITE = {"propagate": _core.PROPAGATE, "skip": _core.SKIP, "raise": _core.RAISE}


class Optimizer(_core.Stepper, Saved, ABC):
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
    state_dtype : {"float32", "bfloat16", "int8"}, default "float32"
        How state is stored; arithmetic is float32 all the same, and a step uses its new state before that is rounded.
        8 bits are in blocks of 256 with a scale, see `fastlr.precision.Packed`: of a state that is never negative,
        such as v, none becomes 0. States that are sums, means of parameters or subtracted stay float32: those with a †
        in docs/rules.md, as ``opt.nbytes`` shows and ``python -m bench.kept`` has reasons for.
    dtype : {"bfloat16"}, optional
        Says that arrays of uint16, which is how NumPy holds them, are bfloat16: parameters or gradients.
    master : {"float32", "split"}, optional
        For bfloat16 or float16 parameters: float32 ones beside them, of which they are rounded copies; or for bfloat16
        the lower halves of float32 ones, whose upper halves the parameters are: 2 bytes rather than 4.
    rounding : {"nearest", "stochastic", "kahan"}, default "nearest"
        How new bfloat16 or float16 parameters are rounded: stochastically they are right on average, by a generator of
        `seed`, step and place; with Kahan's compensation what was lost is kept beside, and added at the next step.
    seed : int, default 0
        Of stochastic rounding.
    ema : float, optional
        Keep a running mean of the parameters, ``opt.ema``, in float32 or float64 like the arithmetic, in the pass of
        the step: mean ← β mean + (1−β) p with this β in [0, 1), and p as `copy_to` has it. It begins as the parameters
        are now.
    copy_to : optional
        Arrays in the structure and shapes of the parameters, all float32, all float16 or all bfloat16 (of float64
        parameters also float64), to which each step also writes the new parameters: as they come out of the step,
        rounded once to the copy's dtype. So beside bfloat16 or float16 parameters, which are rounded to their own,
        a float32 copy is the more precise, and with ``master="float32"`` it is the master. The copies begin as the
        parameters are now; where a step leaves a parameter out, or is skipped, they stay as they are.
    denormals : {"keep", "flush"}, default "keep"
        "flush" lets numbers below 1.2e-38 count as 0 during the step (FTZ and DAZ), in this call alone: state that
        fades away would otherwise slow some processors down by 10 and more.

    Attributes
    ----------
    groups : tuple of Group
        Hyper-parameters, which may be set between steps: ``opt.groups[0].lr = 1e-4``. Each that is a number may be a
        schedule (`fastlr.schedules`), whose value at the number of the update is used. Every group has ``lr``,
        ``lr_scale`` (a factor on it, default 1) and ``weight_decay``.
    state : mapping of str to arrays
        Each state in the structure of the parameters, by the letter that it has in the formula.
    ema : arrays or None
        The running mean of the parameters, in their structure.
    step_count : int
        Updates made.
    """

    rule: str
    """The kernel, in kernels/rules/."""
    states: tuple[str, ...]
    """Its state buffers, in the kernel's order."""
    optional_states: ClassVar[tuple[str, ...]] = ()
    """Those that only some hyper-parameters need; see `variant`."""
    hypers: ClassVar[dict[str, Check]]
    """The rule's own hyper-parameters and what they may be."""
    starting: ClassVar[tuple[str, ...]] = ()
    """Those of them that only say how state starts."""
    decoupled: ClassVar[bool | str] = False
    """Whether weight decay acts on parameters directly, not through the gradient; or the hyper-parameter that says."""
    per_tensor: ClassVar[bool] = False
    """Whether each tensor is treated by itself, those in a FlatBuffer too. A kernel's SCOPE may say so as well."""
    shared: ClassVar[tuple[str, ...]] = ()
    """Hyper-parameters that all groups must agree on, since the kernel sums over the whole model."""
    by_rows: ClassVar[bool] = False
    """Whether the rule makes sense for some rows of a table alone; see `step_rows`."""
    per_row: ClassVar[Mapping[str, str]] = {}
    """States with one value for each row of a table: "number", of the parameters' dtype, or "count", an int64."""
    signs: ClassVar[tuple[str, ...]] = ()
    """States of which only the sign counts: bfloat16 has that, 8 bits of a block do not."""
    narrows: ClassVar[bool] = True
    """Whether parameters, gradients and state may be stored in fewer bits than float32."""
    tunable: ClassVar[bool] = True
    """Whether its steps may be scaled after it, by `mechanize`: it keeps no other point than p, and finds no rate."""
    informed: ClassVar[str | None] = None
    """The kernel of a step that is given an input beside the gradients."""

    def __init__(
        self,
        params: Any,
        *,
        groups: Sequence[Mapping[str, Any]] | None = None,
        maximize: bool = False,
        nonfinite: str = "propagate",
        state_dtype: str = "float32",
        dtype: str | None = None,
        master: str | None = None,
        rounding: str = "nearest",
        seed: int = 0,
        ema: float | None = None,
        copy_to: Any = None,
        denormals: str = "keep",
        **hyper: Any,
    ) -> None:
        self._precision = Precision.of(state_dtype, dtype, master, rounding, seed, ema, denormals)
        words = self._precision.words
        self._checks = self.checks()
        self._maximize = flag("maximize", maximize)
        self._nonfinite = NONFINITE[choice(*NONFINITE)("nonfinite", nonfinite)]
        self._changed = [True]
        self._limited = False
        self._sums: list[Array] | None = None
        self._found: list[bool] = []
        self._called: list[tuple[int, Any, float]] = []
        self._computed: list[int] = []

        defaults = self._group("", {"lr_scale": 1.0, **hyper})

        def make(label: str, own: Mapping[str, Any]) -> Group:
            return self._group(label, {**vars(defaults), **own})

        pieces: list[Piece]
        if are_groups(params):
            if groups is not None:
                raise ValueError("groups must be None where params is a list of groups; give one of the two")
            self._structure, made, pieces = explicit(params, make, words)
        else:
            self._structure = structure_of(params, words=words)
            if groups:
                made, pieces = matched(groups, self._structure, make)
            else:
                made, pieces = [defaults], [Piece(k, 0, a.size, 0) for k, a in enumerate(self._structure.arrays)]
        self.groups = tuple(made)
        arrays = self._structure.arrays
        if not arrays:
            raise ValueError("params must hold at least one array, got none")
        held = arrays[0].dtype
        for name, array in zip(self._structure.names, arrays, strict=True):
            if array.dtype != held:
                raise TypeError(
                    f"params{name}: expected {held} to match the first, got {array.dtype}; "
                    "use an optimizer for each dtype"
                )
        self._precision.check(held, type(self), copies=copy_to is not None)
        self.rule, self.states = self.variant(self.groups)
        if self.per_tensor or _core.per_tensor(self.rule):
            pieces = apart(pieces, self._structure)

        self._layouts = self._lay_out(pieces)
        state = {key: self._allocate(key, pieces) for key in self.states}
        self.state: Mapping[str, Any] = MappingProxyType({k: self._layouts[k].build(s) for k, s in state.items()})
        self._entries, self._pieces = state, pieces
        self._input = self.derived(self._structure, state, pieces, self.groups)
        self._beside = self._precision.beside(self._structure, entries_of(self._structure, copy_to, words))
        self.ema = self._structure.build(self._beside["ema"]) if "ema" in self._beside else None
        self._plan = self.plan(self.rule, self._structure, state, pieces, len(self.groups), self._beside)
        self._precision.govern(self._plan)
        self._refresh()
        self._precision.begin(self._structure, self._beside)

    # ---- what a subclass says ---------------------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def kernel(group: Group) -> tuple[float, ...]:
        """The rule's hyper-parameters, in the order of the kernel's <rule>_hyper. May refuse a combination."""

    @classmethod
    def variant(cls, groups: Sequence[Group]) -> Variant:
        """Rule and states, where they depend on hyper-parameters."""
        return cautious(cls.rule, groups), cls.states

    @staticmethod
    def initial(key: str, group: Group) -> float:
        """What a state holds before the first step."""
        return 0.0

    @staticmethod
    def layout(key: str, structure: Structure) -> Structure:
        """The structure of a state: the parameters' own, or a `shaped` one where the rule keeps something else."""
        return structure

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
        """What makes the steps."""
        kind = structure.arrays[0].dtype.char
        arrays, names = structure.arrays, structure.names
        return _core.Plan(rule, kind, arrays, names, state, pieces, groups, cls.informed, beside=beside)

    @classmethod
    def derived(
        cls,
        structure: Structure,
        state: State,
        pieces: Sequence[tuple[int, int, int, int]],
        groups: Sequence[Group],
    ) -> Derived | None:
        """What makes the rule's input, of the gradients and the factor on them, where it is made of these."""
        return None

    @classmethod
    def checks(cls) -> dict[str, Check]:
        return {"lr": rate, "lr_scale": nonnegative, "weight_decay": nonnegative, **cls.hypers}

    @classmethod
    def decay(cls, group: Group) -> tuple[float, float]:
        """Weight decay as (coupled, decoupled)."""
        directly = getattr(group, cls.decoupled) if isinstance(cls.decoupled, str) else cls.decoupled
        return (0.0, group.weight_decay) if directly else (group.weight_decay, 0.0)

    # ---- construction -----------------------------------------------------------------------------------------------

    def _group(self, label: str, values: Mapping[str, Any]) -> Group:
        for name in values:
            if name not in self._checks:
                raise TypeError(f"{label}{name}: unknown hyper-parameter; there are {', '.join(self._checks)}")
        for name in self.starting:
            if is_scheduled(values.get(name)):
                raise TypeError(f"{label}{name} must be a number: it is used once, before the first step")
        group = Group(label, self._checks, values, self._changed)
        group.check()
        return group

    def _lay_out(self, pieces: list[Piece]) -> dict[str, Layout]:
        """How each state is kept."""
        self._formats = self._precision.formats(type(self), self.rule, self.states)
        squares, _ = _core.state_bits(self.rule)
        return {
            key: Packed(self._structure, pieces, bool(squares >> j & 1))
            if self._formats[key] == "int8"
            else self.layout(key, self._structure)
            for j, key in enumerate(self.states)
        }

    def _allocate(self, key: str, pieces: list[Piece]) -> list[Array]:
        """One allocation for all entries, and a view of it for each."""
        if isinstance(layout := self._layouts[key], Packed):
            if any(self.initial(key, group) for group in self.groups):
                layout.pack(self._structure.build(self._filled(key, pieces, np.dtype(np.float32))))
            return layout.arrays
        if layout is not self._structure:
            return layout.arrays
        dtype = self._structure.arrays[0].dtype
        if dtype.char != "d":
            dtype = STATE_DTYPES[self._formats[key]]
        return self._filled(key, pieces, dtype)

    def _filled(self, key: str, pieces: list[Piece], dtype: np.dtype[Any]) -> list[Array]:
        """A state as it is before the first step."""
        arrays: list[Array] = []
        start, extent = 0, self.per_row.get(key)
        shapes = [a.shape if extent is None else self._rows(k, a) for k, a in enumerate(self._structure.arrays)]
        sizes = [math.prod(shape) for shape in shapes]
        flat = allocate(sum(sizes), COUNTS if extent == "count" else dtype)
        for shape, size in zip(shapes, sizes, strict=True):
            arrays.append(flat[start : start + size].reshape(shape))
            start += size
        for entry, offset, size, group in pieces:
            if value := self.initial(key, self.groups[group]):
                run = arrays[entry].reshape(-1)[offset : offset + size]
                run[:] = to_bfloat16(value) if dtype.char == "H" else value
        return arrays

    def _rows(self, entry: int, table: Array) -> tuple[int]:
        if table.ndim != 2:
            raise ValueError(
                f"params{self._structure.names[entry]} must have 2 dimensions for {type(self).__name__}, "
                f"a table of rows, got shape {table.shape}"
            )
        return (table.shape[0],)

    def _refresh(self) -> None:
        """Checks the groups and hands them to the plan."""
        step = self._plan.step_count
        for group in self.groups:
            group.check(step)
        for name in self.shared:
            values = [getattr(group, name) for group in self.groups]
            if values.count(values[0]) != len(values):
                raise ValueError(
                    f"groups: {name} must be the same in all, which share one estimate, got {values}; "
                    "use an optimizer for each"
                )
        if (variant := self.variant(self.groups)) != (self.rule, self.states):
            raise ValueError(
                f"groups: these hyper-parameters need the state of rule {variant[0]!r}, "
                f"but the optimizer was built with that of {self.rule!r}; build a new one"
            )
        now = [group.at(step) for group in self.groups]
        kernels = [(*self.decay(group), self.kernel(group)) for group in now]
        self._called, self._computed, scheduled = [], [], []
        for k, (group, numbers, (l2, decay, rule)) in enumerate(zip(self.groups, now, kernels, strict=True)):
            scheduled += self._rate(k, group)
            slots = [l2, decay, *rule]
            for name, x in numbers:
                for part in x if isinstance(x, tuple) else (x,):
                    if not isinstance(part, Scheduled) or name in ("lr", "lr_scale"):
                        continue
                    own = [j for j, slot in enumerate(slots, start=1) if slot is part]
                    if part.used or not own:  # the kernel takes something computed from it
                        self._computed.append(k)
                    scheduled += [(k, j, part.curve, 1.0, *part.limits, part.check, part.label) for j in own]
            lr = 0.0 if callable(group.lr) or is_scheduled(group.lr_scale) else group.lr * group.lr_scale
            self._plan.set_group(k, lr, l2, decay, rule)
        self._plan.set_schedules(scheduled)
        self._changed[0] = False

    def _rate(self, k: int, group: Group) -> list[tuple[Any, ...]]:
        """How the plan gets a rate that is no number."""
        lr, factor, checked = group.lr, group.lr_scale, (0.0, sys.float_info.max, nonnegative, f"{group._label}lr")
        if is_scheduled(lr) and is_scheduled(factor):
            return [(k, 0, lr * factor, 1.0, *checked)]
        if is_scheduled(lr):
            return [(k, 0, lr, factor, *checked)]
        if callable(lr):
            if is_scheduled(factor):
                raise TypeError("lr_scale may be a schedule if lr is no Python function; make it schedules.custom(lr)")
            self._called.append((k, lr, factor))
        elif is_scheduled(factor):
            return [(k, 0, factor, lr, *checked)]
        return []

    # ---- use --------------------------------------------------------------------------------------------------------

    def _ready(
        self,
        grads: Any,
        inputs: Any,
        grad_scale: float,
        clip_norm: float | Sequence[float | None] | None,
        clip_value: float | None,
        zero_grads: bool,
    ) -> tuple[Any, ...]:
        """Checks what `step` was given and brings the plan up to date; returns the arguments of `Plan.step`."""
        if zero_grads is not False:
            zero_grads = flag("zero_grads", zero_grads)
        if clip_value is not None or isinstance(clip_norm, list | tuple) or self._limited:
            summands = self._summands if grads is _core.SUMMED and self._summands else 1
            self._limit(clip_norm, clip_value, positive("grad_scale", grad_scale) / summands)
        norm = None if isinstance(clip_norm, list | tuple) else cast("float | None", clip_norm)
        grad_scale, clip = self._ready_to_scale(grad_scale, norm)
        if grads is _core.SUMMED:
            entries: Sequence[Any] = self._summed()
            grad_scale, zero_grads = grad_scale / self._summands, True
        else:
            entries = self._structure.take(grads)
        if inputs is not None:
            inputs = self._structure.take(inputs, "hessian")
        inputs = self._input if inputs is None else inputs
        return entries, grad_scale, self._maximize, clip, zero_grads, self._nonfinite, inputs

    def _limit(self, clip_norm: Any, clip_value: Any, grad_scale: float) -> None:
        """Hands limits that not every step has to the plan."""
        most, norms = 0.0, None
        if clip_value is not None:
            if clip_norm is not None:
                raise ValueError("clip_norm and clip_value must not both be given; clip by one of them")
            if not self.narrows:
                raise TypeError(f"clip_value must be None for {type(self).__name__}, got {clip_value!r}; use clip_norm")
            most = positive("clip_value", clip_value) / grad_scale
            bits, name = (1022, "float64") if self._structure.arrays[0].dtype.char == "d" else (126, "float32")
            if not 2.0**-bits <= most < 2.0 ** (bits + 1):
                raise ValueError(f"clip_value / grad_scale must be a normal {name}, got {most}")
        if isinstance(clip_norm, list | tuple):
            if not self.narrows:
                raise TypeError(f"clip_norm must be one number for {type(self).__name__}, got {clip_norm!r}")
            if len(clip_norm) != len(self.groups):
                raise ValueError(
                    f"clip_norm must have {len(self.groups)} entries like the groups, got {len(clip_norm)}"
                )
            norms = [-1.0 if x is None else positive(f"clip_norm[{k}]", x) for k, x in enumerate(clip_norm)]
        self._limited = clip_value is not None or norms is not None
        self._plan.set_limits(most, norms)

    def accumulate(self, grads: Any) -> None:
        """Adds gradients to sums, for a step of several batches: `step()` without gradients takes their mean.

        Parameters
        ----------
        grads
            As in `step`; the sums are float32, or for float64 parameters float64. None adds nothing.

        See Also
        --------
        discard : Drops the sums.

        Examples
        --------
        >>> import fastlr, numpy as np
        >>> p = np.zeros(2, np.float32)
        >>> opt = fastlr.SGD(p, lr=1.0)
        >>> opt.accumulate(np.float32([1, 2]))
        >>> opt.accumulate(np.float32([3, 2]))
        >>> opt.step().step, p
        (1, array([-2., -2.], dtype=float32))
        """
        with self._lock:
            entries = self._structure.take(grads)
            if self._sums is None:
                wide = np.dtype(np.float64 if self._structure.arrays[0].dtype.char == "d" else np.float32)
                self._sums = [allocate(a.size, wide).reshape(a.shape) for a in self._structure.arrays]
                self._found = [False] * len(self._sums)
            if self._summands == 0:
                self._found = [False] * len(self._sums)
            self._plan.accumulate(self._sums, entries)
            self._found = [had or x is not None for had, x in zip(self._found, entries, strict=True)]
            self._summands += 1

    def discard(self) -> None:
        """Drops the sums of `accumulate`: of batches that are to be forgotten, or that made `step` raise.

        Examples
        --------
        >>> import fastlr, numpy as np
        >>> p = np.zeros(2, np.float32)
        >>> opt = fastlr.SGD(p, lr=1.0, nonfinite="raise")
        >>> opt.accumulate(np.float32([np.inf, 1]))
        >>> opt.discard()
        >>> opt.accumulate(np.float32([1, 2]))
        >>> opt.step().step, p
        (1, array([-1., -2.], dtype=float32))
        """
        with self._lock:
            for total in self._sums or ():
                total.fill(0)
            self._summands = 0

    def _summed(self) -> list[Array | None]:
        """The sums of `accumulate`, an array an entry."""
        if self._sums is None or self._summands == 0:
            raise TypeError("grads must be given: accumulate() was not called since the last step")
        return [total if had else None for total, had in zip(self._sums, self._found, strict=True)]

    def _ready_rows(self, rows: Any, grads: Any, grad_scale: float, clip_norm: float | None) -> tuple[Any, ...]:
        """The same for `step_rows` and `Plan.step_rows`."""
        if not self.by_rows:
            raise TypeError(
                f"{type(self).__name__} has no step_rows: in the rows not given its state would stand still, or what "
                "it sums over a tensor would lack them; use SGD, Adagrad, RowAdagrad, SparseAdam, LazyAdam or FTRL, or "
                "step with the whole gradient"
            )
        grad_scale, clip = self._ready_to_scale(grad_scale, clip_norm)
        index, entries = self._structure.take(rows, "rows"), self._structure.take(grads)
        return index, entries, grad_scale, self._maximize, clip, self._nonfinite

    def _ready_to_scale(self, grad_scale: float, clip_norm: float | None) -> tuple[float, float]:
        """Checks the two, and hands the hyper-parameters of the coming step to the plan."""
        clip = -1.0 if clip_norm is None else positive("clip_norm", clip_norm)
        if grad_scale is not _core.ONE:
            grad_scale = positive("grad_scale", grad_scale)
        if self._changed[0]:
            self._refresh()
        for k in self._computed:
            group = self.groups[k].at(self._plan.step_count)
            lr = 0.0 if callable(group.lr) else float(group.lr) * float(group.lr_scale)
            self._plan.set_group(k, lr, *self.decay(group), self.kernel(group))
        for k, lr, scale in self._called:
            step = self._plan.step_count
            self._plan.set_lr(k, scale * nonnegative(f"lr({step})", lr(step)))
        return grad_scale, clip

    @property
    def step_count(self) -> int:
        return self._plan.step_count

    @property
    def nbytes(self) -> int:
        """Bytes of state, and of what ``master``, ``rounding`` and ``ema`` keep beside it."""
        kept = {key: arrays for key, arrays in self._beside.items() if key != "copy"}
        return sum(a.nbytes for arrays in (*self._entries.values(), *kept.values()) for a in arrays)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.groups))}, step_count={self.step_count})"

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything but the parameters, as plain numbers, strings and copies of arrays.

        What is a function or a schedule is saved as None; the optimizer that loads it must have one there too.
        """
        with self._lock:
            return checkpoint.save(self)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` returned, wholly or, with an error, not at all.

        Nothing is converted: rule, groups, names, shapes and dtypes must be those of this optimizer.
        """
        with self._lock:
            checkpoint.load(self, saved)
