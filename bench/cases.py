"""Cases: a rule x a size x a dtype x a number of threads, and the data they run on."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Rule:
    """`function` is the reference's name for it; `hyper` is in torch's words; `states` counts its state buffers.

    `origin`: it reads where training began, too; `informed`: a diagonal of the Hessian, which is the gradient of the
    first step in another place. The floor has as many buffers.
    """

    function: str
    states: int
    hyper: dict[str, Any]
    survey: int = 0  # buffers that are read once more, before the step, for sums over the tensor
    origin: bool = False
    informed: bool = False
    whole: bool = False  # what it does to an element depends on all others
    matrix: bool = False  # it sees a matrix, as nearly square as the size allows


_ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}
_RMSPROP = {"lr": 1e-3, "alpha": 0.99, "eps": 1e-8}

RULES = {
    "sgd": Rule("sgd", 0, {"lr": 1e-2}),
    "momentum": Rule("sgd", 1, {"lr": 1e-2, "momentum": 0.9}),
    "nesterov": Rule("sgd", 1, {"lr": 1e-2, "momentum": 0.9, "nesterov": True}),
    "adagrad": Rule("adagrad", 1, {"lr": 1e-2, "eps": 1e-10}),
    "rmsprop": Rule("rmsprop", 1, _RMSPROP),
    "rmsprop_momentum": Rule("rmsprop", 2, {**_RMSPROP, "momentum": 0.9}),
    "rmsprop_centered": Rule("rmsprop", 2, {**_RMSPROP, "centered": True}),
    "rmsprop_centered_momentum": Rule("rmsprop", 3, {**_RMSPROP, "momentum": 0.9, "centered": True}),
    "adam": Rule("adam", 2, _ADAM),
    "adamw": Rule("adamw", 2, {**_ADAM, "weight_decay": 0.1}),
    "amsgrad": Rule("amsgrad", 3, _ADAM),
    "adadelta": Rule("adadelta", 2, {"lr": 1.0, "rho": 0.9, "eps": 1e-6}),
    "adamax": Rule("adamax", 2, _ADAM),
    "radam": Rule("radam", 2, _ADAM),
    "adabelief": Rule("adabelief", 2, {**_ADAM, "eps": 1e-16}),
    "asgd": Rule("asgd", 1, {"lr": 1e-2}),
    "ftrl": Rule("ftrl", 2, {"lr": 0.1, "beta": 1.0, "l1": 0.01}),
    "schedule_free_sgd": Rule("schedule_free_sgd", 1, {"lr": 1e-1, "momentum": 0.9}),
    "schedule_free_adamw": Rule("schedule_free_adamw", 2, {**_ADAM, "lr": 2.5e-3, "weight_decay": 0.1}),
    "adahessian": Rule("adahessian", 2, {"lr": 0.15, "betas": (0.9, 0.999), "eps": 1e-4}, informed=True),
    "sophia": Rule("sophia", 2, {"lr": 1e-2, "betas": (0.965, 0.99), "rho": 0.04}, informed=True),
    "adan": Rule("adan", 4, {"lr": 1e-3, "betas": (0.98, 0.92, 0.99), "eps": 1e-8}),
    "ademamix": Rule(
        "ademamix", 3, {"lr": 1e-3, "betas": (0.9, 0.999, 0.9999), "alpha": 5.0, "eps": 1e-8, "weight_decay": 0.1}
    ),
    "adopt": Rule("adopt", 2, {"lr": 1e-3, "betas": (0.9, 0.9999), "eps": 1e-6}),
    "laprop": Rule("laprop", 2, {"lr": 4e-4, "betas": (0.9, 0.999), "eps": 1e-15}),
    "madgrad": Rule("madgrad", 2, {"lr": 1e-2, "momentum": 0.9, "eps": 1e-6}, origin=True),
    "nadam": Rule("nadam", 2, {**_ADAM, "momentum_decay": 4e-3}),
    "qhm": Rule("qhm", 1, {"lr": 1e-2, "momentum": 0.999, "nu": 0.7}),
    "rprop": Rule("rprop", 2, {"lr": 1e-3}),
    "qhadam": Rule("qhadam", 2, {**_ADAM, "nus": (0.7, 1.0)}),
    "yogi": Rule("yogi", 2, {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-3, "initial_accumulator_value": 0.0}),
    # Its state is next to nothing, and it reads g and p for the means, and g again for the norm of the step, before it.
    "adafactor": Rule("adafactor", 0, {"lr": 1e-2, "eps": (1e-7, 1e-3)}, 3, whole=True, matrix=True),
    "sign_sgd": Rule("sign_sgd", 0, {"lr": 1e-4}),
    "signum": Rule("signum", 1, {"lr": 1e-4, "beta": 0.9}),
    "lion": Rule("lion", 1, {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.1}),
    "adamw_cautious": Rule("adamw_cautious", 2, {**_ADAM, "weight_decay": 0.1}, 2),
    "lars": Rule("lars", 1, {"lr": 1.0, "momentum": 0.9, "trust_coeff": 1e-3, "always_adapt": True}, 2),
    "lamb": Rule("lamb", 2, {**_ADAM, "eps": 1e-6, "weight_decay": 0.01}, 4),
    "novograd": Rule("novograd", 1, {"lr": 1e-3, "betas": (0.95, 0.98), "eps": 1e-8, "weight_decay": 0.1}, 1),
    "stable_adamw": Rule("stable_adamw", 2, {**_ADAM, "betas": (0.9, 0.99), "eps": 1e-6, "weight_decay": 0.01}, 2),
    "dog": Rule("dog", 0, {"lr": 1.0, "reps_rel": 0.01}, 1, origin=True),
    "dowg": Rule("dowg", 0, {"lr": 1.0, "eps": 1e-4}, 1, origin=True),
    "sgd_hd": Rule("sgd_hd", 1, {"lr": 1e-2, "momentum": 0.9, "hypergrad_lr": 0.02}, 2),
    "adam_hd": Rule("adam_hd", 2, {**_ADAM, "hypergrad_lr": 0.02}, 3),
}

# Such that d grows, or the check would not see it, and so little that thousands of equal gradients do not blow it up.
_DISTANCE = {"lr": 10.0, "d0": 1e-3, "growth_rate": 1.001}
RULES |= {
    "dadapt_sgd": Rule("dadapt_sgd", 1, _DISTANCE, origin=True, whole=True),
    "dadapt_adam": Rule("dadapt_adam", 3, {**_DISTANCE, "betas": (0.9, 0.999), "eps": 1e-8}, whole=True),
    "prodigy": Rule("prodigy", 3, {**_DISTANCE, "betas": (0.9, 0.999), "eps": 1e-8}, origin=True, whole=True),
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
    def shape(self) -> tuple[int, ...]:
        """Of the parameter."""
        if not self.spec.matrix:
            return (self.size,)
        rows = next(n for n in range(math.isqrt(self.size), 0, -1) if self.size % n == 0)
        return rows, self.size // rows

    @property
    def nbytes(self) -> int:
        """Bytes that must be moved: the gradient read, parameters and state read and written; what a survey reads."""
        read = self.spec.survey + self.spec.origin + self.spec.informed
        buffers = 3 + 2 * self.spec.states + read
        return self.size * np.dtype(self.dtype).itemsize * buffers

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
