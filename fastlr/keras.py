"""fastlr's rules as optimizers of Keras, on its torch and numpy backends, for variables on the CPU.

There is a class for each rule, with the name and the hyper-parameters of fastlr's own: `fastlr.keras.AdamW`, say. All
variables are updated where they lie, by one call a step. What `keras.optimizers.Optimizer` defines means here what it
means there; schedules may be Keras's or fastlr's. Importing this registers the classes, so that a saved model finds its
optimizer.

- ``weight_decay`` is Keras's: the parameter less the rate times it, also for rules that have it in the gradient
  elsewhere, but not for those with a decay of their own (LAMB, LARS, NovoGrad, ScheduleFree…).
- ``eps_mode`` is "keras" unless it is given, where a rule has it.
- ``clipnorm``, ``global_clipnorm`` and ``clipvalue`` are part of the step; norms are compared with 1e-6 added. The
  scale of a loss, sums of gradients and running means are Keras's code, in passes of their own.
- State is in Keras variables, which are saved with the model. A variable that has had no gradient has made no step.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fastlr import _core, functional
from fastlr.buffers import Array, as_array
from fastlr.custom import Custom
from fastlr.extras import need
from fastlr.groups import Group, Piece
from fastlr.optimizer import Optimizer
from fastlr.plain import overrides
from fastlr.schedules.adapters import keras_class
from fastlr.schedules.schedule import Schedule
from fastlr.structure import Structure, structure_of

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """One of the classes."""


keras = need("keras", "keras", "fastlr.keras")
BACKEND = keras.backend.backend()
if BACKEND not in ("numpy", "torch"):
    raise RuntimeError(
        f"fastlr.keras needs the torch or the numpy backend, whose variables can be updated in place, got {BACKEND!r}; "
        "set KERAS_BACKEND=torch before Keras is imported, or use keras.optimizers"
    )
torch = need("torch", "torch", "KERAS_BACKEND=torch") if BACKEND == "torch" else None
_Base: Any = keras.optimizers.Optimizer
KerasSchedule = keras_class()  # which registers it
_OWN = ("lr", "lr_scale", "weight_decay")  # what Keras has itself


# ---- a variable's memory --------------------------------------------------------------------------------------------


def _where(variable: Any) -> int:
    """What is another when a variable has been given other memory."""
    return variable._value.data_ptr() if torch else id(variable._value)


def _memory(variable: Any) -> Array:
    """The array itself, which is brought into C order and its type if some initializer has left it in another."""
    name, x = f"variable {variable.path!r}", variable._value
    if torch:
        if x.device.type == "cpu" and not x.is_contiguous():
            x.data = x.data.contiguous()
        return as_array(name, x)
    if not (isinstance(x, np.ndarray) and x.dtype == variable._dtype and x.flags.carray):
        variable._value = x = np.array(x, variable._dtype, order="C")
    return as_array(name, x)


def _gradient(g: Any, p: Any) -> Any:
    """As the kernel takes it: dense, and of its variable's type."""
    if torch:
        g = torch.as_tensor(g).detach()
        return (g.to_dense() if g.is_sparse else g).to(p._value.dtype).contiguous()
    return np.asarray(g, p._value.dtype, order="C")


def _constant(value: float) -> Any:
    return lambda shape, dtype: keras.ops.full(shape, value, dtype)


class _Bound:
    """Variables with their state, and the plan over their memory. Each is a group, but for rules that sum over one."""

    def __init__(self, rule: str, variables: list[Any], groups: int) -> None:
        self.rule, self.variables, self.groups = rule, variables, groups
        self.entry = {id(v): k for k, v in enumerate(variables)}
        self.state: dict[str, list[Any]] = {}
        self.made: Any = None  # steps, a variable each
        self.numbers: Any = None  # what the rule carries
        self.set: list[Any] = [None] * groups  # hyper-parameters that the plan has
        self._plan: _core.Plan | None = None  # over these, which `plan` makes:
        self.over: Structure
        self.arrays: dict[str, list[Array]]
        self.pieces: list[Piece]
        self._at: list[int] = []  # where they were

    def structure(self) -> Structure:
        structure = structure_of([_memory(v) for v in self.variables])
        structure.names = [f"[{v.path!r}]" for v in self.variables]
        return structure

    def plan(self, rule: type[Optimizer], step: int) -> _core.Plan:
        """Over the memory as it is now, with the numbers of the steps that the variables have made."""
        held = [*self.variables, *(v for some in self.state.values() for v in some)]
        if self._plan is None or [_where(v) for v in held] != self._at:
            self.over = self.structure()
            self.arrays = {key: [_memory(v) for v in some] for key, some in self.state.items()}
            own = self.groups == len(self.variables)
            self.pieces = [Piece(k, 0, a.size, k if own else 0) for k, a in enumerate(self.over.arrays)]
            self._plan = rule.plan(self.rule, self.over, self.arrays, self.pieces, self.groups)
            self._at, self.set = [_where(v) for v in held], [None] * self.groups
        numbers = [] if self.numbers is None else _memory(self.numbers).tolist()
        self._plan.set_steps(step, _memory(self.made).tolist(), numbers)
        return self._plan

    def keep(self, plan: _core.Plan) -> None:
        """What `plan` was told, after its step."""
        _memory(self.made)[...] = plan.steps_made
        if self.numbers is not None:
            _memory(self.numbers)[...] = plan.numbers


# ---- the optimizer --------------------------------------------------------------------------------------------------


class KerasOptimizer(_Base):  # type: ignore[misc]
    """What the classes share.

    Parameters
    ----------
    learning_rate : float, schedule or function
        A schedule of Keras's or of fastlr's, by the number of the update; or, as in Keras, a function of nothing.
    **given
        The rule's hyper-parameters, by fastlr's names: those that are numbers may be schedules of fastlr's. And what
        `keras.optimizers.Optimizer` takes: `weight_decay`, `clipnorm`, `use_ema`, …

    Attributes
    ----------
    hyper : Group
        The rule's hyper-parameters, which may be set between steps: ``optimizer.hyper.eps = 1e-6``.

    Examples
    --------
    >>> import fastlr.keras, keras, numpy as np
    >>> w = keras.Variable(np.ones(3, "float32"))
    >>> optimizer = fastlr.keras.Adam(learning_rate=0.1, global_clipnorm=1.0)
    >>> optimizer.apply([np.float32([1, -2, 0])], [w])
    >>> w.numpy().round(3)
    array([0.9, 1.1, 1. ], dtype=float32)
    """

    rule: ClassVar[type[Optimizer]]

    def __init__(self, learning_rate: Any = None, **given: Any) -> None:
        rule, defaults = self.rule, _defaults(self.rule)
        hyper = {name: given.pop(name) for name in [*given] if name in rule.hypers}
        if learning_rate is None:
            learning_rate = defaults["lr"]
        if isinstance(learning_rate, Schedule):
            learning_rate = learning_rate.to_keras()
        given.setdefault("weight_decay", defaults["weight_decay"] or None)
        super().__init__(learning_rate, **given)
        own = {name: x for name, x in defaults.items() if name not in _OWN}
        checks = {name: check for name, check in rule.checks().items() if name not in _OWN}
        self.hyper = Group("", checks, own | hyper, [False])
        self.hyper.check()
        self._bound: _Bound | None = None

    # ---- state ------------------------------------------------------------------------------------------------------

    def build(self, variables: Sequence[Any]) -> None:
        if self.built:
            return
        super().build(variables)
        ours = [v for v in variables if not self._overwrite_variable_with_gradient(v)]
        kinds = {v._dtype for v in ours}
        if not kinds <= {"float32"} and not kinds <= {"float64"}:
            raise TypeError(
                f"variables must be all float32 or all float64, got {', '.join(sorted(map(str, kinds)))}; "
                "keras.mixed_precision computes in fewer bits and keeps them float32"
            )
        group = self._group(0, 0.0, 0.0)
        rule, keys = self.rule.variant([group])
        carried, scope = _core.carried(rule)
        bound = _Bound(rule, ours, 1 if scope == "group" else len(ours))
        if ours:
            structure = bound.structure()
            for key in keys:
                shapes = [a.shape for a in self.rule.layout(key, structure).arrays]
                first = _constant(self.rule.initial(key, group))
                bound.state[key] = [
                    self.add_variable(shape, first, v._dtype, name=f"{v.path.replace('/', '_')}_{key}")
                    for shape, v in zip(shapes, ours, strict=True)
                ]
            bound.made = self.add_variable((len(ours),), "zeros", "int64", name="made")
            if carried:
                rows = {"model": 1, "group": 1}.get(scope, len(ours))
                bound.numbers = self.add_variable((rows, carried), "zeros", "float64", name="carried")
        self._bound = bound

    # ---- the step ---------------------------------------------------------------------------------------------------

    def _group(self, step: int, lr: float, weight_decay: float) -> Group:
        """All hyper-parameters, as numbers."""
        values = {**dict(self.hyper), "lr": lr, "lr_scale": 1.0, "weight_decay": weight_decay}
        group = Group("", self.rule.checks(), values, [False])
        group.check(step)
        return group.at(step)

    def _slots(self, group: Group) -> tuple[Any, ...]:
        """As `Plan.set_group` takes them."""
        own = overrides(self.rule, "decay")
        return group.lr, *(self.rule.decay(group) if own else (0.0, group.weight_decay)), self.rule.kernel(group)

    def _backend_update_step(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
    ) -> None:
        bound = self._bound
        assert bound is not None
        if keras.src.backend.in_stateless_scope():
            raise NotImplementedError(f"{self.name} updates variables in place and has no stateless_apply; use apply")
        step, lr = int(self.iterations), self._learning_rate
        exact = isinstance(lr, KerasSchedule)  # in double, then, not in Keras's float type
        rate = lr.schedule(int(self._iterations)) if exact else float(learning_rate)
        with_decay, without = (self._group(step, rate, x) for x in (self.weight_decay or 0.0, 0.0))
        rule, states = self.rule.variant([with_decay])
        if (rule, states) != (bound.rule, tuple(bound.state)):
            raise ValueError(
                f"hyper must need the states that the optimizer was built with, {', '.join(bound.state) or 'none'} of "
                f"{bound.rule!r}, got {', '.join(states) or 'none'} of {rule!r}; make a new one with these"
            )
        given: list[Any] = [None] * len(bound.variables)
        for g, v in zip(grads, trainable_variables, strict=True):
            given[bound.entry[id(v)]] = _gradient(g, v)
        plan = bound.plan(self.rule, step)
        slots = {True: self._slots(with_decay), False: self._slots(without)}
        for k, decays in enumerate(self._decays(bound)):
            if (own := slots[decays]) != bound.set[k]:
                plan.set_group(k, *own)
                bound.set[k] = own
        inputs = self.rule.derived(bound.over, bound.arrays, bound.pieces, [with_decay] * bound.groups)
        clip = self._clipping()
        norms = [self.clipnorm] * bound.groups if clip == "clipnorm" else None
        if self.rule.narrows:
            plan.set_limits(self.clipvalue if clip == "clipvalue" else 0.0, norms)
        most = self.global_clipnorm if clip == "global_clipnorm" else -1.0
        plan.step(given, 1.0, False, most, False, _core.PROPAGATE, inputs)
        bound.keep(plan)

    def _decays(self, bound: _Bound) -> list[bool]:
        """Which groups have weight decay."""
        decayed = [self._use_weight_decay(v) for v in bound.variables]
        if bound.groups != len(decayed) and not all(decayed) and self.weight_decay:
            without = ", ".join(repr(v.path) for v, some in zip(bound.variables, decayed, strict=True) if not some)
            raise ValueError(
                f"exclude_from_weight_decay must leave all variables to {type(self).__name__}, which sums over them as "
                f"one group, got {without} excluded; exclude none, or give weight_decay=None"
            )
        return decayed[: bound.groups]

    def _clipping(self) -> str | None:
        """Which of them is part of the step; the others are Keras's code."""
        bound = self._bound
        assert bound is not None
        if self.clipnorm and self.clipnorm > 0:
            return "clipnorm" if self.rule.narrows and bound.groups == len(bound.variables) else None
        if self.global_clipnorm and self.global_clipnorm > 0:
            return "global_clipnorm"
        if self.clipvalue and self.clipvalue > 0:
            narrow = self.rule.narrows and bound.variables[0]._dtype == "float32"
            return "clipvalue" if narrow and 2**-126 <= self.clipvalue < 2**127 else None
        return None

    if torch:  # which would trace it under jit_compile
        _backend_update_step = torch.compiler.disable(_backend_update_step)

    def _clip_gradients(self, grads: Sequence[Any]) -> Any:
        return grads if self._clipping() else super()._clip_gradients(grads)

    def _apply_weight_decay(self, variables: Sequence[Any]) -> None:
        """Nothing: it is part of the step."""

    # ---- configuration ----------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **{name: _written(x) for name, x in self.hyper}}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> KerasOptimizer:
        read = {name: _read(x) if name in cls.rule.hypers else x for name, x in config.items()}
        return super().from_config(read, custom_objects)  # type: ignore[no-any-return]


def _written(x: Any) -> Any:
    """A hyper-parameter for JSON."""
    if isinstance(x, Schedule):
        return x.to_dict()
    return [_written(part) for part in x] if isinstance(x, tuple | list) else x


def _read(x: Any) -> Any:
    if isinstance(x, Mapping):
        return Schedule.from_dict(x)
    return tuple(map(_read, x)) if isinstance(x, tuple | list) else x


# ---- a class for each rule ------------------------------------------------------------------------------------------


def _defaults(rule: type[Optimizer]) -> dict[str, Any]:
    given = inspect.signature(rule).parameters
    found = {name: given[name].default for name in rule.checks() if name in given}
    theirs = {"eps_mode": "keras", "decoupled_weight_decay": True, "decouple": True}
    return found | {name: x for name, x in theirs.items() if name in found}


def _class(rule: type[Optimizer]) -> type[KerasOptimizer]:
    theirs = [*inspect.signature(keras.optimizers.Optimizer.__init__).parameters.values()][1:]
    kind, values = inspect.Parameter, _defaults(rule)
    own = [kind(name, kind.KEYWORD_ONLY, default=x) for name, x in values.items() if name not in _OWN]
    known = {"learning_rate": values["lr"], "weight_decay": values["weight_decay"] or None}
    common = [
        x.replace(kind=kind.KEYWORD_ONLY, default=known.get(x.name, x.default))
        for x in theirs
        if x.kind is not x.VAR_KEYWORD
    ]
    first = common[0].replace(kind=kind.POSITIONAL_OR_KEYWORD)
    body = {
        "__doc__": f"`fastlr.{rule.__name__}` as an optimizer of Keras. See `fastlr.keras`.",
        "__module__": __name__,
        "__signature__": inspect.Signature([first, *own, *common[1:]]),
        "rule": rule,
    }
    made = type(rule.__name__, (KerasOptimizer,), body)
    return keras.saving.register_keras_serializable(package="fastlr")(made)  # type: ignore[no-any-return]


def optimizer_of(rule: type[Optimizer]) -> type[KerasOptimizer]:
    """The Keras optimizer of a class that `fastlr.rule` made, like those here, and registered as they are.

    Examples
    --------
    >>> import fastlr, fastlr.keras, keras, numpy as np
    >>> @fastlr.rule(states=("b",), momentum=0.9)
    ... def Heavy(g, b, momentum):
    ...     b = momentum * b + g
    ...     return b, b
    >>> optimizer = fastlr.keras.optimizer_of(Heavy)(learning_rate=0.5)
    >>> w = keras.Variable(np.ones(2, "float32"))
    >>> optimizer.apply([np.float32([3, 3])], [w])
    >>> w.numpy()
    array([-0.5, -0.5], dtype=float32)
    """
    if not (isinstance(rule, type) and issubclass(rule, Custom)):
        raise TypeError(f"rule must be a class that fastlr.rule made, got {rule!r}; fastlr.keras has the others")
    return _class(rule)


__all__ = ["KerasOptimizer", "optimizer_of"]
for _rule in functional.BY_RULE:
    if not _rule.per_row and (not _rule.informed or overrides(_rule, "derived")):
        globals()[_rule.__name__] = _class(_rule)
        __all__ += [_rule.__name__]
