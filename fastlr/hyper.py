"""Hyper-parameters: what each may be.

A check takes a name and a value and returns the value as the kernels need it, or raises an error that says what must
hold and what was given.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

Check = Callable[[str, Any], Any]


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


def pair_of_betas(name: str, x: object) -> tuple[float, float]:
    if not isinstance(x, tuple | list) or len(x) != 2:
        raise TypeError(f"{name} must be a pair of numbers in [0, 1), got {x!r}")
    return fraction(f"{name}[0]", x[0]), fraction(f"{name}[1]", x[1])


def flag(name: str, x: object) -> bool:
    if not isinstance(x, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {x!r}")
    return bool(x)


def rate(name: str, x: object) -> float | Callable[[int], float]:
    """A learning rate: a number, or a function of the 0-based step that is called before each one."""
    return x if callable(x) else nonnegative(name, x)


def choice(*values: str) -> Check:
    def check(name: str, x: object) -> str:
        if not isinstance(x, str) or x not in values:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, values))}, got {x!r}")
        return x

    return check
