"""`rule`: a formula in Python becomes an optimizer like the others. Needs ``fastlr-kernels[jit]``.

`average`, `square`, `root`, `sign`, `larger` and `complement` may be used in formulas; they are those of
kernels/kernels.h, with the same bits. compiled.py has the compiler.
"""

from __future__ import annotations

import inspect
import itertools
from abc import ABCMeta
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np

from fastlr import _core, functional
from fastlr.groups import Group
from fastlr.hyper import Check, flag, real
from fastlr.optimizer import Optimizer, State
from fastlr.structure import Structure

_serial = itertools.count(1)


def average(old: Any, new: Any, a: Any) -> Any:
    """(1 − a) old + a new: give a = 1 − β, which narrowed to float32 is right where β is not."""
    return (old - a * old) + a * new


def square(x: Any) -> Any:
    """x², or a quarter of the largest number where that is less, so that an average of squares stays finite."""
    with np.errstate(over="ignore"):
        return min(x * x, type(x)(np.finfo(type(x)).max / 4)) if x == x else x


def root(x: Any) -> Any:
    """√x in the type of x."""
    return type(x)(np.sqrt(x))


def sign(x: Any) -> Any:
    """1, −1, or x itself where it is 0 or NaN."""
    return type(x)(1) if x > 0 else type(x)(-1) if x < 0 else x


def larger(a: Any, b: Any) -> Any:
    """The larger, or NaN if either is."""
    return a if a > b or a != a else b


def complement(b: float, t: int) -> float:
    """1 − bᵗ for `prepare`: no digit lost where t is small, and the same bits on every machine."""
    x, y = 1.0 - b, 0.0
    while t > 0:
        if t & 1:
            y = y + x * (1.0 - y)
        x, t = x + x * (1.0 - x), t >> 1
    return y


class Custom(Optimizer):
    """What the classes that `rule` makes share."""

    formula: ClassVar[Callable[..., Any]]
    """The user's function of an element."""
    scalars: ClassVar[Callable[..., Any] | None] = None
    """That of a step, from `prepare`."""
    function: ClassVar[Callable[..., None]]
    """The update of one array by a function that owns no state, as in `fastlr.functional`."""
    sees_p: ClassVar[bool]
    squares: ClassVar[tuple[str, ...]]
    """States that are never negative, which 8 bits store as such."""
    carried: ClassVar[dict[str, float]]
    """Numbers that a step hands on to the next, and what the first is given."""
    defaults: ClassVar[dict[str, Any]]
    _made: ClassVar[_core.Made | None] = None
    _kept: ClassVar[list[Any]]

    def __init__(self, params: Any, lr: Any = None, **given: Any) -> None:
        super().__init__(params, **{**self.defaults, **({} if lr is None else {"lr": lr}), **given})

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        raise NotImplementedError  # `rule` defines it

    @classmethod
    def prepare(cls, function: Callable[..., Any]) -> Callable[..., Any]:
        """Makes `function(t, lr, …)` what is computed once a step, in double: see `fastlr.rule`."""
        names = [*inspect.signature(function).parameters]
        if names[:2] != ["t", "lr"]:
            raise TypeError(f"prepare: {_where(function)} must take t and lr first, got {_list(names)}")
        for name in names[2:]:
            if name not in cls.hypers and name not in cls.carried:
                known = _list([*cls.hypers, *cls.carried])
                raise TypeError(f"prepare: {_where(function)}: no hyper-parameter {name!r}; there are {known}")
        if cls._made is not None:
            raise RuntimeError(f"prepare must come before the first use of {cls.__name__}, which is compiled by now")
        cls.scalars = function
        return function

    @classmethod
    def variant(cls, groups: Sequence[Group]) -> tuple[str, tuple[str, ...]]:
        if cls._made is None:
            if cls.scalars is None:
                if cls.carried:
                    raise TypeError(
                        f"{_where(cls.formula)}: {_list(cls.carried)} must come from @{cls.__name__}.prepare"
                    )
                for name in cls.names():
                    if name not in cls.hypers:
                        raise TypeError(
                            f"{_where(cls.formula)}: {name!r} must be g, p, a state or a hyper-parameter, or come from "
                            f"@{cls.__name__}.prepare; there are {_list(cls.hypers)}"
                        )
            count = len(cls.names()) if cls.scalars else sum(_sizes(cls)[name] for name in cls.names())
            if count > _core.SCALARS:
                raise TypeError(f"{_where(cls.formula)} takes {count} scalars; at most {_core.SCALARS} are possible")
            squares = sum(1 << j for j, key in enumerate(cls.states) if key in cls.squares)
            first = tuple(cls.carried.values())
            cls._made = _core.Made(cls.rule, len(cls.states), sum(_sizes(cls).values()), count, squares, first)
        return cls.rule, cls.states

    @classmethod
    def names(cls) -> list[str]:
        """The scalars of the formula: what it takes after g, p and the states."""
        return [*inspect.signature(cls.formula).parameters][1 + cls.sees_p + len(cls.states) :]

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
        cls.compile("d" if structure.arrays[0].dtype.char == "d" else "f")
        return super().plan(rule, structure, state, pieces, groups, beside)

    @classmethod
    def compile(cls, kind: str) -> None:
        """Makes the kernel for float32, "f", or float64, "d", if there is none yet. After `variant`."""
        assert cls._made is not None
        if not cls._made.compiled(kind):
            from fastlr import compiled

            cls._kept.append(compiled.build(cls, cls._made, kind))


def rule(
    *,
    states: Sequence[str] = (),
    squares: Sequence[str] = (),
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    checks: Mapping[str, Check] | None = None,
    carried: Mapping[str, float] | None = None,
    rows: bool = False,
    **hyper: Any,
) -> Callable[[Callable[..., Any]], type[Custom]]:
    """Makes an optimizer class of a function that computes one element of a step.

    The class has all that the others have: groups, schedules, clipping, decay, threads, float32 and float64, state in
    fewer bits, checkpoints; and ``function``, the update of one array, as in `fastlr.functional`. Its kernel is
    compiled by Numba when the first optimizer is built, and checked against the function itself on a few elements.

    The function takes the gradient g, then p if it has an argument of that name, the states, and then numbers: the
    hyper-parameters by name, or what `prepare` makes of them. It returns the direction u and the new states; the rest,
    p ← p − (ηu + ηλp), is done for it. Numbers in it are of the arrays' type, as in NumPy. It may use `math`, and
    `average`, `square`, `root`, `sign` and `larger` of `fastlr.custom`; it must not raise. With + − × ÷ and √ alone
    results are the same bits on every machine, as those of the others are.

    What is the same for all elements belongs in a second function, which ``@<class>.prepare`` takes: of the number t of
    the step, from 1, of lr and of hyper-parameters by name, in double. It returns the rate that u is multiplied by, and
    then the numbers that the first function takes, in its order. `complement` of `fastlr.custom` is for bias
    corrections. Numbers that are `carried` it takes by name as well, and returns those for the next step at the end.

    What a rule of users' cannot have is sums over a tensor or the model, as LAMB and Prodigy take them.

    Parameters
    ----------
    states : sequence of str
        Names of the states, which are 0 before the first step. At most 5.
    squares : sequence of str
        Those of them that are never negative: ``state_dtype="int8"`` stores them accordingly.
    lr, weight_decay : float
        The defaults of the class.
    decoupled : bool
        Whether weight decay acts on the parameters directly (AdamW), not through the gradient.
    checks : mapping, optional
        What hyper-parameters may be, by name: functions of `fastlr.hyper`, such as ``positive``. By default numbers are
        finite, and booleans booleans.
    carried : mapping of str to float, optional
        Numbers that one step of a parameter hands on to the next, such as a product of rates, and what the first is
        given: at most 4, in double. Checkpoints have them.
    rows : bool, default False
        Whether ``opt.step_rows`` is allowed: whether the formula makes sense for rows that have a gradient, while the
        states of the others stand still.
    **hyper
        The rule's own hyper-parameters with their defaults: numbers, booleans or tuples of numbers, 9 in all.

    Examples
    --------
    >>> import fastlr, numpy as np
    >>> from fastlr.custom import average, complement, root, square
    >>> @fastlr.rule(states=("m", "v"), betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, decoupled=True)
    ... def MyAdamW(g, m, v, a1, a2, eps):
    ...     m = average(m, g, a1)
    ...     v = average(v, square(g), a2)
    ...     return m / (root(v) + eps), m, v
    >>> @MyAdamW.prepare
    ... def scalars(t, lr, betas, eps):
    ...     c1, c2 = complement(betas[0], t), complement(betas[1], t)
    ...     return lr * (root(c2) / c1), 1 - betas[0], 1 - betas[1], eps * root(c2)
    >>> p = np.ones(3, np.float32)
    >>> opt = MyAdamW(p, lr=0.1, weight_decay=0.5)
    >>> opt.step(np.float32([1, -2, 0]), clip_norm=1.0).step
    1
    >>> p
    array([0.85, 1.05, 0.95], dtype=float32)
    """
    names, never = tuple(states), tuple(squares)
    if len(names) > _core.STATES:
        raise ValueError(f"states must be at most {_core.STATES}, got {len(names)}")
    if unknown := set(never) - set(names):
        raise ValueError(f"squares must be states, got {', '.join(sorted(unknown))}")
    kept = {name: real(f"carried[{name!r}]", x) for name, x in (carried or {}).items()}
    if len(kept) > _core.CARRY:
        raise ValueError(f"carried must be at most {_core.CARRY} numbers, got {len(kept)}")
    if both := kept.keys() & hyper.keys():
        raise ValueError(f"carried: {_list(sorted(both))} must not be hyper-parameters too")
    if flag("rows", rows) and kept:
        raise ValueError("rows must be False where numbers are carried, which are a parameter's and not a row's")
    own = {name: (checks or {}).get(name) or _check(name, x) for name, x in hyper.items()}
    if unknown := set(checks or {}) - set(hyper):
        raise ValueError(f"checks: no hyper-parameter {', '.join(sorted(unknown))}; there are {_list(hyper)}")

    def make(formula: Callable[..., Any]) -> type[Custom]:
        parameters = [*inspect.signature(formula).parameters]
        sees_p = parameters[1:2] == ["p"]
        wanted = ["g", *(["p"] if sees_p else []), *names]
        if parameters[: len(wanted)] != wanted:
            raise TypeError(f"{_where(formula)} must take {', '.join(wanted)} first, got {', '.join(parameters)}")
        defaults = {"lr": lr, **hyper, "weight_decay": weight_decay}
        body: dict[str, Any] = {
            "__doc__": formula.__doc__,
            "__module__": formula.__module__,
            "__qualname__": formula.__qualname__,
            "__signature__": _signature(defaults),
            "rule": f"{formula.__module__}.{formula.__qualname__}#{next(_serial)}",
            "states": names,
            "squares": never,
            "carried": kept,
            "by_rows": rows,
            "hypers": own,
            "decoupled": decoupled,
            "formula": staticmethod(formula),
            "sees_p": sees_p,
            "defaults": defaults,
            "_kept": [],
            "kernel": staticmethod(lambda group: _flat(getattr(group, name) for name in own)),
        }
        cls = cast(type[Custom], ABCMeta(formula.__name__, (Custom,), body))
        if sum(_sizes(cls).values()) > _core.HYPERS:
            raise ValueError(f"hyper-parameters must be at most {_core.HYPERS} numbers, got {_list(hyper)}")
        cls.function = staticmethod(functional._function(formula.__name__, cls))
        return cls

    return make


def _signature(defaults: Mapping[str, Any]) -> inspect.Signature:
    kind = inspect.Parameter
    own = [kind(name, kind.POSITIONAL_OR_KEYWORD, default=x) for name, x in defaults.items()]
    return inspect.Signature([kind("params", kind.POSITIONAL_OR_KEYWORD), *own, kind("options", kind.VAR_KEYWORD)])


def _check(name: str, default: Any) -> Check:
    if isinstance(default, bool):
        return flag
    if not isinstance(default, tuple | list):
        real(name, default)
        return real
    size = len(default)

    def numbers(name: str, x: Any) -> tuple[float, ...]:
        if not isinstance(x, tuple | list) or len(x) != size:
            raise TypeError(f"{name} must be {size} numbers, got {x!r}")
        return tuple(real(f"{name}[{k}]", part) for k, part in enumerate(x))

    numbers(name, default)
    return numbers


def _flat(values: Any) -> tuple[float, ...]:
    return tuple(part for x in values for part in (x if isinstance(x, tuple | list) else (x,)))


def _sizes(cls: type[Custom]) -> dict[str, int]:
    """How many numbers each hyper-parameter is."""
    return {name: len(x) if isinstance(x := cls.defaults[name], tuple | list) else 1 for name in cls.hypers}


def _list(names: Any) -> str:
    return ", ".join(names) or "none"


def _where(function: Callable[..., Any]) -> str:
    """A function as errors name it: with its place."""
    code = function.__code__
    return f'{function.__qualname__} (file "{code.co_filename}", line {code.co_firstlineno})'
