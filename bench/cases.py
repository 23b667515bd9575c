"""Cases: a rule x a size x a dtype x a number of threads, and the data they run on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Rule:
    """`function` is the reference's name for it; `hyper` is in torch's words; `states` counts its state buffers."""

    function: str
    states: int
    hyper: dict[str, Any]


_ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}
_RMSPROP = {"lr": 1e-3, "alpha": 0.99, "eps": 1e-8}

RULES = {
    "sgd": Rule("sgd", 0, {"lr": 1e-2}),
    "momentum": Rule("sgd", 1, {"lr": 1e-2, "momentum": 0.9}),
    "nesterov": Rule("sgd", 1, {"lr": 1e-2, "momentum": 0.9, "nesterov": True}),
    "adagrad": Rule("adagrad", 1, {"lr": 1e-2, "eps": 1e-10}),
    "rmsprop": Rule("rmsprop", 1, _RMSPROP),
    "rmsprop_centered_momentum": Rule("rmsprop", 3, {**_RMSPROP, "momentum": 0.9, "centered": True}),
    "adam": Rule("adam", 2, _ADAM),
    "adamw": Rule("adamw", 2, {**_ADAM, "weight_decay": 0.1}),
    "amsgrad": Rule("amsgrad", 3, _ADAM),
    "adadelta": Rule("adadelta", 2, {"lr": 1.0, "rho": 0.9, "eps": 1e-6}),
    "adamax": Rule("adamax", 2, _ADAM),
    "radam": Rule("radam", 2, _ADAM),
    "sign_sgd": Rule("sign_sgd", 0, {"lr": 1e-4}),
    "signum": Rule("signum", 1, {"lr": 1e-4, "beta": 0.9}),
    "lion": Rule("lion", 1, {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.1}),
}


@dataclass(frozen=True)
class Case:
    rule: str
    size: int
    dtype: str = "float32"
    threads: int = 2

    @property
    def spec(self) -> Rule:
        return RULES[self.rule]

    @property
    def hyper(self) -> dict[str, Any]:
        return self.spec.hyper

    @property
    def nbytes(self) -> int:
        """Bytes that one pass must move: the gradient read, parameters and state read and written."""
        return self.size * np.dtype(self.dtype).itemsize * (3 + 2 * self.spec.states)

    def __str__(self) -> str:
        return f"{self.rule}-{show_size(self.size)}-{self.dtype}-{self.threads}"


_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def parse_size(text: str) -> int:
    """Elements: "1000", "100Ki", "48Mi".

    >>> [parse_size(x) for x in ("1000", "2k", "100Ki", "48Mi")]
    [1000, 2000, 102400, 50331648]
    """
    match = re.fullmatch(r"([\d_,]+)\s*(\w*)", text.strip())
    if not match or match[2] not in _UNITS:
        raise ValueError(f"size must be a number with one of the units {', '.join(filter(None, _UNITS))}, got {text!r}")
    return int(match[1].replace(",", "")) * _UNITS[match[2]]


def show_size(size: int) -> str:
    """
    >>> [show_size(n) for n in (1000, 102400, 50331648)]
    ['1000', '100Ki', '48Mi']
    """
    for unit in ("Gi", "Mi", "Ki"):
        if size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


# The data repeats after a prime number of elements: no power-of-two slip of an engine's index goes unseen, and the
# reference need only be computed for one period.
PERIOD = 100_003


@dataclass(frozen=True)
class Data:
    """Parameters like weights; gradients between 0.1 and 1 in magnitude, so that every element moves at every step."""

    p: Array
    g: Array
    minus_g: Array

    @classmethod
    def of(cls, case: Case) -> Data:
        p, g = period(case)
        return cls(np.resize(p, case.size), np.resize(g, case.size), np.resize(-g, case.size))


def period(case: Case) -> tuple[Array, Array]:
    """One period (at most) of parameters and gradients."""
    random = np.random.default_rng(20240229)
    p = random.normal(0, 0.05, PERIOD)
    g = random.uniform(0.1, 1, PERIOD) * random.choice([-1.0, 1.0], PERIOD)
    return p[: case.size].astype(case.dtype), g[: case.size].astype(case.dtype)
