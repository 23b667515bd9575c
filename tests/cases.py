"""Every optimizer as a row of plain data: the tests of rules, of exactness and of peers run over all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fastlr
from tests import reference


@dataclass(frozen=True)
class Case:
    """One optimizer with hyper-parameters, and what it is compared with.

    `torch` and `optax` are (name, arguments) of the peer's constructor, without the learning rate, or None where it has
    no such rule. `torch_state` has the peer's name for each of our states. `bad` has hyper-parameters that must be
    refused, each with the exception and what its message says.
    """

    id: str
    optimizer: type[fastlr.Optimizer]
    kwargs: dict[str, Any]
    reference: Callable[..., Any]
    function: Callable[..., None]
    torch: tuple[str, dict[str, Any]] | None = None
    torch_state: dict[str, str] = field(default_factory=dict)
    optax: tuple[str, dict[str, Any]] | None = None
    bad: tuple[tuple[dict[str, Any], type[Exception], str], ...] = ()

    def build(self, params: Any, **kwargs: Any) -> fastlr.Optimizer:
        return self.optimizer(params, **{**self.kwargs, **kwargs})

    @property
    def states(self) -> tuple[str, ...]:
        return self.build(np.zeros(1)).states

    def initial(self, key: str) -> float:
        return self.kwargs.get("initial_accumulator_value", 0.0) if key == "s" else 0.0

    @property
    def all_kwargs(self) -> dict[str, Any]:
        """With the reference's defaults, which are torch's; but for the learning rate and the options of every rule."""
        parameters = inspect.signature(self.reference).parameters.values()
        defaults = {x.name: x.default for x in parameters if x.kind is x.KEYWORD_ONLY and x.name != "lr"}
        return {**defaults, **self.kwargs}

    @property
    def call_kwargs(self) -> dict[str, Any]:
        """What the function of `fastlr.functional` takes: the caller fills the state."""
        return {name: x for name, x in self.kwargs.items() if name != "initial_accumulator_value"}

    def __str__(self) -> str:
        return self.id


EVERY = (
    ({"weight_decay": -0.1}, ValueError, "weight_decay must be finite and >= 0, got -0.1"),
    ({"lr": -1.0}, ValueError, "lr must be finite and >= 0, got -1.0"),
    ({"lr": float("nan")}, ValueError, "lr must be finite, got nan"),
    ({"lr": "1e-3"}, TypeError, "lr must be a real number, got '1e-3'"),
)
EPS = (
    ({"eps": 0.0}, ValueError, "eps must be finite and > 0, got 0.0"),
    ({"eps": float("inf")}, ValueError, "eps must be finite, got inf"),
)
BETAS = (
    ({"betas": (1.0, 0.9)}, ValueError, "betas[0] must be in [0, 1), got 1.0"),
    ({"betas": (0.9, -0.1)}, ValueError, "betas[1] must be in [0, 1), got -0.1"),
    ({"betas": (0.9,)}, TypeError, "betas must be a pair of numbers in [0, 1), got (0.9,)"),
)
SGD_BAD = (
    *EVERY,
    ({"momentum": -0.9}, ValueError, "momentum must be finite and >= 0, got -0.9"),
    ({"nesterov": True, "momentum": 0.0}, ValueError, "nesterov needs momentum > 0 and dampening 0"),
    ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ValueError, "nesterov needs momentum > 0 and dampening 0"),
)
ADAGRAD_BAD = (
    *EVERY,
    *EPS,
    ({"lr_decay": -1.0}, ValueError, "lr_decay must be finite and >= 0, got -1.0"),
    ({"initial_accumulator_value": -1.0}, ValueError, "initial_accumulator_value must be finite and >= 0, got -1.0"),
)
RMSPROP_BAD = (
    *EVERY,
    *EPS,
    ({"alpha": 1.0}, ValueError, "alpha must be in [0, 1), got 1.0"),
    ({"momentum": -0.9}, ValueError, "momentum must be finite and >= 0, got -0.9"),
)
ADAM_BAD = (*EVERY, *EPS, *BETAS)

ADADELTA_BAD = (*EVERY, *EPS, ({"rho": 1.0}, ValueError, "rho must be in [0, 1), got 1.0"))
RADAM_BAD = (
    *ADAM_BAD,
    ({"decoupled_weight_decay": 1}, TypeError, "decoupled_weight_decay must be True or False, got 1"),
)
SIGNUM_BAD = (*EVERY, ({"beta": 1.0}, ValueError, "beta must be in [0, 1), got 1.0"))

MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq", "x": "max_exp_avg_sq"}
AVERAGES = {"v": "square_avg", "a": "grad_avg", "b": "momentum_buffer"}
BUFFER = {"b": "momentum_buffer"}


def sgd(id, kwargs, optax=None):
    return Case(id, fastlr.SGD, kwargs, reference.sgd, fastlr.functional.sgd, ("SGD", kwargs), BUFFER, optax, SGD_BAD)


def adagrad(id, kwargs):
    # optax adds eps inside the root, and skips where the sum is 0.
    torch = ("Adagrad", kwargs)
    return Case(
        id, fastlr.Adagrad, kwargs, reference.adagrad, fastlr.functional.adagrad, torch, {"s": "sum"}, bad=ADAGRAD_BAD
    )


def rmsprop(id, kwargs, optax=None):
    torch = ("RMSprop", kwargs)
    return Case(
        id, fastlr.RMSprop, kwargs, reference.rmsprop, fastlr.functional.rmsprop, torch, AVERAGES, optax, RMSPROP_BAD
    )


def adam(id, kwargs, optax=None):
    torch = ("Adam", kwargs)
    return Case(id, fastlr.Adam, kwargs, reference.adam, fastlr.functional.adam, torch, MOMENTS, optax, ADAM_BAD)


def adamw(id, kwargs, optax=None):
    torch = ("AdamW", kwargs)
    return Case(id, fastlr.AdamW, kwargs, reference.adamw, fastlr.functional.adamw, torch, MOMENTS, optax, ADAM_BAD)


def amsgrad(id, kwargs):
    # optax takes the maximum of the corrected second moment.
    torch = ("Adam", {**kwargs, "amsgrad": True})
    return Case(id, fastlr.AMSGrad, kwargs, reference.amsgrad, fastlr.functional.amsgrad, torch, MOMENTS, bad=ADAM_BAD)


def adadelta(id, kwargs, optax=None):
    torch = ("Adadelta", kwargs)
    states = {"v": "square_avg", "d": "acc_delta"}
    return Case(
        id, fastlr.Adadelta, kwargs, reference.adadelta, fastlr.functional.adadelta, torch, states, optax, ADADELTA_BAD
    )


def adamax(id, kwargs):
    # optax adds eps to the decayed maximum, not to |g|.
    torch = ("Adamax", kwargs)
    states = {"m": "exp_avg", "n": "exp_inf"}
    return Case(id, fastlr.Adamax, kwargs, reference.adamax, fastlr.functional.adamax, torch, states, bad=ADAM_BAD)


def radam(id, kwargs):
    # optax has eps beside the corrected root.
    torch = ("RAdam", kwargs)
    return Case(id, fastlr.RAdam, kwargs, reference.radam, fastlr.functional.radam, torch, MOMENTS, bad=RADAM_BAD)


def sign_sgd(id, kwargs, optax=None):
    return Case(id, fastlr.SignSGD, kwargs, reference.sign_sgd, fastlr.functional.sign_sgd, optax=optax, bad=EVERY)


def signum(id, kwargs):
    return Case(id, fastlr.Signum, kwargs, reference.signum, fastlr.functional.signum, bad=SIGNUM_BAD)


def lion(id, kwargs, optax=None):
    return Case(id, fastlr.Lion, kwargs, reference.lion, fastlr.functional.lion, optax=optax, bad=(*EVERY, *BETAS))


# optax's scale_by_rms has TensorFlow's defaults: these are torch's.
OPTAX_RMS = {"decay": 0.99, "eps": 1e-8, "eps_in_sqrt": False, "bias_correction": False}

# The larger eps beside weight decay are there because a normalised step, of the size of lr however small g + λp is,
# throws p across zero again and again: there rounding errors grow by a factor each step, and so does their bound.
CASES = (
    sgd("SGD", {}, ("sgd", {})),
    sgd("SGD-decay", {"weight_decay": 0.1}, ("sgd", {"weight_decay": 0.1})),
    sgd("SGD-momentum", {"momentum": 0.9}, ("sgd", {"momentum": 0.9})),
    sgd("SGD-dampening", {"momentum": 0.7, "dampening": 0.3, "weight_decay": 0.01}),
    sgd("SGD-negative_dampening", {"momentum": 0.5, "dampening": -0.5}),
    sgd(
        "SGD-nesterov",
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        ("sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ),
    adagrad("Adagrad", {}),
    adagrad(
        "Adagrad-lr_decay-initial",
        {"lr_decay": 0.1, "initial_accumulator_value": 0.5, "weight_decay": 0.01, "eps": 1e-3},
    ),
    rmsprop("RMSprop", {}, ("rmsprop", OPTAX_RMS)),
    rmsprop("RMSprop-decay-odd", {"alpha": 0.37, "eps": 0.1, "weight_decay": 0.1}),
    rmsprop("RMSprop-centered", {"centered": True}, ("rmsprop", {**OPTAX_RMS, "centered": True})),
    rmsprop("RMSprop-momentum", {"momentum": 0.9}, ("rmsprop", {**OPTAX_RMS, "momentum": 0.9})),
    rmsprop(
        "RMSprop-centered-momentum",
        {"centered": True, "momentum": 0.6, "alpha": 0.9, "eps": 0.01, "weight_decay": 0.01},
        ("rmsprop", {**OPTAX_RMS, "centered": True, "momentum": 0.6, "decay": 0.9, "eps": 0.01, "weight_decay": 0.01}),
    ),
    adam("Adam", {}, ("adam", {"b1": 0.9, "b2": 0.999, "eps": 1e-8})),
    adam("Adam-decay", {"weight_decay": 0.1}, ("adam", {"weight_decay": 0.1})),
    adam("Adam-odd", {"betas": (0.3, 0.6), "eps": 1e-3}, ("adam", {"b1": 0.3, "b2": 0.6, "eps": 1e-3})),
    adam("Adam-no_average", {"betas": (0.0, 0.0)}, ("adam", {"b1": 0.0, "b2": 0.0})),
    adamw("AdamW", {}, ("adamw", {"weight_decay": 1e-2})),
    adamw(
        "AdamW-decay-odd",
        {"betas": (0.95, 0.7), "weight_decay": 0.3},
        ("adamw", {"b1": 0.95, "b2": 0.7, "weight_decay": 0.3}),
    ),
    adamw("AdamW-no_decay", {"weight_decay": 0.0}, ("adamw", {"weight_decay": 0.0})),
    amsgrad("AMSGrad", {}),
    amsgrad("AMSGrad-decay-odd", {"betas": (0.8, 0.5), "eps": 0.01, "weight_decay": 0.1}),
    adadelta("Adadelta", {}, ("adadelta", {"rho": 0.9, "eps": 1e-6})),
    adadelta("Adadelta-decay-odd", {"rho": 0.3, "eps": 0.01, "weight_decay": 0.1}),
    adamax("Adamax", {}),
    adamax("Adamax-decay-odd", {"betas": (0.7, 0.4), "eps": 0.01, "weight_decay": 0.1}),
    radam("RAdam", {}),
    radam("RAdam-decay-odd", {"betas": (0.8, 0.9), "eps": 0.01, "weight_decay": 0.1}),
    radam("RAdam-decoupled", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    sign_sgd("SignSGD", {}, ("sign_sgd", {})),
    sign_sgd("SignSGD-decay", {"weight_decay": 0.1}),
    signum("Signum", {}),
    signum("Signum-decay-odd", {"beta": 0.4, "weight_decay": 0.1}),
    lion("Lion", {}, ("lion", {"b1": 0.9, "b2": 0.99, "weight_decay": 0.0})),
    lion(
        "Lion-decay-odd",
        {"betas": (0.6, 0.3), "weight_decay": 0.1},
        ("lion", {"b1": 0.6, "b2": 0.3, "weight_decay": 0.1}),
    ),
)

KINDS = ("tame", "one_sign", "tiny", "large", "mixed", "zero", "minus_zero", "subnormal", "huge", "sparse")
EACH = 16  # elements of a kind


def kind_of(index: int) -> str:
    return KINDS[index // EACH % len(KINDS)]


def hard_params(dtype: type, seed: int = 0) -> np.ndarray:
    """Parameters of several magnitudes, each fourth one zero, so that small steps show."""
    rng = np.random.default_rng(seed)
    p = rng.standard_normal(len(KINDS) * EACH) * 10.0 ** rng.uniform(-4, 1, len(KINDS) * EACH)
    p[::4] = 0
    return p.astype(dtype)


def hard_gradients(dtype: type, steps: int, seed: int = 1) -> np.ndarray:
    """Gradients of every kind, one row a step. The squares of the huge ones, and sums of these, are still finite."""
    rng = np.random.default_rng(seed)
    info = np.finfo(dtype)
    g = rng.standard_normal((steps, len(KINDS), EACH))
    for row in g:
        kinds = dict(zip(KINDS, row, strict=True))
        kinds["one_sign"][:] = abs(kinds["one_sign"]) + 0.1
        kinds["tiny"] *= 1e-12
        kinds["large"] *= 1e6
        kinds["mixed"] *= 10.0 ** rng.uniform(-9, 9, EACH)
        kinds["zero"][:] = 0.0
        kinds["minus_zero"][:] = -0.0
        kinds["subnormal"] *= float(info.smallest_normal) / 8
        kinds["huge"] *= float(np.sqrt(info.max)) / 1e3
        kinds["sparse"][rng.random(EACH) < 0.7] = 0
    return g.reshape(steps, -1).astype(dtype)


def nonzero(n: int, dtype: type, seed: int) -> np.ndarray:
    """Numbers of magnitude 0.5 to 1.5 and either sign: gradients that move every element of every rule."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(0.5, 1.5, n) * rng.choice([-1.0, 1.0], n)).astype(dtype)
