"""`Schedule`, the one type, and `form`, which makes constructors of functions that describe curves."""

from __future__ import annotations

import functools
import inspect
import json
import numbers
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, ParamSpec, TypeAlias

import numpy as np
import numpy.typing as npt

from fastlr import _core
from fastlr.hyper import Check, choice, flag, real
from fastlr.schedules import tree
from fastlr.schedules.shapes import shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fastlr.schedules.analysis import Description

P = ParamSpec("P")
Floats = npt.NDArray[np.float64]
VERSION = 1

# What the parameters of forms are called in their annotations: each has its check below.
Steps: TypeAlias = Any
"""A number of updates > 0, or '10%' (of the run), '5ep' (epochs), '2e9tok' (tokens), resolved by `bind`."""
Step: TypeAlias = Any
"""The same, but 0 is allowed."""
ShapeName: TypeAlias = str
Endpoint: TypeAlias = str
Boundaries: TypeAlias = Any
"""{step: number}, or pairs of them."""


class Unit(NamedTuple):
    """A length that is not yet a number of updates."""

    value: float
    unit: str

    def __repr__(self) -> str:
        return repr(f"{self.value:.17g}{self.unit}")

    def steps(self, sizes: Mapping[str, float]) -> int:
        size = sizes.get(self.unit)
        if size is None:
            raise ValueError(f"{self!r} needs bind({_BIND[self.unit]}=...)")
        return round(self.value * size)


_BIND = {"%": "total_steps", "ep": "steps_per_epoch", "tok": "tokens_per_step"}


class Lowered(NamedTuple):
    """A curve for the kernel, and how many updates it is for: None if it never ends."""

    node: tree.Node
    length: float | None = None


# ---- checks ---------------------------------------------------------------------------------------------------------


def length(name: str, x: object, least: float = 0) -> float | Unit:
    """Updates: a number > 0, or a string with a unit."""
    if isinstance(x, Unit):
        return x
    if isinstance(x, str):
        match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*(%|ep|tok)\s*", x)
        if not match:
            raise ValueError(f"{name} must be a number of steps, or like '10%', '5ep' or '2e9tok', got {x!r}")
        return Unit(real(name, float(match[1])), match[2])
    value = int(x) if isinstance(x, numbers.Integral) and not isinstance(x, bool) else real(name, x)
    if value < least or (value == 0 and least == 0 and name != "at"):
        raise ValueError(f"{name} must be > {least}, got {x!r}")
    return value


def _boundary(name: str, x: object) -> float | Unit:
    return x if isinstance(x, Unit) else length("at", x, 0) if not isinstance(x, str) else length(name, x)


def _pairs(name: str, x: Any) -> tuple[tuple[Any, float], ...]:
    pairs = x.items() if isinstance(x, Mapping) else x
    try:
        pairs = [(_boundary(f"{name}: a step", at), real(f"{name}[{at!r}]", value)) for at, value in pairs]
    except (TypeError, ValueError) as error:
        if isinstance(x, Mapping | list | tuple):
            raise
        raise TypeError(f"{name} must be a dict of steps and numbers, got {x!r}") from error
    if not any(isinstance(at, Unit) for at, _ in pairs):
        pairs.sort()
        if len({at for at, _ in pairs}) < len(pairs):
            raise ValueError(f"{name} must have each step once, got {x!r}")
    return tuple(pairs)


def _list(check: Check) -> Check:
    def checked(name: str, x: Any) -> tuple[Any, ...]:
        if not isinstance(x, list | tuple | np.ndarray):
            raise TypeError(f"{name} must be a list, got {x!r}")
        return tuple(check(f"{name}[{k}]", value) for k, value in enumerate(x))

    return checked


def integer(name: str, x: object) -> int:
    if isinstance(x, bool) or not isinstance(x, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {x!r}")
    return int(x)


def _text(name: str, x: object) -> str:
    if not isinstance(x, str):
        raise TypeError(f"{name} must be a string, got {x!r}")
    return x


def as_schedule(name: str, x: object) -> Schedule:
    if isinstance(x, Schedule):
        return x
    if isinstance(x, numbers.Real) and not isinstance(x, bool):
        from fastlr.schedules.curves import constant

        return constant(real(name, x))
    raise TypeError(f"{name} must be a schedule or a number, got {x!r}")


def _function(name: str, x: object) -> Callable[[float], float]:
    if not callable(x):
        raise TypeError(f"{name} must be a function of the step, got {x!r}")
    return x


CHECKS: dict[str, Check] = {
    "float": real,
    "int": integer,
    "bool": flag,
    "Steps": length,
    "Step": _boundary,
    "ShapeName": shape,
    "Endpoint": choice("exclusive", "inclusive"),
    "Boundaries": _pairs,
    "list[Steps]": _list(_boundary),
    "list[float]": _list(real),
    "Schedule": as_schedule,
    "Callable[[float], float]": _function,
    "str": _text,
}


# ---- forms ----------------------------------------------------------------------------------------------------------


class Form(NamedTuple):
    """A function that describes a curve, as `form` has read it."""

    name: str
    lower: Callable[..., Lowered | Schedule]
    checks: dict[str, Check]
    defaults: dict[str, Any]
    method: bool


FORMS: dict[str, Form] = {}


def form(lower: Callable[P, Lowered | Schedule]) -> Callable[P, Schedule]:
    """Makes a schedule's constructor of a function that says what its curve is, from checked, bound arguments.

    The signature is all there is: its annotations choose the checks, its defaults are left out of `repr`. A form whose
    first parameter is a schedule is a method of `Schedule`.
    """
    parameters = list(inspect.signature(lower).parameters.values())
    checks = {}
    for p in parameters:
        kind = str(p.annotation).removesuffix(" | None")
        check = CHECKS[kind]
        checks[p.name] = _optional(check) if str(p.annotation).endswith(" | None") else check
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    this = Form(lower.__name__.rstrip("_"), lower, checks, defaults, str(parameters[0].annotation) == "Schedule")
    FORMS[this.name] = this
    signature = inspect.signature(lower)

    @functools.wraps(lower)
    def construct(*args: P.args, **kwargs: P.kwargs) -> Schedule:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return Schedule._make(this, {name: this.checks[name](name, x) for name, x in bound.arguments.items()})

    return construct


def _optional(check: Check) -> Check:
    return lambda name, x: None if x is None else check(name, x)


def _unbound(x: object) -> bool:
    if isinstance(x, Schedule):
        return x._lowered is None
    return isinstance(x, Unit) or (isinstance(x, tuple) and any(map(_unbound, x)))


def _map(x: Any, change: Callable[[Any], Any]) -> Any:
    """`x` with every unit and schedule in it changed."""
    if isinstance(x, Unit | Schedule):
        return change(x)
    return tuple(_map(part, change) for part in x) if isinstance(x, tuple) else x


# ---- the type -------------------------------------------------------------------------------------------------------


class Schedule(_core.Curve):
    """A number as a function of the step: immutable, hashable, comparable, exact.

    ``s(n)`` is the value used by update n, n = 0, 1, 2, … Build one with the functions of `fastlr.schedules` and the
    methods below; each method returns a new schedule. `s` may be called with an integer or a float (a fractional step),
    which gives a float, or with an array of them (and ``out=``), which gives an array of float64; the same bits either
    way. A negative step is an error; NaN gives NaN.

    A curve of `steps` updates is for n = 0 … steps − 1. With ``endpoint="exclusive"``, the default, it reaches its end
    at n = steps, so that what follows by `then` goes on from there; with ``"inclusive"`` its last update,
    n = steps − 1, uses the end. Beyond, it holds its last value, unless `after` says something else.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> s = S.cosine(1e-3, 0, 1000).warmup(100)
    >>> s
    S.cosine(0.001, 0.0, 1000).warmup(100)
    >>> s(0) == 1e-3 / 101, s(100), s(1100)
    (True, 0.001, 0.0)
    >>> s([100, 600]).tolist()
    [0.001, 0.0005]
    """

    __slots__ = ("_arguments", "_form", "_hash", "_lowered")
    _form: Form
    _arguments: dict[str, Any]
    _lowered: Lowered | None
    _hash: int

    def __init__(self) -> None:
        raise TypeError("schedules are made by the functions of fastlr.schedules")

    @classmethod
    def _make(cls, form: Form, arguments: dict[str, Any]) -> Schedule:
        self = cls.__new__(cls)
        lowered = None
        if not any(map(_unbound, arguments.values())):
            result = form.lower(**arguments)
            lowered = result._lowered if isinstance(result, Schedule) else result
        for name, x in (("_form", form), ("_arguments", arguments), ("_lowered", lowered)):
            object.__setattr__(self, name, x)
        object.__setattr__(self, "_hash", hash((form.name, tuple(arguments.items()))))
        if lowered is not None:
            if tree.depth(lowered.node) > tree.MOST_DEPTH:
                raise ValueError(f"schedules can be put together {tree.MOST_DEPTH} levels deep, not more")
            self._compile(*tree.table_of(lowered.node))
        return self

    # ---- values -----------------------------------------------------------------------------------------------------

    def _many(self, t: Any, out: Floats | None) -> float | Floats:
        """What `Curve` leaves to Python: everything but an int or a float."""
        self._bound()
        array = np.asarray(t)
        if array.dtype == object:
            array = np.array([self(x) if isinstance(x, int) else real("a step", x) for x in array.flat]).reshape(
                array.shape
            )
            return self._into(array, out)
        if array.dtype.kind not in "iuf" or (array.dtype.kind == "f" and array.dtype.itemsize > 8):
            raise TypeError(f"steps must be integers or floats, got {array.dtype}")
        if array.dtype == np.uint64 and array.size and array.max() >= 1 << 63:
            return self._into(np.array([self(int(x)) for x in array.flat]).reshape(array.shape), out)
        array = np.asarray(array, np.float64 if array.dtype.kind == "f" else np.int64, order="C")
        if out is not None:
            if not isinstance(out, np.ndarray) or out.dtype != np.float64 or out.shape != array.shape:
                raise TypeError(f"out must be an array of float64 and shape {array.shape}, got {out!r}")
            if not out.flags.c_contiguous or np.may_share_memory(array, out):
                return self._into(self._many(array, None), out)
        result: Floats = np.empty(array.shape) if out is None else out
        self._fill(array, result)
        return result if out is not None or np.ndim(t) else float(result)

    @staticmethod
    def _into(values: Any, out: Floats | None) -> Floats:
        if out is None:
            return np.asarray(values)
        out[...] = values
        return out

    def table(self, steps: int) -> Floats:
        """The values of updates 0 to steps − 1."""
        return np.asarray(self(np.arange(steps)))

    @property
    def length(self) -> float | None:
        """How many updates the schedule is for; None if it never ends."""
        return self._bound().length

    @property
    def bound(self) -> bool:
        """Whether every length is a number of updates."""
        return self._lowered is not None

    @property
    def node(self) -> tree.Node:
        """The curve as segments, for adapters."""
        return self._bound().node

    def _bound(self) -> Lowered:
        if self._lowered is None:
            units = sorted({_BIND[x.unit] for x in self._units()})
            raise ValueError(f"{self!r} has lengths without a number of updates; call bind({'=..., '.join(units)}=...)")
        return self._lowered

    def _units(self) -> Iterator[Unit]:
        stack: list[Any] = list(self._arguments.values())
        while stack:
            x = stack.pop()
            if isinstance(x, Unit):
                yield x
            elif isinstance(x, Schedule):
                stack += x._arguments.values()
            elif isinstance(x, tuple):
                stack += x

    def bind(
        self,
        *,
        total_steps: float | None = None,
        steps_per_epoch: float | None = None,
        tokens_per_step: float | None = None,
    ) -> Schedule:
        """The schedule with '10%', '5ep' and '2e9tok' made numbers of updates, rounded to the nearest.

        Examples
        --------
        >>> from fastlr import schedules as S
        >>> S.cosine(1e-3, 0, "90%").warmup("10%").bind(total_steps=1000)
        S.cosine(0.001, 0.0, 900).warmup(100)
        """
        sizes: dict[str, float] = {}
        if total_steps is not None:
            sizes["%"] = real("total_steps", total_steps) / 100
        if steps_per_epoch is not None:
            sizes["ep"] = real("steps_per_epoch", steps_per_epoch)
        if tokens_per_step is not None:
            sizes["tok"] = 1 / real("tokens_per_step", tokens_per_step)

        def change(x: Any) -> Any:
            return x._bind(change) if isinstance(x, Schedule) else x.steps(sizes)

        return self._bind(change)

    def _bind(self, change: Callable[[Any], Any]) -> Schedule:
        if self.bound:
            return self
        changed = {name: _map(x, change) for name, x in self._arguments.items()}
        checks = self._form.checks
        return Schedule._make(self._form, {name: checks[name](name, x) for name, x in changed.items()})

    # ---- a value among values ---------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return self._form.name == other._form.name and self._arguments == other._arguments

    def __hash__(self) -> int:
        return self._hash

    def __setattr__(self, name: str, x: object) -> NoReturn:
        raise AttributeError("a schedule cannot be changed; its methods return new ones")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a schedule cannot be changed; its methods return new ones")

    def __reduce__(self) -> tuple[Any, ...]:
        return _remake, (self._form.name, self._arguments)

    def __copy__(self) -> Schedule:
        return self

    def __deepcopy__(self, memo: object) -> Schedule:
        return self

    def __repr__(self) -> str:
        form, shown = self._form, []
        for name, x in self._arguments.items():
            if form.method and name == next(iter(self._arguments)):
                continue
            given = name not in form.defaults
            if given or x != form.checks[name](name, form.defaults[name]):
                text = _show(x)
                shown.append(text if given else f"{name}={text}")
        own = f"{form.name}({', '.join(shown)})"
        if not form.method:
            return f"S.{own}"
        first = next(iter(self._arguments.values()))
        symbol = {"plus": "+", "times": "*"}.get(form.name)
        return f"({first!r} {symbol} {shown[0]})" if symbol else f"{first!r}.{own}"

    # ---- as text ----------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers, strings, lists and dicts, with a version; see `from_dict`."""
        return {"format": "fastlr.schedule", "version": VERSION, **_encode(self)}

    @staticmethod
    def from_dict(saved: Mapping[str, Any]) -> Schedule:
        """The schedule that `to_dict` described."""
        if saved.get("format") != "fastlr.schedule" or saved.get("version") != VERSION:
            raise ValueError(
                f"a schedule of version {VERSION} must be given, got format {saved.get('format')!r}, "
                f"version {saved.get('version')!r}"
            )
        result: Schedule = _decode({name: x for name, x in saved.items() if name not in ("format", "version")})
        return result

    def to_json(self) -> str:
        """As JSON.

        Examples
        --------
        >>> from fastlr import schedules as S
        >>> S.exponential(0.1, 0.5, 100).to_json()
        '{"format": "fastlr.schedule", "version": 1, "form": "exponential", "start": 0.1, "gamma": 0.5, "period": 100, "staircase": false}'
        """  # noqa: E501
        return json.dumps(self.to_dict())

    @staticmethod
    def from_json(text: str) -> Schedule:
        """The schedule that `to_json` wrote."""
        return Schedule.from_dict(json.loads(text))

    # ---- put together -----------------------------------------------------------------------------------------------

    def _with(self, name: str, *args: Any, **kwargs: Any) -> Schedule:
        return _constructor(name)(self, *args, **kwargs)

    def warmup(self, n: Steps, start: float = 0.0, shape: ShapeName = "linear", first: str = "step") -> Schedule:
        """A ramp of n updates from start up to this schedule's first value, before the schedule begins.

        Update k of the ramp is (k + 1) / (n + 1) of the way: neither is the first update wasted on `start`, often 0,
        nor is the peak used twice. With ``first="start"`` update k is k / n of the way, as in most libraries.
        The schedule itself is delayed by n updates, so the whole is n longer.
        """
        return self._with("warmup", n, start, shape, first)

    def then(self, other: Schedule | float, at: Steps | None = None) -> Schedule:
        """After this schedule's last update, or from update `at` on, the other one, from its own update 0 on.

        Also ``self >> other``.
        """
        return self._with("then", other, at)

    def until(self, at: Steps) -> Schedule:
        """The same values for `at` updates; then the schedule has ended, and holds the value that it has there."""
        return self._with("until", at)

    def after(self, what: str) -> Schedule:
        """What follows the last update: ``"hold"`` the value, ``"raise"`` an error, ``"repeat"`` all, or ``"zero"``."""
        return self._with("after", what)

    def repeat(self, mult: float = 1.0, decay: float = 1.0, times: int | None = None) -> Schedule:
        """Again and again: cycle i is multⁱ times as long, exactly, and its values are multiplied by decayⁱ."""
        return self._with("repeat", mult, decay, times)

    def cooldown(self, n: Steps, end: float = 0.0, shape: ShapeName = "linear", at: Steps | None = None) -> Schedule:
        """From the value at the schedule's end, or at update `at`, down to `end` in n updates."""
        return self._with("cooldown", n, end, shape, at)

    def rewarm(self, other: Schedule, n: Steps, at: Steps | None = None, shape: ShapeName = "linear") -> Schedule:
        """From the end, or update `at`, n updates from the value there to the other's first one; then the other."""
        return self._with("rewarm", other, n, at, shape)

    def clip(self, least: float | None = None, most: float | None = None) -> Schedule:
        """No value below `least` or above `most`."""
        return self._with("clip", least, most)

    def floor(self, least: float) -> Schedule:
        """No value below `least`."""
        return self._with("floor", least)

    def scale(self, factor: float) -> Schedule:
        """All values times the factor."""
        return self._with("scale", factor)

    def shift(self, n: float) -> Schedule:
        """Delayed by n updates, in which it has its first value; begun at update −n, if n < 0."""
        return self._with("shift", n)

    def stretch(self, factor: float) -> Schedule:
        """The same curve over `factor` times as many updates."""
        return self._with("stretch", factor)

    def every(self, n: Steps) -> Schedule:
        """A staircase: the value changes every n updates only, as with a scheduler stepped once an epoch.

        Examples
        --------
        >>> from fastlr import schedules as S
        >>> S.linear(1, 0, 4).every(10)([0, 9, 10, 39, 40]).tolist()
        [1.0, 1.0, 0.75, 0.25, 0.0]
        """
        return self._with("every", n)

    def extend(self, new_total: Steps, at: Steps, how: str = "continuous") -> Schedule:
        """For a longer (or shorter) run, decided at update `at`; updates before it stay as they were.

        Parameters
        ----------
        new_total : int
            Updates of the new run.
        at : int
            The update from which on the new plan holds.
        how : {"continuous", "restretch", "hold"}
            ``"continuous"``: the rest of the curve, stretched over the rest of the run: no jump. ``"restretch"``: what
            the curve would be, had the run been planned for `new_total` from the start: it may jump. ``"hold"``: the
            value at `at` is held for as long as the run is longer, then the rest follows as it was.

        Examples
        --------
        >>> from fastlr import schedules as S
        >>> s = S.linear(1.0, 0.0, 100).extend(200, at=50)
        >>> s(50), s(125), s(200)
        (0.5, 0.25, 0.0)
        """
        return self._with("extend", new_total, at, how)

    def __rshift__(self, other: Schedule | float) -> Schedule:
        return self.then(other) if isinstance(other, Schedule | float | int) else NotImplemented

    def __mul__(self, other: Schedule | float) -> Schedule:
        if isinstance(other, numbers.Real):
            return self.scale(float(other))
        return self._with("times", other) if isinstance(other, Schedule) else NotImplemented

    __rmul__ = __mul__

    def __add__(self, other: Schedule | float) -> Schedule:
        return self._with("plus", other) if isinstance(other, Schedule | numbers.Real) else NotImplemented

    __radd__ = __add__

    # ---- looked at --------------------------------------------------------------------------------------------------

    def invert(self, value: float, start: float = 0.0, stop: float | None = None) -> Floats:
        """All times in [start, stop) where the curve is at, or jumps across, `value`, in order.

        Exact: within an ulp of the time where the computed curve changes sides. Where the curve rests at the value, the
        beginning of the rest. `stop` is the schedule's length if it has one.

        Examples
        --------
        >>> from fastlr import schedules as S
        >>> S.one_cycle(1.0, 100, warm=0.5, div=10).invert(0.55)
        array([25.        , 73.40592994])
        """
        from fastlr.schedules import analysis

        return analysis.invert(self, value, start, stop)

    def integral(self, a: float, b: float) -> float:
        """∫ s(t) dt from a to b, to about 1e-12 of ∫ |s|; `total` is the sum over updates."""
        from fastlr.schedules import analysis

        return analysis.integral(self, a, b)

    def total(self, a: int, b: int) -> float:
        """The sum of the values of updates a to b − 1, correctly rounded."""
        from fastlr.schedules import analysis

        return analysis.total(self, a, b)

    def describe(self, stop: float | None = None) -> Description:
        """Length, knots, smallest and largest value, area; print it, or use its attributes."""
        from fastlr.schedules import analysis

        return analysis.describe(self, stop)

    def validate(self, stop: float | None = None, *, jump: float = 0.5) -> list[str]:
        """What is suspicious, in words: nothing, an empty list, if all is well.

        Negative or non-finite values, a first update of 0, jumps by more than the fraction `jump` of the largest
        value, parts that are never reached, ends that no update uses.
        """
        from fastlr.schedules import analysis

        return analysis.validate(self, stop, jump)

    def plot(self, ax: Axes | None = None, stop: float | None = None, **line: Any) -> Axes:
        """The curve, drawn with matplotlib; returns the axes."""
        from fastlr.schedules import plots

        return plots.plot(self, ax, stop, **line)

    def ascii(self, width: int = 72, height: int = 12, stop: float | None = None) -> str:
        """The curve, drawn with characters."""
        from fastlr.schedules import plots

        return plots.ascii(self, width, height, stop)

    # ---- for other libraries ----------------------------------------------------------------------------------------

    def to_torch(
        self, optimizer: Any, *, key: str = "lr", scales: list[float] | None = None, last_epoch: int = -1
    ) -> Any:
        """A ``torch.optim.lr_scheduler.LRScheduler`` that sets the values: see `fastlr.schedules.adapters`."""
        from fastlr.schedules import adapters

        return adapters.to_torch(self, optimizer, key, scales, last_epoch)

    def to_optax(self) -> Callable[[Any], Any]:
        """A function of the count in jax.numpy, which can be traced: see `fastlr.schedules.adapters`."""
        from fastlr.schedules import adapters

        return adapters.to_optax(self)

    def to_keras(self) -> Any:
        """A ``keras.optimizers.schedules.LearningRateSchedule``: see `fastlr.schedules.adapters`."""
        from fastlr.schedules import adapters

        return adapters.to_keras(self)


def _remake(name: str, arguments: dict[str, Any]) -> Schedule:
    return Schedule._make(FORMS[name], arguments)


def _constructor(name: str) -> Callable[..., Schedule]:
    form = FORMS[name]
    names = list(form.checks)

    def construct(*args: Any) -> Schedule:
        values = dict(zip(names, args, strict=True))
        return Schedule._make(form, {name: form.checks[name](name, x) for name, x in values.items()})

    return construct


def _show(x: Any) -> str:
    """An argument, as it is written."""
    if isinstance(x, tuple) and not isinstance(x, Unit):
        if x and all(isinstance(pair, tuple) and not isinstance(pair, Unit) for pair in x):
            return f"{{{', '.join(f'{at!r}: {value!r}' for at, value in x)}}}"
        return f"[{', '.join(map(_show, x))}]"
    if callable(x) and not isinstance(x, Schedule):
        return getattr(x, "__qualname__", repr(x))
    return repr(x)


def _encode(x: Any) -> Any:
    if isinstance(x, Schedule):
        return {"form": x._form.name, **{name: _encode(value) for name, value in x._arguments.items()}}
    if isinstance(x, Unit):
        return f"{x.value:.17g}{x.unit}"
    if isinstance(x, tuple):
        return [_encode(part) for part in x]
    if callable(x):
        raise TypeError(f"a schedule with the Python function {_show(x)} cannot be saved as JSON; pickle it instead")
    return x


def _decode(saved: Any) -> Any:
    if isinstance(saved, Mapping):
        name = saved.get("form")
        form = FORMS.get(name) if isinstance(name, str) else None
        if form is None:
            raise ValueError(f"there is no schedule {name!r}; there are {', '.join(sorted(FORMS))}")
        given = {key: _decode(x) for key, x in saved.items() if key != "form"}
        if unknown := given.keys() - form.checks.keys():
            raise ValueError(f"{name} has no parameter {min(unknown)!r}; there are {', '.join(form.checks)}")
        if missing := form.checks.keys() - given.keys() - form.defaults.keys():
            raise ValueError(f"{name} needs {min(missing)!r}")
        values = {**form.defaults, **given}
        return Schedule._make(form, {key: check(key, values[key]) for key, check in form.checks.items()})
    if isinstance(saved, list):
        return [_decode(x) for x in saved]
    return saved
