"""`Step`, which makes a torch optimizer one of fastlr's: the step, and what a step needs of the state.

Parameters, groups, hooks and checkpoints stay torch's. What is added is a *binding*: a plan for the parameters of each
rule and dtype, over the tensors where they lie. It is looked over at every step, and made anew if anything has moved.
"""

from __future__ import annotations

import functools
import math
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch.optim import optimizer as torch_optimizer

from fastlr import _core
from fastlr.groups import Group, Piece
from fastlr.hyper import choice, flag, nonnegative, positive
from fastlr.optimizer import NONFINITE
from fastlr.optimizer import Optimizer as Rule
from fastlr.plain import overrides
from fastlr.precision import Precision
from fastlr.storage import expect
from fastlr.structure import structure_of
from fastlr.torch.bound import (
    CARRIED,
    STEP,
    Bound,
    Chosen,
    Member,
    Moved,
    Row,
    Work,
    defaults_of,
    grad_name,
    is_fixed,
    over_arrays,
    plain,
    table,
)
from fastlr.torch.flat import FlatParameter
from fastlr.torch.layout import HALVES, is_dense, laid_like, refuse, run_of, strides_of
from fastlr.torch.slots import Kept, check_state

IMPLEMENTATIONS: Mapping[str, Any] = {"foreach": None, "fused": None, "capturable": False, "differentiable": False}
# Of copies too.
OPTIONS = ("clip_norm", "nonfinite", "in_backward", "clip_value", "clip_previous", "_precision", "_differentiable")


class Step(torch.optim.Optimizer):
    """What all optimizers of `fastlr.torch` share. Comes before the torch class in the list of bases.

    Parameters
    ----------
    params, *args, **kwargs
        As of torch's optimizer. `foreach`, `fused` and `capturable` choose among torch's implementations and change
        nothing here, where all tensors are always updated by one fused call; every class takes them.
        `differentiable` is taken and changes nothing either: autograd does not see the step. Where something is there
        to be differentiated, gradients that have a graph, as ``backward(create_graph=True)`` makes them, the step of an
        optimizer with `differentiable=True` raises instead: what autograd would make of it were silently wrong.
    clip_norm : float, optional
        Scale the gradients by min(1, clip_norm / (‖g‖₂ + 1e-6)), the norm over all of them, as
        ``torch.nn.utils.clip_grad_norm_`` does, but within the step. The gradients stay as they are.
    nonfinite : {"propagate", "skip", "raise"}, default "propagate"
        What to do with a gradient that holds inf or NaN: see `fastlr.Optimizer`.
    in_backward : bool, default False
        Update each parameter within ``backward()``, as soon as its gradient is complete and while it is still in the
        cache, and drop the gradient: they are never all in memory. One ``backward()`` is one step, so gradients cannot
        be accumulated, and a global `clip_norm`, which asks for all gradients first, is refused. So is `GradScaler`,
        but not before ``scaler.step()``, which is when an optimizer hears of it: by then scaled gradients have been
        used. Call ``step()`` nevertheless, for hooks and schedulers.
    clip_value : float, optional
        With `in_backward`: gradients are clamped to [-clip_value, clip_value], complex ones in both parts, sparse ones
        after those of one row are added up.
    clip_previous : float, optional
        With `in_backward`: as `clip_norm`, by the norm of all gradients of the step before. The first is not clipped.
    state_dtype, master, rounding, seed, ema, denormals
        As of `fastlr.Optimizer`: how state and parameters are stored. State of bfloat16 and float16 parameters is
        float32 unless `state_dtype` says otherwise. In a model of several dtypes `master` and `rounding` are of those
        parameters that are bfloat16 or float16. What they keep is in ``opt.state`` and in checkpoints: "master", "low"
        (the lower halves), "lost" (to rounding) and "ema"; state of 8 bits is packed, in uint8. With
        ``master="float32"`` that is what counts: parameters that are set between two steps are overwritten by it.

    Attributes
    ----------
    report : Report or None
        Of the last step: ``grad_norm``, if something asked for it, and ``skipped``. None where no gradient was given.
    """

    row: ClassVar[Row]
    ignored: ClassVar[tuple[str, ...]] = ()
    """Arguments of `IMPLEMENTATIONS` that torch's optimizer does not take."""
    own: ClassVar[bool] = False
    """Whether the rule is one that torch does not have."""
    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: Any,
        *args: Any,
        clip_norm: float | None = None,
        nonfinite: str = "propagate",
        in_backward: bool = False,
        clip_value: float | None = None,
        clip_previous: float | None = None,
        state_dtype: str = "float32",
        master: str | None = None,
        rounding: str = "nearest",
        seed: int = 0,
        ema: float | None = None,
        denormals: str = "keep",
        **kwargs: Any,
    ) -> None:
        self._precision = Precision.of(state_dtype, None, master, rounding, seed, ema, denormals)
        self.clip_norm, self.nonfinite, self.in_backward = clip_norm, nonfinite, flag("in_backward", in_backward)
        self.clip_value, self.clip_previous = clip_value, clip_previous
        self._reset()
        self._differentiable = bool(kwargs.get("differentiable"))
        super().__init__(params, *args, **{name: x for name, x in kwargs.items() if name not in self.ignored})
        for p, slot in self.state.items():  # torch's Adagrad makes it here, in the parameter's dtype
            if p.dtype in HALVES or self._precision.state_dtype != "float32":
                for key in self.row.keys.values():
                    slot.pop(key, None)

    def _reset(self) -> None:
        self._single: dict[Any, Bound] = {}  # in backward: the plan of each parameter
        self._hooks: dict[Any, Any] = {}
        self._squares = 0.0  # of the norms of the gradients so far
        self._norm = 0.0  # of the step before
        self.report: _core.Report | None = None
        self._diagonal: dict[Any, Any] | None = None
        self._lock = threading.Lock()
        self._bound: list[Bound] = []
        self._census: _core.Census | None = None
        self._asked: tuple[Any, ...] = ()
        self._clip()
        self._chosen: list[Chosen] = []
        self._seen: list[list[Any]] = []  # values of each group, or none of those that may change in place
        self._fresh: list[tuple[dict[str, Any], str]] = []  # state that no step has been made with

    # ---- hyper-parameters -------------------------------------------------------------------------------------------

    def _clip(self) -> float:
        """The limit of the gradients' norm, or -1; checks what has been set."""
        asked = self.clip_norm, self.nonfinite, self.in_backward, self.clip_value, self.clip_previous
        if asked != self._asked:
            self._check_limits()
            self._asked = asked
        return -1.0 if self.clip_norm is None else self.clip_norm

    def _check_limits(self) -> None:
        choice(*NONFINITE)("nonfinite", self.nonfinite)
        if self.in_backward and self.clip_norm is not None:
            raise ValueError(
                "clip_norm must be None with in_backward: the norm of all gradients is known only when the last is "
                "there, and the others are used by then; give clip_value, or clip_previous: the norm of the last step"
            )
        for name in ("clip_value", "clip_previous"):
            if (limit := getattr(self, name)) is not None:
                positive(name, limit)
                if not self.in_backward:
                    raise ValueError(f"{name} must be None without in_backward, got {limit}; use clip_norm")
        if self.clip_norm is not None:
            positive("clip_norm", self.clip_norm)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        try:
            group = self.param_groups[-1]
            chosen = self._choose(len(self.param_groups) - 1, group)
            for k, p in enumerate(group["params"]):
                if not torch.nn.parameter.is_lazy(p):
                    refuse(self._name(len(self.param_groups) - 1, k), p)
                    self._kept(chosen, p.dtype)
        except BaseException:
            self.param_groups.pop()
            raise
        self._hook()

    def _choose(self, k: int, own: Mapping[str, Any]) -> Chosen:
        """A group's rule and checked hyper-parameters."""
        cls = self.row.choose(own)
        values = defaults_of(cls) | {name: plain(own[name]) for name in cls.checks() if name in own}
        group = Group(f"param_groups[{k}].", cls.checks(), values, [False])
        group.check()
        if callable(group.lr):
            raise TypeError(f"param_groups[{k}].lr must be a number; use torch's schedulers, or schedule.to_torch(opt)")
        cls.kernel(group)  # refuses what does not go together
        return Chosen(cls, group, *cls.variant([group]), cls.decay(group), flag("maximize", own.get("maximize", False)))

    def _follow_groups(self) -> None:
        """Hands what has been set since the last step to the plans."""
        if _core.same_values(self.param_groups, self._seen):
            return
        if len(self._seen) != len(self.param_groups):
            self._census = None
            return
        for k, group in enumerate(self.param_groups):
            if list(group.values()) == self._seen[k] or self._follow_rate(k, group):
                continue
            chosen = self._choose(k, group)
            if chosen.kind != self._chosen[k].kind or any(bound.inputs for bound in self._bound):
                self._census = None
                return
            self._chosen[k] = chosen
            self._see(k)
            for bound in self._bound:
                self._set_group(bound, k)

    def _follow_rate(self, k: int, group: Mapping[str, Any]) -> bool:
        """Hands on a rate, which schedulers set before every step; False if there is more to it."""
        seen, chosen = self._seen[k], self._chosen[k]
        changed = [name for (name, x), old in zip(group.items(), seen, strict=False) if x is not old]
        if changed != ["lr"] or len(seen) != len(group) or not isinstance(group["lr"], float):
            return False
        if any(bound.inputs for bound in self._bound):
            return False
        chosen.group.lr = nonnegative(f"param_groups[{k}].lr", group["lr"])
        self._seen[k] = list(group.values())
        for bound in self._bound:
            if chosen.kind == bound.kind[:-2]:
                bound.plan.set_lr(k, chosen.group.lr)
        return True

    def _see(self, k: int) -> None:
        group = self.param_groups[k]
        fixed = all(is_fixed(x) for name, x in group.items() if not name.startswith("param"))
        self._seen[k] = list(group.values()) if fixed else []
        self._differentiable = self._differentiable or bool(group.get("differentiable"))

    def _set_group(self, bound: Bound, k: int) -> None:
        chosen = self._chosen[k]
        if chosen.kind == bound.kind[:-2]:
            bound.plan.set_group(k, chosen.group.lr, *chosen.decay, chosen.cls.kernel(chosen.group))

    def _name(self, group: int, k: int) -> str:
        """What errors call a parameter."""
        own = self.param_groups[group]
        named = repr(own["param_names"][k]) if "param_names" in own else str(k)
        return f"params[{named}]" if len(self.param_groups) == 1 else f"param_groups[{group}]['params'][{named}]"

    # ---- binding ----------------------------------------------------------------------------------------------------

    def _bind(self) -> None:
        """Makes the plans, and the state of parameters that have a gradient for the first time."""
        self._keep()
        sparse = {m.p: bound.sparse for bound in self._bound for m in bound.members}
        self._census, self._bound = None, []
        self._look_at_groups()
        buckets: dict[tuple[Any, ...], list[Member]] = {}
        waiting = []
        for k, group in enumerate(self.param_groups):
            for j, p in enumerate(group["params"]):
                slot = self.state.get(p)
                if not slot and p.grad is None:
                    waiting.append(p)
                elif p.numel():
                    refuse(name := self._name(k, j), p)
                    rows = self._rows(self._chosen[k], p.grad, sparse.get(p, 0))
                    kind = (*self._chosen[k].kind, p.dtype, rows)
                    buckets.setdefault(kind, []).append(Member(name, k, p, self._slot(p, self._chosen[k])))
        self._check_shared()
        bound = [self._bind_bucket(kind, members) for kind, members in buckets.items()]
        self._census = _core.Census(self.param_groups, self.state, waiting, [one.tensors for one in bound])
        self._bound = bound
        self._census.holds(self.param_groups, self.state, None)  # which looks at the tensors

    def _rows(self, chosen: Chosen, g: Any, before: int = 0) -> int:
        """The sparse dimensions of a gradient whose rows alone are moved, of None as before; 0 for a dense step."""
        momentum: float = getattr(chosen.group, "momentum", 0.0)
        if momentum and not self.own:  # in torch too it goes on in rows without a gradient
            return 0
        if g is None:
            return before
        return int(g.sparse_dim()) if g.layout is torch.sparse_coo else 0

    def _kept(self, chosen: Chosen, dtype: Any) -> Kept:
        return Kept.of(chosen.cls, chosen.rule, chosen.states, self._precision, dtype)

    @property
    def _numbers(self) -> Mapping[str, tuple[int, Callable[[Mapping[str, Any]], float]]]:
        """Of the row; and the updates made, where rounding depends on them."""
        return self.row.numbers or (STEP if self._precision.rounding == "stochastic" else {})

    def _slot(self, p: Any, chosen: Chosen) -> dict[str, Any]:
        """Where the state of a parameter is kept: not with torch, if there is none."""
        slot: dict[str, Any] = self.state[p] if chosen.states or self._numbers or self._precision.keeps else {}
        return slot

    def _firsts(self, members: Sequence[Member]) -> list[int]:
        """Where parameters start in the whole model, in elements."""
        starts, start = {}, 0
        for p in [p for group in self.param_groups for p in group["params"]]:
            starts[p] = start
            start += 0 if torch.nn.parameter.is_lazy(p) else p.numel()
        return [starts[m.p] for m in members]

    def _look_at_groups(self) -> None:
        self._chosen = [self._choose(k, group) for k, group in enumerate(self.param_groups)]
        self._seen = [[] for _ in self.param_groups]
        for k in range(len(self.param_groups)):
            self._see(k)

    def _bind_bucket(self, kind: tuple[Any, ...], members: list[Member]) -> Bound:
        cls, rule, states, maximize, dtype, sparse = kind
        row, kept = self.row, Kept.of(cls, rule, states, self._precision, dtype)
        beside = kept.precision.keeps
        shaped = overrides(cls, "derived") or overrides(cls, "layout") or sparse or bool(cls.per_row)
        arrays = [run_of(m.p) for m in members]
        if sparse:
            self._check_sparse(cls, members, sparse)
        elif cls.per_row and (dense := [m.name for m in members if m.p.grad is not None]):
            raise TypeError(
                f"{grad_name(dense[0])} must be sparse for {cls.__name__}, a rule for rows, got a dense one; "
                "use torch.nn.Embedding(sparse=True) or to_sparse(1), or another rule"
            )
        if shaped:
            for m in members:
                if not m.p.is_contiguous() or m.p.is_complex():
                    raise ValueError(
                        f"{m.name} must be real and contiguous for {cls.__name__}, which sees rows and columns, "
                        f"got {m.p.dtype} with strides {tuple(m.p.stride())}"
                    )
            arrays = [a.reshape(table(m.p, sparse)) for a, m in zip(arrays, members, strict=True)]
        structure = structure_of(arrays, words=True)
        structure.names = [m.name.removeprefix("params") for m in members]
        fresh = [not any(isinstance(m.slot.get(row.keys[key]), torch.Tensor) for key in states) for m in members]
        for m in members:
            for key, (_, first) in self._numbers.items():
                self._fill_number(m, key, first(self.param_groups[m.group]))
        found = {}
        for key in (*states, *beside):
            self._fill(kept, key, members)
            empty = cls.layout(key, structure).arrays
            own = sparse and key not in cls.per_row
            found[key] = [
                none
                if (x := m.slot.get(row.keys.get(key, key))) is None
                else run_of(x).reshape(a.shape if own else tuple(x.shape) if shaped else -1)
                for m, a, none in zip(members, arrays, empty, strict=True)
            ]
        pieces = [Piece(k, 0, a.size, m.group) for k, (a, m) in enumerate(zip(arrays, members, strict=True))]
        groups = [chosen.group for chosen in self._chosen]
        state = {key: found[key] for key in states}
        plan = cls.plan(rule, structure, state, pieces, len(groups), {key: found[key] for key in beside})
        kept.precision.govern(plan, self._firsts(members) if kept.precision.rounding == "stochastic" else None)
        numbers = tuple((key, source) for key, (source, _) in self._numbers.items())
        tensors = _core.Tensors(
            torch.Tensor.__dlpack_c_exchange_api__,
            [m.p for m in members],
            [m.slot for m in members],
            tuple(row.keys.get(key, key) for key in found),
            numbers,
            functools.partial(self._conform, cls, members),
        )
        plan.attach(tensors)
        if not self._numbers:  # all that torch knows of the past is whether there is state
            plan.set_steps(0, [0 if new else 1 for new in fresh], [])
        derived = cls.derived(structure, state, pieces, groups)
        bound = Bound(kind, plan, tensors, maximize, derived and over_arrays(derived), members, sparse)
        self._give_back(bound)
        for k in range(len(groups)):
            self._set_group(bound, k)
        return bound

    def _check_sparse(self, cls: type[Rule], members: Sequence[Member], sparse: int) -> None:
        for m in members:
            name = grad_name(m.name)
            if m.p.dtype in HALVES or not self._precision.plain:
                raise TypeError(
                    f"{name} must be dense for parameters or state in fewer bits than float32, and with ema, got a "
                    "sparse one; give its table an optimizer of its own, in float32"
                )
            if not cls.by_rows:
                raise TypeError(f"{name} must be dense for {type(self).__name__}, got a sparse one; use to_dense()")
            if cls.per_row and sparse != 1:
                raise TypeError(
                    f"{name} must be rows of a table for {type(self).__name__}, which keeps numbers for each, "
                    f"got {sparse} sparse dimensions; use coalesce().to_dense().to_sparse(1)"
                )
            self._check_decay(m)

    def _check_decay(self, m: Member) -> None:
        decay = getattr(self._chosen[m.group].group, "weight_decay", 0.0)
        if decay and not self.own:
            raise ValueError(
                f"weight_decay must be 0 with sparse gradients, got {decay}: it would move rows that have none"
            )

    def _check_shared(self) -> None:
        for name in self._chosen[0].cls.shared:
            values = [getattr(chosen.group, name) for chosen in self._chosen]
            if values.count(values[0]) != len(values):
                raise ValueError(
                    f"param_groups: {name} must be the same in all, which share one estimate, got {values}"
                )

    # ---- numbers that a rule carries, where torch has no place for them ---------------------------------------------

    def _carried(self, bound: Bound) -> tuple[int, str]:
        """How many are kept in "numbers", beside the state of a tensor or in a group, and by what."""
        if any(source == CARRIED for source, _ in self._numbers.values()):
            return 0, ""
        return _core.carried(bound.kind[1])

    def _keep(self) -> None:
        """Puts them where `state_dict` finds them."""
        for bound in self._bound:
            count, keeper = self._carried(bound)
            rows = bound.plan.numbers
            if count and keeper == "tensor":
                for m, row in zip(bound.members, rows, strict=True):
                    m.slot["numbers"] = torch.tensor(row, dtype=torch.float64)
            elif count:
                for k, group in enumerate(self.param_groups):
                    group["numbers"] = rows[k if keeper == "group" else 0]

    def _give_back(self, bound: Bound) -> None:
        """Takes them from there."""
        count, keeper = self._carried(bound)
        if count:
            places = [m.slot for m in bound.members] if keeper == "tensor" else self.param_groups
            rows = [list(map(float, place.get("numbers", [0.0] * count))) for place in places]
            rows = rows[: len(bound.plan.numbers)]
            bound.plan.set_steps(bound.plan.step_count, bound.plan.steps_made, rows)

    # ---- state ------------------------------------------------------------------------------------------------------

    def _fill(self, kept: Kept, key: str, members: Sequence[Member]) -> None:
        """Checks a state of some parameters, and makes it where there is none."""
        torch_key, missing = self.row.keys.get(key, key), []
        for m in members:
            x = m.slot.get(torch_key)
            like = kept.like(key, m.name, m.p)
            if x is None and like is not None:
                missing.append((m, like))
            elif x is not None and like is not None:
                check_state(f"state[{torch_key!r}] of {m.name}", x, like, m.p)
                if strides_of(x) != strides_of(like) or not is_dense(x):
                    m.slot[torch_key] = laid_like(x, like)
        if not missing:
            return
        groups = [self._chosen[m.group].group for m, _ in missing]
        made = kept.make(key, [like for _, like in missing], [m.p for m, _ in missing], groups)
        for (m, _), x in zip(missing, made, strict=True):
            self._fresh.append((m.slot, torch_key))
            m.slot[torch_key] = x

    def _fill_number(self, m: Member, key: str, first: float) -> None:
        x = m.slot.get(key)
        if not isinstance(x, torch.Tensor) or x.dtype not in (torch.float32, torch.float64) or x.device.type != "cpu":
            value = first if x is None else float(x)
            dtype = torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
            if x is None:
                self._fresh.append((m.slot, key))
            m.slot[key] = torch.tensor(value, dtype=dtype)

    def _conform(self, cls: type[Rule], members: Sequence[Member], k: int, g: Any) -> Any:
        """A gradient in the place of one that is not as its parameter, or the error that says what is wrong with it."""
        m = members[k]
        name = grad_name(m.name)
        if g.layout is torch.sparse_coo and cls.by_rows:
            if self._rows(self._chosen[m.group], g):
                raise Moved
            self._check_decay(m)
            g = g.to_dense()
        if g.layout is not torch.strided:
            raise TypeError(f"{name} must be dense for {type(self).__name__}, got layout {g.layout}; use to_dense()")
        if g.device.type != "cpu" or g.dtype != m.p.dtype or g.shape != m.p.shape:
            raise TypeError(
                f"{name} must be as its parameter, {m.p.dtype} on {m.p.device} of shape {tuple(m.p.shape)}, "
                f"got {g.dtype} on {g.device} of shape {tuple(g.shape)}; was one of them replaced through .data?"
            )
        g = g.detach().resolve_conj().resolve_neg()
        return g if strides_of(g) == strides_of(m.p) else laid_like(g, m.p)

    def _undo_fresh(self) -> None:
        """Takes back the state that was made for a step which then was not."""
        for slot, key in self._fresh:
            slot.pop(key, None)
        self._fresh.clear()
        for p in [p for p, slot in self.state.items() if not slot]:
            del self.state[p]
        self._census = None

    # ---- the step ---------------------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates the parameters that have a gradient, in place, in one pass over memory.

        Everything is checked before anything is written: an error leaves parameters and state as they were.

        Parameters
        ----------
        closure : callable, optional
            Evaluates the model again and returns the loss.
        """
        args: tuple[Any, ...] = (self,) if closure is None else (self, closure)
        if not (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or torch.autograd._profiler_enabled()
        ):  # what torch wraps around a step costs more than a small one
            return self._step(closure)
        return _with_hooks(*args)

    step.hooked = True  # type: ignore[attr-defined]  # or torch wraps it, which `_with_hooks` does

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.in_backward:
            self._finish_backward()
        else:
            with self._lock:
                self._advance()
        return loss

    def _advance(self) -> None:
        self.report = None
        given = vars(self)  # GradScaler sets these two for the time of a step
        if float(given.get("found_inf", 0.0)) != 0:
            return
        scale = given.get("grad_scale")
        scale = 1.0 if scale is None else 1.0 / float(scale)
        clip = self._clip()
        try:
            census = self._census
            if census is None or not census.holds(self.param_groups, self.state, self._seen):
                self._catch_up()
            try:
                work = self._collect(self._bound)
            except Moved:
                self._bind()
                work = self._collect(self._bound)
            if len(work) == 1:  # nearly always; after a backward pass, when Python is in no cache, a call takes 1 us
                bound, rows, grads = work[0]
                self.report = bound.step(rows, grads, scale, clip, NONFINITE[self.nonfinite], None)
            elif work:
                self.report = self._run(work, scale, clip)
        except BaseException:
            self._undo_fresh()
            raise
        if self._fresh:
            if self.report is None or self.report.skipped:
                self._undo_fresh()
            self._fresh.clear()

    def _catch_up(self) -> None:
        """Hands what has been set to the plans, and makes them anew if anything has moved."""
        self._follow_groups()
        if self._census is None or not self._census.holds(self.param_groups, self.state, None):
            self._bind()

    def _collect(self, plans: Sequence[Bound]) -> list[Work]:
        """What those that were given a gradient have to do."""
        found: list[Work] = []
        for bound in plans:
            if self._differentiable:
                self._refuse_graphs(bound)
            beside, grads = self._sparse_grads(bound) if bound.sparse else (None, bound.tensors.collect())
            if self._diagonal is not None:
                beside = self._diagonal_of(bound)
            if grads:
                found.append((bound, beside, grads))
        return found

    def _refuse_graphs(self, bound: Bound) -> None:
        """Of `differentiable`, which is ignored where that makes no difference."""
        for m in bound.members:
            if m.p.grad is not None and m.p.grad.requires_grad:
                raise RuntimeError(
                    f"{grad_name(m.name)} must have no graph with differentiable=True: fastlr's kernels leave nothing "
                    "for autograd, which would take the new parameters to be independent of it; detach it, or use "
                    "torch.optim where the step is differentiated"
                )

    def _diagonal_of(self, bound: Bound) -> list[Any]:
        """What `Informed.step` was given, for the parameters of a plan."""
        assert self._diagonal is not None
        return [self._diagonal[m.p] for m in bound.members]

    def _sparse_grads(self, bound: Bound) -> tuple[list[Any], list[Any]]:
        """Rows and gradients of each, as arrays; no gradients where none has one."""
        rows: list[Any] = []
        grads: list[Any] = []
        for m in bound.members:
            g = m.p.grad
            if g is None:
                rows.append(None)
                grads.append(None)
                continue
            if g.layout is not torch.sparse_coo or g.sparse_dim() != bound.sparse:
                raise Moved
            if g.dtype != m.p.dtype or g.shape != m.p.shape:
                raise TypeError(
                    f"{grad_name(m.name)} must be as its parameter, {m.p.dtype} of shape {tuple(m.p.shape)}, got "
                    f"{g.dtype} of shape {tuple(g.shape)}"
                )
            index, *others = g._indices()
            for n, inner in zip(g.shape[1:], others, strict=False):
                index = index * n + inner
            rows.append(index.numpy())
            values = g._values().detach().contiguous()
            grads.append(values.reshape(len(index), table(m.p, bound.sparse)[1]).numpy())
        return rows, grads if any(g is not None for g in grads) else []

    def _run(self, work: Sequence[Work], scale: float, clip: float) -> _core.Report:
        """One step of all plans, or, with an error, of none: each asks the next before it writes."""
        nonfinite = NONFINITE[self.nonfinite]
        if clip >= 0 or nonfinite != _core.PROPAGATE:
            norms = [bound.norm(rows, grads) for bound, rows, grads in work]
            for norm, (bound, rows, grads) in zip(norms, work, strict=True):
                if not math.isfinite(norm) and nonfinite != _core.PROPAGATE:  # this one skips or raises for all
                    return bound.step(rows, grads, scale, -1.0, nonfinite, None)
            if clip >= 0:
                scale *= within(clip, scale * math.hypot(*norms))
        then: Callable[[], Any] | None = None
        for bound, rows, grads in reversed(work):
            then = functools.partial(bound.step, rows, grads, scale, -1.0, _core.PROPAGATE, then)
        assert then is not None
        report: _core.Report = then()
        return report

    # ---- averages ---------------------------------------------------------------------------------------------------

    def eval_params(self, module: torch.nn.Module | None = None) -> Any:
        """The average of the parameters, which is what to evaluate, save or deploy, in new tensors.

        That of `ema=`, or the rule's own: of Schedule-Free, of DoG and LDoG with `averaging`, of ASGD. Parameters and
        model stay as they are: there is no mode to switch, and none to forget.

        Parameters
        ----------
        module : Module, optional
            Whose parameters these are.

        Returns
        -------
        A list like the parameters in all groups; with a module a dict by name, for ``torch.func.functional_call``. What
        has made no step yet is a copy of the parameter.

        Examples
        --------
        >>> import torch, fastlr.torch
        >>> model = torch.nn.Linear(2, 1)
        >>> opt = fastlr.torch.ScheduleFreeAdamW(model.parameters(), lr=0.01)
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> opt.step()
        >>> y = torch.func.functional_call(model, opt.eval_params(model), torch.ones(1, 2))
        >>> saved = {**model.state_dict(), **opt.eval_params(model)}
        """
        with self._lock:
            found: dict[Any, Any] = {}
            for k, group in enumerate(self.param_groups):
                chosen = self._choose(k, group).group
                for j, p in enumerate(group["params"]):
                    refuse(self._name(k, j), p)
                    found[p] = laid_like(self._mean_of(chosen, p), p)
        if module is None:
            return list(found.values())
        for p in [p for p in found if isinstance(p, FlatParameter)]:
            found.update(p.split(found.pop(p)))
        return {name: found[p] for name, p in module.named_parameters() if p in found}

    def _mean_of(self, group: Group, p: Any) -> Any:
        slot, mean = self.state.get(p, {}), self.row.mean
        if self._precision.ema is None and mean is None:
            raise ValueError(
                f"eval_params needs an average of the parameters: make {type(self).__name__} with ema=, or take "
                "ScheduleFreeAdamW, ScheduleFreeSGD, ASGD, or DoG or LDoG with averaging="
            )
        if self._precision.ema is not None:
            return slot.get("ema", p.detach()).to(p.dtype)
        if mean is None or not slot or float(slot["step"]) == 0:
            return p.detach()
        return mean(group, p.detach(), slot).to(p.dtype)

    # ---- in backward ------------------------------------------------------------------------------------------------

    def _hook(self) -> None:
        """Has each parameter call when its gradient is complete."""
        if self.in_backward:
            me = weakref.ref(self)
            for group in self.param_groups:
                for p in group["params"]:
                    if p not in self._hooks:
                        self._hooks[p] = p.register_post_accumulate_grad_hook(functools.partial(_on_gradient, me))

    def _advance_one(self, p: Any) -> None:
        """The step of one parameter, whose gradient is dropped."""
        try:
            with self._lock:
                self._clip()
                self._follow_groups()
                if self._census is None and self._single:  # the groups ask for other plans
                    self._keep()
                    self._single.clear()
                if not self._single:
                    self._bind_each()
                bound = self._single.get(p)
                if bound is not None and bound.sparse != self._rows(self._chosen[bound.members[0].group], p.grad):
                    bound = None
                if bound is None or not bound.tensors.unchanged():
                    bound = self._bind_one(p)
                if self.clip_value is not None:
                    p.grad = clamped(p.grad, self.clip_value)
                ((_, rows, grads),) = self._collect([bound])
                scale = 1.0
                if self.clip_previous is not None:
                    self._squares += bound.norm(rows, grads) ** 2
                    if self._norm > 0:
                        scale = within(self.clip_previous, self._norm)
                self.report = bound.step(rows, grads, scale, -1.0, NONFINITE[self.nonfinite], None)
                if self.report.skipped:
                    self._undo_fresh()
                self._fresh.clear()
        except BaseException:
            self._undo_fresh()
            self._single.pop(p, None)
            raise
        finally:
            p.grad = None

    def _bind_each(self) -> None:
        """Makes all plans before the first gradient is dropped: later ones would lie where gradients were.

        And their memory could not be used again.
        """
        self._look_at_groups()
        self._check_shared()
        self._bound = []
        self._census = _core.Census(self.param_groups, self.state, [], [])
        for group in self.param_groups:
            for p in group["params"]:
                if p.requires_grad and p.numel() and not torch.nn.parameter.is_lazy(p):
                    self._bind_one(p)

    def _bind_one(self, p: Any) -> Bound:
        if (old := self._single.pop(p, None)) is not None:
            self._keep()
            self._bound = [bound for bound in self._bound if bound is not old]
            if old.plan.steps_made == [0]:
                self.state.pop(p, None)
        k, j = next(
            (k, j) for k, group in enumerate(self.param_groups) for j, q in enumerate(group["params"]) if q is p
        )
        refuse(name := self._name(k, j), p)
        chosen = self._chosen[k]
        if _core.carried(chosen.rule)[1] != "tensor":
            raise ValueError(
                f"in_backward must be False for {chosen.cls.__name__}, whose step depends on all gradients"
            )
        kind = (*chosen.kind, p.dtype, self._rows(chosen, p.grad))
        bound = self._bind_bucket(kind, [Member(name, k, p, self._slot(p, chosen))])
        bound.tensors.unchanged()
        self._single[p] = bound
        self._bound.append(bound)
        return bound

    def _finish_backward(self) -> None:
        if "grad_scale" in vars(self):
            raise ValueError("in_backward must be False with GradScaler: gradients are used before it can unscale them")
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.numel():
                    self._advance_one(p)
        if self.clip_previous is not None:
            self._norm, self._squares = math.sqrt(self._squares), 0.0

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        self._keep()
        saved: dict[str, Any] = super().state_dict()
        order = dict.fromkeys(p for group in self.param_groups for p in group["params"])
        idle = [k for k, p in enumerate(order) if p in self._single and self._single[p].plan.steps_made == [0]]
        saved["state"] = {k: slot for k, slot in saved["state"].items() if k not in idle}
        for slot in saved["state"].values() if self.row.whole else ():
            slot.update({key: int(slot[key]) for key in self.row.whole if key in slot})
        if not self._precision.plain:
            saved["storage"] = self._storage
        return saved

    @property
    def _storage(self) -> dict[str, Any]:
        """What must be the same in the optimizer that loads a checkpoint."""
        own = self._precision
        kinds = {"state_dtype": own.state_dtype, "master": own.master, "ema": own.ema is not None}
        return {**kinds, "rounding": own.rounding, "seed": own.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned, of this class or of torch's.

        State is copied, never converted: torch's own optimizers would cast it to the parameter's dtype. Where it does
        not fit its parameter the error says so, and nothing is changed.
        """
        handle = self.register_load_state_dict_pre_hook(_hold)  # the last to run
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()

    def __getstate__(self) -> dict[str, Any]:
        self._keep()
        return {**super().__getstate__(), **{name: getattr(self, name) for name in OPTIONS}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        slots = state["state"]
        held = any(isinstance(x, Held) for slot in slots.values() if isinstance(slot, dict) for x in slot.values())
        if held:
            where = {p: (k, j) for k, own in enumerate(self.param_groups) for j, p in enumerate(own["params"])}
            chosen = [
                self._choose(k, {**own, **new})
                for k, (own, new) in enumerate(zip(self.param_groups, state["param_groups"], strict=True))
            ]
            taken = type(slots)(slots.default_factory)
            for p, slot in slots.items():
                if isinstance(p, torch.Tensor):
                    k, j = where[p]
                    slot = self._taken(chosen[k], self._name(k, j), p, slot)
                taken[p] = slot
            state = {**state, "state": taken}
        hooks = vars(self).get("_hooks", {})
        super().__setstate__(state)
        self._reset()
        self._hooks = hooks
        self._hook()

    def _taken(self, chosen: Chosen, name: str, p: Any, slot: Mapping[str, Any]) -> dict[str, Any]:
        """The state of a parameter from a checkpoint: checked, and copied to the parameter's layout."""
        kept, taken = self._kept(chosen, p.dtype), {}
        letters = {key: letter for letter, key in self.row.keys.items()} | {key: key for key in kept.precision.keeps}
        for key, x in slot.items():
            if isinstance(x, Held):
                x = x.x.detach().cpu()
                x = x.to_dense() if x.layout is torch.sparse_coo else x  # momentum that torch has of sparse gradients
                if key in letters and (like := kept.like(letters[key], name, p)) is not None:
                    check_state(f"state[{key!r}] of {name}", x, like, p)
                x = laid_like(x, p) if x.shape == p.shape else x.clone()
            taken[key] = x
        return taken


def _on_gradient(me: Any, p: Any) -> None:
    if (optimizer := me()) is not None:
        optimizer._advance_one(p)


_with_hooks = torch.optim.Optimizer.profile_hook_step(Step._step)


class Held:
    """A tensor on its way through torch's `load_state_dict`, which casts what it knows to be one."""

    def __init__(self, x: Any) -> None:
        self.x = x


def _hold(optimizer: Any, saved: dict[str, Any]) -> dict[str, Any]:
    own = optimizer._storage
    expect("storage of the checkpoint", saved.get("storage", own), own)
    state = {
        k: {key: Held(x) if isinstance(x, torch.Tensor) else x for key, x in slot.items()}
        if isinstance(slot, dict)
        else slot
        for k, slot in saved["state"].items()
    }
    return {**saved, "state": state}


def clamped(g: Any, limit: float) -> Any:
    """A gradient within ± limit: of a sparse one the sum for each row, of a complex one both parts."""
    g = g.detach().coalesce() if g.layout is torch.sparse_coo else g.detach().resolve_conj()
    x = g.values() if g.layout is torch.sparse_coo else g
    (torch.view_as_real(x) if x.is_complex() else x).clamp_(-limit, limit)
    return g


def within(limit: float, norm: float) -> float:
    """What brings gradients of a norm to the limit, as torch's `clip_grad_norm_` does; NaN if the norm is."""
    return 1.0 if norm + 1e-6 <= limit else limit / (norm + 1e-6)
