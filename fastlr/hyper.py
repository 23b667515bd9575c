"""Hyper-parameters: what each may be.

A check takes a name and a value and returns the value as the kernels need it, or raises an error that says what must
hold and what was given.
"""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from fastlr._core import Curve

Check = Callable[[str, Any], Any]
Number = float | Curve  # a hyper-parameter: a number or a schedule


def real(name: str, x: object) -> float:
    """A finite real number; booleans and strings are not numbers."""
    if type(x) is float:  # nearly always: an abstract class takes longer to ask
        value = x
    elif isinstance(x, numbers.Real) and not isinstance(x, bool):
        value = float(x)
    else:
        raise TypeError(f"{name} must be a real number, got {x!r} ({type(x).__name__})")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {x!r}")
    return value


def nonnegative(name: str, x: object) -> float:
    value = real(name, x)
    if value < 0:
        raise ValueError(f"{name} must be finite and >= 0, got {x!r}")
    return value


def positive(name: str, x: object) -> float:
    value = real(name, x)
    if value <= 0:
        raise ValueError(f"{name} must be finite and > 0, got {x!r}")
    return value


def fraction(name: str, x: object) -> float:
    """The factor of a running average."""
    value = real(name, x)
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {x!r}")
    return value


def share(name: str, x: object) -> float:
    value = real(name, x)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {x!r}")
    return value


def inside(name: str, x: object) -> float:
    value = real(name, x)
    if not 0 < value < 1:
        raise ValueError(f"{name} must be in (0, 1), got {x!r}")
    return value


def count(name: str, x: object, least: int = 1) -> int:
    """How many: an integer of Python's or NumPy's."""
    if isinstance(x, bool) or not isinstance(x, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {x!r} ({type(x).__name__})")
    if x < least:
        raise ValueError(f"{name} must be >= {least}, got {x}")
    return int(x)


def pair_of_betas(name: str, x: object) -> tuple[float, float]:
    if not isinstance(x, tuple | list) or len(x) != 2:
        raise TypeError(f"{name} must be a pair of numbers in [0, 1), got {x!r}")
    return fraction(f"{name}[0]", x[0]), fraction(f"{name}[1]", x[1])


def three_betas(name: str, x: object) -> tuple[float, float, float]:
    if not isinstance(x, tuple | list) or len(x) != 3:
        raise TypeError(f"{name} must be three numbers in [0, 1), got {x!r}")
    return fraction(f"{name}[0]", x[0]), fraction(f"{name}[1]", x[1]), fraction(f"{name}[2]", x[2])


def shrink_and_grow(name: str, x: object) -> tuple[float, float]:
    """Factors of a step that grows and shrinks."""
    if not isinstance(x, tuple | list) or len(x) != 2:
        raise TypeError(f"{name} must be a pair of numbers, below and above 1, got {x!r}")
    less, more = positive(f"{name}[0]", x[0]), positive(f"{name}[1]", x[1])
    if not less < 1 < more:
        raise ValueError(f"{name} must be a number in (0, 1) and one above 1, got {x!r}")
    return less, more


def least_and_most(name: str, x: object) -> tuple[float, float]:
    if not isinstance(x, tuple | list) or len(x) != 2:
        raise TypeError(f"{name} must be a pair of numbers, least and most, got {x!r}")
    least, most = positive(f"{name}[0]", x[0]), positive(f"{name}[1]", x[1])
    if least > most:
        raise ValueError(f"{name} must be in order, least and most, got {x!r}")
    return least, most


def optional(check: Check) -> Check:
    return lambda name, x: None if x is None else check(name, x)


def pair_of_nus(name: str, x: object) -> tuple[float, float]:
    """How much of an average is used beside the newest value; 1 is all of it."""
    if not isinstance(x, tuple | list) or len(x) != 2:
        raise TypeError(f"{name} must be a pair of numbers in [0, 1], got {x!r}")
    return share(f"{name}[0]", x[0]), share(f"{name}[1]", x[1])


def _real_or_inf(name: str, x: object) -> float:
    return math.inf if x == math.inf else real(name, x)


def growth(name: str, x: object) -> float:
    """By which factor something may grow in a step: infinity for any."""
    value = _real_or_inf(name, x)
    if value < 1:
        raise ValueError(f"{name} must be >= 1, or inf, got {x!r}")
    return value


def bound(name: str, x: object) -> float:
    """What something is at most: infinity for no bound."""
    value = _real_or_inf(name, x)
    if value <= 0:
        raise ValueError(f"{name} must be > 0, or inf, got {x!r}")
    return value


def flag(name: str, x: object) -> bool:
    if not isinstance(x, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {x!r}")
    return bool(x)


def rate(name: str, x: object) -> float | Callable[[int], float]:
    """A learning rate: a number, a schedule, or any function of the 0-based step, which is called before each one."""
    return x if callable(x) else nonnegative(name, x)


def choice(*values: str) -> Check:
    def check(name: str, x: object) -> str:
        if not isinstance(x, str) or x not in values:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, values))}, got {x!r}")
        return x

    return check


eps_mode = choice("torch", "keras")
"""Where ε stands, where libraries disagree about it."""


# ---- schedules ------------------------------------------------------------------------------------------------------

# What checks allow, ends included, for the kernels to compare with: elsewhere a value is shown to the check itself.
LIMITS: dict[Check, tuple[float, float]] = {
    real: (-sys.float_info.max, sys.float_info.max),
    nonnegative: (0.0, sys.float_info.max),
    rate: (0.0, sys.float_info.max),
    positive: (math.ulp(0.0), sys.float_info.max),
    fraction: (0.0, math.nextafter(1.0, 0.0)),
    share: (0.0, 1.0),
}
ELEMENT: dict[Check, Check] = {pair_of_betas: fraction, pair_of_nus: share}
"""The check of a part of a tuple, for the checks of tuples."""


class Scheduled(float):
    """The value of a scheduled hyper-parameter at one step, that knows where it comes from.

    What a rule's `kernel` hands on as it is, the plan replaces at each step. `used` says that something was computed
    from it instead: then the plan cannot.
    """

    curve: Curve
    check: Check
    label: str
    used: bool

    def __new__(cls, curve: Curve, step: int, label: str, check: Check) -> Scheduled:
        value = curve(step)
        check(f"{label} at step {step}", value)
        self = super().__new__(cls, value)
        self.curve, self.check, self.label, self.used = curve, check, label, False
        return self

    @property
    def limits(self) -> tuple[float, float]:
        return LIMITS.get(self.check, (float(self), float(self)))


def _noted(name: str) -> Any:
    plain = getattr(float, name)

    def operation(self: Scheduled, *others: Any) -> Any:
        self.used = True
        return plain(self, *others)

    return operation


_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "radd", "rsub", "rmul", "rtruediv", "rpow")
for _name in (*_ARITHMETIC, "neg", "abs", "float", "int", "round"):
    setattr(Scheduled, f"__{_name}__", _noted(f"__{_name}__"))


def is_scheduled(x: object) -> bool:
    """Whether a hyper-parameter is a schedule, or a tuple with one."""
    return isinstance(x, Curve) or (isinstance(x, tuple | list) and any(isinstance(part, Curve) for part in x))


def at_step(label: str, check: Check, x: Any, step: int) -> Any:
    """A scheduled hyper-parameter with its schedules' values in their places, checked."""
    if isinstance(x, Curve):
        return Scheduled(x, step, label, nonnegative if check is rate else check)
    element = ELEMENT.get(check, real)
    numbers = [part(step) if isinstance(part, Curve) else part for part in x]
    checked = check(f"{label} at step {step}", tuple(numbers))
    return tuple(
        Scheduled(part, step, f"{label}[{k}]", element) if isinstance(part, Curve) else checked[k]
        for k, part in enumerate(x)
    )
