"""Every optimizer as a row of plain data: the tests of rules, of exactness and of peers run over all of them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import fastlr
from tests import reference, reference_layers
from tests.tolerance import Bounded


@dataclass(frozen=True)
class Case:
    """One optimizer with hyper-parameters, and what it is compared with.

    `torch` and `optax` are (name, arguments) of the peer's constructor, without the learning rate, or None where it has
    no such rule. `torch_state` has the peer's name for each of our states. `bad` has hyper-parameters that must be
    refused, each with the exception and what its message says. `scope` is what the rule treats by itself: an
    element ("alone"), a "tensor", a "group" or the "model". `idle` has hyper-parameters that have no effect with these
    `kwargs`; `overflowing` the kinds of gradients that leave double's range. `tuned`: whether it is
    mechanized, so that four rows of numbers are the tuner's.
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
    every: int = 0  # at every how many steps the rule is given a diagonal of the Hessian
    numbers: tuple[str, ...] = ()  # what the reference's state calls the numbers that the kernel carries
    mixes: bool = False  # whether the new parameter is made of others, which infinity is not
    accumulator: str = "s"  # the state that starts at initial_accumulator_value, if the rule has one
    scope: str = "alone"
    idle: tuple[str, ...] = ()
    overflowing: frozenset[str] = frozenset()
    tuned: bool = False

    def build(self, params: Any, **kwargs: Any) -> fastlr.Optimizer:
        return self.optimizer(params, **{**self.kwargs, **kwargs})

    @property
    def states(self) -> tuple[str, ...]:
        return self.build(np.zeros(1)).states

    def carried(self, opt: fastlr.Optimizer, part: int = 0) -> dict[str, np.float64]:
        """The numbers that an optimizer carries for a tensor or group, by name."""
        rows = opt._plan.numbers if self.scope == "model" else opt._plan.numbers[part : part + 1]
        numbers = [x for row in rows for x in row]
        return dict(zip(self.numbers, map(np.float64, numbers), strict=True))

    def start(self, p: np.ndarray) -> dict[str, np.ndarray]:
        """What the function of `fastlr.functional` takes beside p and g, before the first step."""
        numbers = {"numbers": np.zeros(len(self.numbers))} if self.numbers else {}
        return {key: np.full_like(p, self.initial(key)) for key in self.states} | numbers

    def separate(self, parts: list[Any]) -> list[Any]:
        """The arrays as parameters that do not know of each other."""
        return [{"params": x} for x in parts] if self.scope == "group" else parts

    def initial(self, key: str) -> float:
        return self.all_kwargs.get("initial_accumulator_value", 0.0) if key == self.accumulator else 0.0

    @property
    def all_kwargs(self) -> dict[str, Any]:
        """With the reference's defaults, which are torch's; but for the learning rate and the options of every rule."""
        parameters = inspect.signature(self.reference).parameters.values()
        defaults = {
            x.name: x.default for x in parameters if x.kind is x.KEYWORD_ONLY and x.name not in ("lr", "hessian")
        }
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
EPS_MODE = (({"eps_mode": "tf"}, ValueError, "eps_mode must be one of 'torch', 'keras', got 'tf'"),)
DECOUPLED = (({"decoupled_weight_decay": 1}, TypeError, "decoupled_weight_decay must be True or False, got 1"),)
ADAGRAD_BAD = (
    *EVERY,
    *EPS,
    *EPS_MODE,
    ({"lr_decay": -1.0}, ValueError, "lr_decay must be finite and >= 0, got -1.0"),
    ({"initial_accumulator_value": -1.0}, ValueError, "initial_accumulator_value must be finite and >= 0, got -1.0"),
)
RMSPROP_BAD = (
    *EVERY,
    *EPS,
    *EPS_MODE,
    ({"alpha": 1.0}, ValueError, "alpha must be in [0, 1), got 1.0"),
    ({"momentum": -0.9}, ValueError, "momentum must be finite and >= 0, got -0.9"),
    ({"initial_accumulator_value": -1.0}, ValueError, "initial_accumulator_value must be finite and >= 0, got -1.0"),
)
ADAM_BAD = (*EVERY, *EPS, *BETAS, *EPS_MODE)

ADADELTA_BAD = (*EVERY, *EPS, ({"rho": 1.0}, ValueError, "rho must be in [0, 1), got 1.0"))
RADAM_BAD = (*ADAM_BAD, *DECOUPLED)
ADABELIEF_BAD = (*EVERY, *EPS, *BETAS, *DECOUPLED, ({"rectify": 0}, TypeError, "rectify must be True or False, got 0"))
QHADAM_BAD = (
    *EVERY,
    *EPS,
    *BETAS,
    *DECOUPLED,
    ({"nus": (1.1, 0.9)}, ValueError, "nus[0] must be in [0, 1], got 1.1"),
    ({"nus": (1, -0.1)}, ValueError, "nus[1] must be in [0, 1], got -0.1"),
    ({"nus": 0.7}, TypeError, "nus must be a pair of numbers in [0, 1], got 0.7"),
)
YOGI_BAD = (
    *ADAM_BAD,
    ({"bias_correction": None}, TypeError, "bias_correction must be True or False, got None"),
    ({"initial_accumulator_value": -1.0}, ValueError, "initial_accumulator_value must be finite and >= 0, got -1.0"),
)
THREE_BETAS = (
    ({"betas": (0.9, 0.9)}, TypeError, "betas must be three numbers in [0, 1), got (0.9, 0.9)"),
    ({"betas": (0.9, 0.9, 1.0)}, ValueError, "betas[2] must be in [0, 1), got 1.0"),
)
ADOPT_BAD = (
    *EVERY,
    *EPS,
    *BETAS,
    *DECOUPLED,
    ({"clip_exponent": -0.25}, ValueError, "clip_exponent must be finite and >= 0, got -0.25"),
)
ADEMAMIX_BAD = (
    *EVERY,
    *EPS,
    *THREE_BETAS,
    ({"alpha": -1.0}, ValueError, "alpha must be finite and >= 0, got -1.0"),
    ({"t_alpha_beta3": -1}, ValueError, "t_alpha_beta3 must be finite and >= 0, got -1"),
    ({"alpha_warmup": -1}, ValueError, "alpha_warmup must be finite and >= 0, got -1"),
    ({"beta3_warmup": "1"}, TypeError, "beta3_warmup must be a real number, got '1'"),
)
NADAM_BAD = (
    *EVERY,
    *EPS,
    *BETAS,
    *DECOUPLED,
    ({"momentum_decay": -1.0}, ValueError, "momentum_decay must be finite and >= 0, got -1.0"),
)
ADAN_BAD = (*EVERY, *EPS, *THREE_BETAS, ({"no_prox": 1}, TypeError, "no_prox must be True or False, got 1"))
QHM_BAD = (
    *EVERY,
    *DECOUPLED,
    ({"momentum": 1.0}, ValueError, "momentum must be in [0, 1), got 1.0"),
    ({"nu": 1.5}, ValueError, "nu must be in [0, 1], got 1.5"),
)
MADGRAD_BAD = (
    *EVERY,
    *EPS,
    *DECOUPLED,
    ({"momentum": 1.0}, ValueError, "momentum must be in [0, 1), got 1.0"),
    (
        {"decoupled_weight_decay": True, "weight_decay": 0.1, "momentum": 0.0},
        ValueError,
        "decoupled_weight_decay needs momentum > 0, got 0.0",
    ),
)
RPROP_BAD = (
    *EVERY,
    ({"etas": (0.5, 1.0)}, ValueError, "etas must be a number in (0, 1) and one above 1, got (0.5, 1.0)"),
    ({"etas": 0.5}, TypeError, "etas must be a pair of numbers, below and above 1, got 0.5"),
    ({"step_sizes": (0.0, 1.0)}, ValueError, "step_sizes[0] must be finite and > 0, got 0.0"),
    ({"step_sizes": (2.0, 1.0)}, ValueError, "step_sizes must be in order, least and most, got (2.0, 1.0)"),
    ({"step_sizes": (1.0,)}, TypeError, "step_sizes must be a pair of numbers, least and most, got (1.0,)"),
)
LARS_BAD = (
    *SGD_BAD,
    *EPS,
    ({"trust_coeff": 0.0}, ValueError, "trust_coeff must be finite and > 0, got 0.0"),
    ({"trust_clip": 1}, TypeError, "trust_clip must be True or False, got 1"),
    ({"always_adapt": 1}, TypeError, "always_adapt must be True or False, got 1"),
)
AVERAGING_BAD = (({"grad_averaging": 1}, TypeError, "grad_averaging must be True or False, got 1"),)
LAMB_BAD = (
    *EVERY,
    *EPS,
    *BETAS,
    *AVERAGING_BAD,
    *LARS_BAD[-2:],
    ({"bias_correction": 0}, TypeError, "bias_correction must be True or False, got 0"),
    ({"max_norm": 0.0}, ValueError, "max_norm must be > 0, or inf, got 0.0"),
    ({"max_norm": float("nan")}, ValueError, "max_norm must be"),
)
NOVOGRAD_BAD = (*EVERY, *EPS, *BETAS, *AVERAGING_BAD)
DOWG_BAD = (*EVERY, *EPS)
DOG_BAD = (
    *DOWG_BAD,
    ({"reps_rel": 0.0}, ValueError, "reps_rel must be finite and > 0, got 0.0"),
    ({"averaging": -1.0}, ValueError, "averaging must be finite and >= 0, got -1.0"),
)
HYPERGRADIENT_BAD = (
    ({"hypergrad_lr": -0.1}, ValueError, "hypergrad_lr must be finite and >= 0, got -0.1"),
    ({"hypergrad_lr": 1}, ValueError, "hypergrad_lr must be in [0, 1) unless additive, got 1.0"),
    ({"additive": 1}, TypeError, "additive must be True or False, got 1"),
)
ASGD_BAD = (
    *EVERY,
    ({"lambd": -1.0}, ValueError, "lambd must be finite and >= 0, got -1.0"),
    ({"alpha": -1.0}, ValueError, "alpha must be finite and >= 0, got -1.0"),
    ({"t0": float("inf")}, ValueError, "t0 must be finite, got inf"),
)
FTRL_BAD = (
    *EVERY,
    ({"beta": -1.0}, ValueError, "beta must be finite and >= 0, got -1.0"),
    ({"l1": -1.0}, ValueError, "l1 must be finite and >= 0, got -1.0"),
    ({"l2": -1.0}, ValueError, "l2 must be finite and >= 0, got -1.0"),
    ({"initial_accumulator_value": -1.0}, ValueError, "initial_accumulator_value must be finite and >= 0, got -1.0"),
)
FREE_BAD = (
    *EVERY,
    ({"warmup_steps": -1}, ValueError, "warmup_steps must be finite and >= 0, got -1"),
    ({"r": -1.0}, ValueError, "r must be finite and >= 0, got -1.0"),
    ({"weight_lr_power": -1.0}, ValueError, "weight_lr_power must be finite and >= 0, got -1.0"),
)
SIGNUM_BAD = (*EVERY, ({"beta": 1.0}, ValueError, "beta must be in [0, 1), got 1.0"))

MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq", "x": "max_exp_avg_sq"}
AVERAGES = {"v": "square_avg", "a": "grad_avg", "b": "momentum_buffer"}
BUFFER = {"b": "momentum_buffer"}


def peer(name, kwargs):
    """Torch's optimizer with these arguments; None where ε stands elsewhere."""
    return None if "eps_mode" in kwargs else (name, kwargs)


def sgd(id, kwargs, optax=None):
    return Case(id, fastlr.SGD, kwargs, reference.sgd, fastlr.functional.sgd, ("SGD", kwargs), BUFFER, optax, SGD_BAD)


def adagrad(id, kwargs, optax=None):
    torch = peer("Adagrad", kwargs)
    return Case(
        id,
        fastlr.Adagrad,
        kwargs,
        reference.adagrad,
        fastlr.functional.adagrad,
        torch,
        {"s": "sum"},
        optax,
        ADAGRAD_BAD,
    )


def rmsprop(id, kwargs, optax=None):
    torch = None if "initial_accumulator_value" in kwargs else peer("RMSprop", kwargs)
    return Case(
        id,
        fastlr.RMSprop,
        kwargs,
        reference.rmsprop,
        fastlr.functional.rmsprop,
        torch,
        AVERAGES,
        optax,
        RMSPROP_BAD,
        accumulator="v",
    )


def adam(id, kwargs, optax=None):
    torch = peer("Adam", kwargs)
    return Case(id, fastlr.Adam, kwargs, reference.adam, fastlr.functional.adam, torch, MOMENTS, optax, ADAM_BAD)


def adamw(id, kwargs, optax=None):
    torch = peer("AdamW", kwargs)
    return Case(id, fastlr.AdamW, kwargs, reference.adamw, fastlr.functional.adamw, torch, MOMENTS, optax, ADAM_BAD)


def amsgrad(id, kwargs):
    # optax takes the maximum of the corrected second moment.
    torch = None if "eps_mode" in kwargs else ("Adam", {**kwargs, "amsgrad": True})
    return Case(id, fastlr.AMSGrad, kwargs, reference.amsgrad, fastlr.functional.amsgrad, torch, MOMENTS, bad=RADAM_BAD)


def adadelta(id, kwargs, optax=None):
    torch = ("Adadelta", kwargs)
    states = {"v": "square_avg", "d": "acc_delta"}
    return Case(
        id, fastlr.Adadelta, kwargs, reference.adadelta, fastlr.functional.adadelta, torch, states, optax, ADADELTA_BAD
    )


def adamax(id, kwargs):
    # optax adds eps to the decayed maximum, not to |g|.
    torch = peer("Adamax", kwargs)
    states = {"m": "exp_avg", "n": "exp_inf"}
    return Case(id, fastlr.Adamax, kwargs, reference.adamax, fastlr.functional.adamax, torch, states, bad=ADAM_BAD)


def radam(id, kwargs, optax=None):
    torch = peer("RAdam", kwargs)
    return Case(id, fastlr.RAdam, kwargs, reference.radam, fastlr.functional.radam, torch, MOMENTS, optax, RADAM_BAD)


def adabelief(id, kwargs, optax=None):
    function = fastlr.functional.adabelief
    return Case(id, fastlr.AdaBelief, kwargs, reference.adabelief, function, optax=optax, bad=ADABELIEF_BAD)


def qhadam(id, kwargs):
    return Case(id, fastlr.QHAdam, kwargs, reference.qhadam, fastlr.functional.qhadam, bad=QHADAM_BAD)


def yogi(id, kwargs, optax=None):
    function = fastlr.functional.yogi
    return Case(id, fastlr.Yogi, kwargs, reference.yogi, function, optax=optax, bad=YOGI_BAD, accumulator="v")


GROWTH = (
    ({"d0": 0.0}, ValueError, "d0 must be finite and > 0, got 0.0"),
    ({"growth_rate": 0.9}, ValueError, "growth_rate must be >= 1, or inf, got 0.9"),
    ({"growth_rate": float("nan")}, ValueError, "growth_rate must be finite, got nan"),
)
DADAPT_SGD_BAD = (*EVERY, *GROWTH, ({"momentum": 1.0}, ValueError, "momentum must be in [0, 1), got 1.0"))
DADAPT_ADAM_BAD = (
    *EVERY,
    *EPS,
    *BETAS,
    *GROWTH,
    ({"decouple": 1}, TypeError, "decouple must be True or False, got 1"),
    ({"use_bias_correction": None}, TypeError, "use_bias_correction must be True or False, got None"),
)
PRODIGY_BAD = (
    *DADAPT_ADAM_BAD,
    ({"beta3": 1.0}, ValueError, "beta3 must be in [0, 1), got 1.0"),
    ({"d_coef": 0.0}, ValueError, "d_coef must be finite and > 0, got 0.0"),
    ({"safeguard_warmup": 0}, TypeError, "safeguard_warmup must be True or False, got 0"),
)


def dadapt_sgd(id, kwargs):
    call, numbers = (fastlr.DAdaptSGD, kwargs, reference.dadapt_sgd, fastlr.functional.dadapt_sgd), ("d", "r", "G")
    return Case(id, *call, bad=DADAPT_SGD_BAD, numbers=numbers, scope="model")


def dadapt_adam(id, kwargs):
    call = (fastlr.DAdaptAdam, kwargs, reference.dadapt_adam, fastlr.functional.dadapt_adam)
    return Case(id, *call, bad=DADAPT_ADAM_BAD, numbers=("d", "r"), scope="model")


def prodigy(id, kwargs):
    call = (fastlr.Prodigy, kwargs, reference.prodigy, fastlr.functional.prodigy)
    return Case(id, *call, bad=PRODIGY_BAD, numbers=("d", "r", "most"), scope="model")


def madgrad(id, kwargs, optax=None):
    function = fastlr.functional.madgrad
    return Case(id, fastlr.MADGRAD, kwargs, reference.madgrad, function, optax=optax, bad=MADGRAD_BAD, mixes=True)


TUNING = {"s_init": 0.5, "s_decay": 0.1, "eps": 0.01}


def mechanic_adamw(id, kwargs):
    """The tuning is the class's, so that the reference has it as its defaults."""
    cls = fastlr.mechanize(fastlr.AdamW, betas=(0.9, 0.5), **TUNING)
    function = fastlr.functional.mechanize(fastlr.functional.adamw, betas=(0.9, 0.5), **TUNING)
    numbers = ("scale", *(f"{x}{k}" for x in "srmv" for k in range(2)))
    return Case(
        id,
        cls,
        kwargs,
        reference_layers.mechanic_adamw,
        function,
        bad=ADAM_BAD,
        numbers=numbers,
        scope="model",
        tuned=True,
    )


def adopt(id, kwargs, optax=None):
    return Case(id, fastlr.Adopt, kwargs, reference.adopt, fastlr.functional.adopt, optax=optax, bad=ADOPT_BAD)


def ademamix(id, kwargs, optax=None):
    function = fastlr.functional.ademamix
    return Case(id, fastlr.AdEMAMix, kwargs, reference.ademamix, function, optax=optax, bad=ADEMAMIX_BAD)


def laprop(id, kwargs):
    function = fastlr.functional.laprop
    bad = (*EVERY, *EPS, *BETAS)
    return Case(id, fastlr.LaProp, kwargs, reference.laprop, function, bad=bad, numbers=("rates",))


def nadam(id, kwargs):
    # optax has no schedule of momentum.
    return Case(
        id,
        fastlr.NAdam,
        kwargs,
        reference.nadam,
        fastlr.functional.nadam,
        ("NAdam", kwargs),
        MOMENTS,
        bad=NADAM_BAD,
        numbers=("product",),
    )


def adan(id, kwargs):
    # optax 0.2 weighs the mean difference by 1 - b2, the authors by b2.
    return Case(id, fastlr.Adan, kwargs, reference.adan, fastlr.functional.adan, bad=ADAN_BAD)


def qhm(id, kwargs):
    return Case(id, fastlr.QHM, kwargs, reference.qhm, fastlr.functional.qhm, bad=QHM_BAD)


def rprop(id, kwargs):
    torch = ("Rprop", kwargs)
    states = {"s": "step_size", "last": "prev"}
    return Case(id, fastlr.Rprop, kwargs, reference.rprop, fastlr.functional.rprop, torch, states, bad=RPROP_BAD)


def curvature(g):
    """A diagonal of the Hessian, in the structure of the gradients, that every test can have: of their exponents alone.

    So it is of elements, and the same for −g and g/4.
    """
    if isinstance(g, Bounded):
        return Bounded(curvature(g.value.astype(g.dtype)), g.dtype)
    if g is None or isinstance(g, np.ndarray):
        return None if g is None else np.where(np.isfinite(g), 1.5 - 2.25 * (np.frexp(g)[1] % 2), g).astype(g.dtype)
    if isinstance(g, fastlr.FlatBuffer):
        return fastlr.FlatBuffer.pack({name: curvature(g[name]) for name in g})
    return {k: curvature(x) for k, x in g.items()} if isinstance(g, dict) else [curvature(x) for x in g]


def informed(id, optimizer, kwargs, every, update, function, bad):
    """A case whose steps are given `curvature` as the diagonal, at the first of every `every`."""

    class Informed(optimizer):
        def step(self, grads, **options):
            return super().step(grads, hessian=None if self.step_count % every else curvature(grads), **options)

    @functools.wraps(update)
    def reference(p, g, state, t, **hyper):
        return update(p, g, state, t, hessian=None if (t - 1) % every else curvature(g), **hyper)

    @functools.wraps(function)
    def call(p, g, *state, step, **named):
        function(p, g, *state, step=step, hessian=None if (step - 1) % every else curvature(g), **named)

    Informed.__name__ = optimizer.__name__
    return Case(id, Informed, kwargs, reference, call, bad=bad, every=every)


ADAHESSIAN_BAD = (
    *EVERY,
    *EPS,
    *BETAS,
    ({"hessian_power": 0.7}, ValueError, "hessian_power must be 1 or 0.5, got 0.7"),
)
SOPHIA_BAD = (
    *EVERY,
    *EPS,
    *BETAS,
    ({"rho": 0.0}, ValueError, "rho must be finite and > 0, got 0.0"),
    ({"use_bias_correction": 1}, TypeError, "use_bias_correction must be True or False, got 1"),
)


def adahessian(id, kwargs):
    call = (reference.adahessian, fastlr.functional.adahessian)
    return informed(id, fastlr.AdaHessian, kwargs, 1, *call, ADAHESSIAN_BAD)


def sophia(id, kwargs, every=1):
    return informed(id, fastlr.Sophia, kwargs, every, reference.sophia, fastlr.functional.sophia, SOPHIA_BAD)


def asgd(id, kwargs):
    call, torch = (fastlr.ASGD, kwargs, reference.asgd, fastlr.functional.asgd), ("ASGD", kwargs)
    return Case(id, *call, torch, {"x": "ax"}, bad=ASGD_BAD, numbers=("eta",), mixes=True)


def ftrl(id, kwargs):
    call = (fastlr.FTRL, kwargs, reference.ftrl, fastlr.functional.ftrl)
    return Case(id, *call, bad=FTRL_BAD, accumulator="n", mixes=True)


def schedule_free_sgd(id, kwargs, optax=None):
    call = (fastlr.ScheduleFreeSGD, kwargs, reference.schedule_free_sgd, fastlr.functional.schedule_free_sgd)
    bad = (*FREE_BAD, ({"momentum": 0.0}, ValueError, "momentum must be in (0, 1), got 0.0"))
    return Case(id, *call, optax=optax, bad=bad, numbers=("most", "weights"), mixes=True)


def schedule_free_adamw(id, kwargs, optax=None):
    call = (fastlr.ScheduleFreeAdamW, kwargs, reference.schedule_free_adamw, fastlr.functional.schedule_free_adamw)
    bad = (
        *FREE_BAD,
        *EPS,
        ({"betas": (0.0, 0.9)}, ValueError, "betas[0] must be in (0, 1), got 0.0"),
        ({"betas": (0.9, 1.0)}, ValueError, "betas[1] must be in [0, 1), got 1.0"),
        ({"betas": 0.9}, TypeError, "betas must be a pair of numbers, in (0, 1) and [0, 1), got 0.9"),
    )
    return Case(id, *call, optax=optax, bad=bad, numbers=("most", "weights"), mixes=True)


def sign_sgd(id, kwargs, optax=None):
    return Case(id, fastlr.SignSGD, kwargs, reference.sign_sgd, fastlr.functional.sign_sgd, optax=optax, bad=EVERY)


def signum(id, kwargs, optax=None):
    function = fastlr.functional.signum
    return Case(id, fastlr.Signum, kwargs, reference.signum, function, optax=optax, bad=SIGNUM_BAD)


def lion(id, kwargs, optax=None):
    return Case(id, fastlr.Lion, kwargs, reference.lion, fastlr.functional.lion, optax=optax, bad=(*EVERY, *BETAS))


def layerwise(id, optimizer, kwargs, name, scope="tensor", **rest):
    rule, function = getattr(reference_layers, name), getattr(fastlr.functional, name, None)
    return Case(id, optimizer, kwargs, rule, function, scope=scope, **rest)


def cautious(case):
    """The case with a cautious step, which peers do not have."""
    kwargs = {**case.kwargs, "cautious": True}
    return replace(case, kwargs=kwargs, torch=None, optax=None, scope="tensor")


def lars(id, kwargs, optax=None, idle=()):
    return layerwise(id, fastlr.LARS, kwargs, "lars", optax=optax, idle=idle, bad=LARS_BAD)


def lamb(id, kwargs, optax=None):
    return layerwise(id, fastlr.LAMB, kwargs, "lamb", optax=optax, bad=LAMB_BAD)


def novograd(id, kwargs, optax=None):
    return layerwise(id, fastlr.NovoGrad, kwargs, "novograd", optax=optax, bad=NOVOGRAD_BAD, numbers=("v",))


def stable_adamw(id, kwargs):
    return layerwise(id, fastlr.StableAdamW, kwargs, "stable_adamw", bad=(*EVERY, *EPS, *BETAS))


def dog(id, kwargs, optimizer=fastlr.DoG, name="dog", scope="group", **rest):
    function = getattr(fastlr.functional, optimizer.__name__.lower())
    bad, numbers = (DOWG_BAD if name == "dowg" else DOG_BAD), ("r", "G", "rate")
    return replace(layerwise(id, optimizer, kwargs, name, scope, bad=bad, numbers=numbers, **rest), function=function)


def sgd_hd(id, kwargs):
    bad = (*EVERY, *HYPERGRADIENT_BAD)
    return layerwise(id, fastlr.SGDHD, kwargs, "sgd_hd", "group", bad=bad, numbers=("x", "rate"))


def adam_hd(id, kwargs):
    bad = (*EVERY, *EPS, *BETAS, *HYPERGRADIENT_BAD)
    return layerwise(id, fastlr.AdamHD, kwargs, "adam_hd", "group", bad=bad, numbers=("x", "rate"))


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
    adagrad(
        "Adagrad-keras",
        {"initial_accumulator_value": 0.1, "eps": 0.01, "eps_mode": "keras"},
        ("adagrad", {"initial_accumulator_value": 0.1, "eps": 0.01}),
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
    rmsprop(
        "RMSprop-initial",
        {"initial_accumulator_value": 1, "alpha": 0.9, "eps": 0.1},
        ("rmsprop", {**OPTAX_RMS, "decay": 0.9, "eps": 0.1, "initial_scale": 1.0}),
    ),
    rmsprop(
        "RMSprop-centered-momentum-initial",
        {"initial_accumulator_value": 0.25, "centered": True, "momentum": 0.6, "eps": 0.1},
        ("rmsprop", {**OPTAX_RMS, "centered": True, "momentum": 0.6, "eps": 0.1, "initial_scale": 0.25}),
    ),
    rmsprop("RMSprop-keras", {"eps_mode": "keras"}, ("rmsprop", {**OPTAX_RMS, "eps_in_sqrt": True})),
    rmsprop(
        "RMSprop-centered-momentum-keras",
        {"centered": True, "momentum": 0.6, "eps": 0.01, "eps_mode": "keras"},
        ("rmsprop", {**OPTAX_RMS, "centered": True, "momentum": 0.6, "eps": 0.01, "eps_in_sqrt": True}),
    ),
    adam("Adam", {}, ("adam", {"b1": 0.9, "b2": 0.999, "eps": 1e-8})),
    adam("Adam-keras", {"eps": 1e-3, "eps_mode": "keras"}),
    adam("Adam-decay", {"weight_decay": 0.1}, ("adam", {"weight_decay": 0.1})),
    adam("Adam-odd", {"betas": (0.3, 0.6), "eps": 1e-3}, ("adam", {"b1": 0.3, "b2": 0.6, "eps": 1e-3})),
    adam("Adam-no_average", {"betas": (0.0, 0.0)}, ("adam", {"b1": 0.0, "b2": 0.0})),
    adamw("AdamW", {}, ("adamw", {"weight_decay": 1e-2})),
    adamw(
        "AdamW-decay-odd",
        {"betas": (0.95, 0.7), "weight_decay": 0.3},
        ("adamw", {"b1": 0.95, "b2": 0.7, "weight_decay": 0.3}),
    ),
    adamw("AdamW-keras", {"betas": (0.8, 0.95), "eps": 0.01, "eps_mode": "keras"}),
    adamw("AdamW-no_decay", {"weight_decay": 0.0}, ("adamw", {"weight_decay": 0.0})),
    amsgrad("AMSGrad", {}),
    amsgrad("AMSGrad-decay-odd", {"betas": (0.8, 0.5), "eps": 0.01, "weight_decay": 0.1}),
    amsgrad("AMSGrad-decoupled", {"betas": (0.8, 0.5), "weight_decay": 0.1, "decoupled_weight_decay": True}),
    amsgrad("AMSGrad-keras", {"betas": (0.8, 0.5), "eps": 0.01, "eps_mode": "keras"}),
    adadelta("Adadelta", {}, ("adadelta", {"rho": 0.9, "eps": 1e-6})),
    adadelta("Adadelta-decay-odd", {"rho": 0.3, "eps": 0.01, "weight_decay": 0.1}),
    adamax("Adamax", {}),
    adamax("Adamax-decay-odd", {"betas": (0.7, 0.4), "eps": 0.01, "weight_decay": 0.1}),
    adamax("Adamax-keras", {"betas": (0.7, 0.4), "eps": 0.01, "eps_mode": "keras"}),
    radam("RAdam", {}),
    radam("RAdam-decay-odd", {"betas": (0.8, 0.9), "eps": 0.01, "weight_decay": 0.1}),
    radam("RAdam-late", {"betas": (0.8, 0.7), "eps": 0.01}),
    radam("RAdam-decoupled", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    radam(
        "RAdam-keras",
        {"betas": (0.8, 0.9), "eps": 0.01, "eps_mode": "keras"},
        ("radam", {"b1": 0.8, "b2": 0.9, "eps": 0.01}),
    ),
    adabelief("AdaBelief", {}, ("adabelief", {})),
    adabelief(
        "AdaBelief-decay-odd",
        {"betas": (0.8, 0.6), "eps": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": False},
        ("adabelief", {"b1": 0.8, "b2": 0.6, "eps": 0.01, "eps_root": 0.01, "weight_decay": 0.1}),
    ),
    adabelief("AdaBelief-rectified", {"betas": (0.8, 0.9), "eps": 1e-8, "weight_decay": 0.1, "rectify": True}),
    adopt("Adopt", {}, ("adopt", {})),
    adopt(
        "Adopt-decay-odd",
        {"betas": (0.7, 0.6), "eps": 0.1, "clip_exponent": 0.1, "weight_decay": 0.01},
        ("adopt", {"b1": 0.7, "b2": 0.6, "eps": 0.1, "clip_value_fn": lambda t: t**0.1, "weight_decay": 0.01}),
    ),
    adopt(
        "Adopt-unclipped",
        {
            "betas": (0.5, 0.9),
            "clip_exponent": None,
            "eps": 0.1,
            "weight_decay": 0.1,
            "decoupled_weight_decay": True,
        },
    ),
    ademamix("AdEMAMix", {}, ("ademamix", {})),
    ademamix(
        "AdEMAMix-decay-odd",
        {"betas": (0.8, 0.6, 0.95), "alpha": 2.5, "eps": 0.01, "weight_decay": 0.1},
        ("ademamix", {"b1": 0.8, "b2": 0.6, "b3": 0.95, "alpha": 2.5, "eps": 0.01, "weight_decay": 0.1}),
    ),
    ademamix("AdEMAMix-warmup", {"betas": (0.8, 0.9, 0.999), "t_alpha_beta3": 17.0}),
    ademamix("AdEMAMix-warmup-no_average", {"betas": (0.0, 0.9, 0.99), "t_alpha_beta3": 100.0}),
    ademamix("AdEMAMix-warmups", {"betas": (0.8, 0.9, 0.999), "alpha_warmup": 9.0, "beta3_warmup": 17.0}),
    ademamix("AdEMAMix-warmup-alone", {"betas": (0.8, 0.9, 0.999), "t_alpha_beta3": 17.0, "alpha_warmup": 0.0}),
    madgrad("MADGRAD", {}, ("madgrad", {})),
    madgrad(
        "MADGRAD-decay-odd",
        {"momentum": 0.6, "eps": 0.01, "weight_decay": 0.1},
        ("madgrad", {"momentum": 0.6, "eps": 0.01, "weight_decay": 0.1}),
    ),
    madgrad("MADGRAD-decoupled", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    madgrad("MADGRAD-no_momentum", {"momentum": 0.0, "eps": 1e-3}),
    mechanic_adamw("Mechanic-AdamW", {}),
    laprop("LaProp", {}),
    laprop("LaProp-decay-odd", {"betas": (0.7, 0.6), "eps": 0.01, "weight_decay": 0.1}),
    nadam("NAdam", {}),
    nadam("NAdam-decay-odd", {"betas": (0.8, 0.6), "eps": 0.01, "momentum_decay": 0.5, "weight_decay": 0.1}),
    nadam("NAdam-decoupled", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    adan("Adan", {}),
    adan("Adan-decay-odd", {"betas": (0.8, 0.7, 0.6), "eps": 0.01, "weight_decay": 0.5}),
    adan("Adan-no_prox", {"weight_decay": 0.5, "no_prox": True}),
    qhm("QHM", {}),
    qhm("QHM-decay-odd", {"momentum": 0.6, "nu": 0.4, "weight_decay": 0.1}),
    qhm("QHM-decoupled", {"momentum": 0.9, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    rprop("Rprop", {"step_sizes": (0.01, 0.1)}),
    rprop("Rprop-odd", {"etas": (0.3, 1.5), "step_sizes": (0.02, 0.2)}),
    asgd("ASGD", {"lambd": 0.05, "t0": 0.0}),
    asgd("ASGD-decay-odd", {"lambd": 0.1, "alpha": 0.5, "t0": 5.0, "weight_decay": 0.1}),
    ftrl("Ftrl", {}),
    ftrl("Ftrl-sparse", {"beta": 0.5, "l1": 0.1, "l2": 0.3, "initial_accumulator_value": 0.2}),
    ftrl("Ftrl-decay", {"weight_decay": 0.1}),
    schedule_free_sgd("ScheduleFreeSGD", {}, ("schedule_free_sgd", {})),
    schedule_free_sgd(
        "ScheduleFreeSGD-decay-odd",
        {"momentum": 0.6, "warmup_steps": 9.0, "r": 0.5, "weight_lr_power": 1.5, "weight_decay": 0.1},
    ),
    schedule_free_adamw("ScheduleFreeAdamW", {}, ("schedule_free_adamw", {"b1": 0.9, "b2": 0.999, "eps": 1e-8})),
    schedule_free_adamw(
        "ScheduleFreeAdamW-decay-odd",
        {"betas": (0.6, 0.7), "eps": 0.01, "weight_decay": 0.1, "weight_lr_power": 1.5},
        ("schedule_free_adamw", {"b1": 0.6, "b2": 0.7, "eps": 0.01, "weight_decay": 0.1, "weight_lr_power": 1.5}),
    ),
    schedule_free_adamw("ScheduleFreeAdamW-warmup", {"warmup_steps": 9.0, "r": 0.5, "weight_decay": 0.1}),
    qhadam("QHAdam", {"nus": (0.7, 1.0)}),
    qhadam("QHAdam-decay-odd", {"betas": (0.8, 0.6), "nus": (0.4, 0.9), "eps": 0.01, "weight_decay": 0.1}),
    qhadam("QHAdam-decoupled", {"nus": (0.7, 0.8), "weight_decay": 0.1, "decoupled_weight_decay": True}),
    yogi("Yogi", {}, ("yogi", {})),
    yogi("Yogi-decay-odd", {"betas": (0.8, 0.6), "eps": 0.01, "weight_decay": 0.1, "eps_mode": "keras"}),
    yogi("Yogi-uncorrected", {"bias_correction": False, "initial_accumulator_value": 0.5}),
    # d0 is such that p and x0 do not differ by rounding alone.
    dadapt_sgd("DAdaptSGD", {"d0": 0.1}),
    dadapt_sgd("DAdaptSGD-odd", {"d0": 0.5, "momentum": 0.7, "weight_decay": 0.1, "growth_rate": 1.25}),
    dadapt_adam("DAdaptAdam", {"d0": 0.1}),
    dadapt_adam(
        "DAdaptAdam-odd",
        {"d0": 0.1, "betas": (0.7, 0.8), "eps": 0.01, "weight_decay": 0.1, "growth_rate": 1.25},
    ),
    dadapt_adam(
        "DAdaptAdam-decoupled-corrected",
        {"d0": 0.1, "weight_decay": 0.1, "decouple": True, "use_bias_correction": True},
    ),
    prodigy("Prodigy", {"d0": 0.1}),
    prodigy(
        "Prodigy-odd",
        {"d0": 0.1, "betas": (0.7, 0.8), "beta3": 0.6, "eps": 0.01, "weight_decay": 0.1, "decouple": False}
        | {"d_coef": 2.0, "growth_rate": 1.25},
    ),
    prodigy(
        "Prodigy-corrected-safeguard",
        {"d0": 0.1, "weight_decay": 0.1, "use_bias_correction": True, "safeguard_warmup": True},
    ),
    adahessian("AdaHessian", {}),
    adahessian("AdaHessian-decay-odd", {"betas": (0.7, 0.4), "eps": 0.01, "weight_decay": 0.1}),
    adahessian("AdaHessian-half", {"hessian_power": 0.5, "eps": 0.1}),
    sophia("Sophia", {"eps": 0.01, "rho": 0.3}),
    sophia("Sophia-corrected", {"use_bias_correction": True, "betas": (0.7, 0.4), "rho": 2.0, "eps": 0.1}),
    sophia("Sophia-every_other", {"weight_decay": 0.3, "eps": 0.1, "rho": 1.0}, every=2),
    sign_sgd("SignSGD", {}, ("sign_sgd", {})),
    sign_sgd("SignSGD-decay", {"weight_decay": 0.1}),
    signum("Signum", {}, ("signum", {})),
    signum("Signum-decay-odd", {"beta": 0.4, "weight_decay": 0.1}),
    lion("Lion", {}, ("lion", {"b1": 0.9, "b2": 0.99, "weight_decay": 0.0})),
    lion(
        "Lion-decay-odd",
        {"betas": (0.6, 0.3), "weight_decay": 0.1},
        ("lion", {"b1": 0.6, "b2": 0.3, "weight_decay": 0.1}),
    ),
    *(
        cautious(case)
        for case in (
            sgd("SGD-momentum-cautious", {"momentum": 0.9}),
            sgd("SGD-nesterov-cautious", {"momentum": 0.6, "nesterov": True, "weight_decay": 0.01}),
            adam("Adam-cautious", {}),
            adam("Adam-odd-cautious", {"betas": (0.6, 0.3), "eps": 0.01}),
            adamw("AdamW-cautious", {}),
            amsgrad("AMSGrad-cautious", {"betas": (0.8, 0.5), "eps": 0.01}),
            lion("Lion-cautious", {"weight_decay": 0.1}),
            signum("Signum-cautious", {"beta": 0.6, "weight_decay": 0.1}),
            qhm("QHM-cautious", {"momentum": 0.8, "nu": 0.7, "weight_decay": 0.1}),
            adopt("Adopt-cautious", {"betas": (0.8, 0.6), "eps": 0.01}),
            ademamix("AdEMAMix-cautious", {"betas": (0.8, 0.6, 0.95), "eps": 0.01, "alpha": 2.5}),
            adamax("Adamax-cautious", {"betas": (0.7, 0.4), "eps": 0.01}),
            radam("RAdam-cautious", {"betas": (0.8, 0.9), "eps": 0.01}),
            adabelief("AdaBelief-cautious", {"betas": (0.8, 0.6), "eps": 0.01}),
            qhadam("QHAdam-cautious", {"betas": (0.8, 0.6), "nus": (0.7, 0.9), "eps": 0.01}),
            yogi("Yogi-cautious", {"betas": (0.8, 0.6), "eps": 0.01}),
            laprop("LaProp-cautious", {"betas": (0.7, 0.6), "eps": 0.01, "weight_decay": 0.1}),
            nadam("NAdam-cautious", {"betas": (0.8, 0.6), "eps": 0.01, "momentum_decay": 0.5}),
            adan("Adan-cautious", {"betas": (0.8, 0.7, 0.6), "eps": 0.01, "weight_decay": 0.5}),
            lamb("LAMB-cautious", {"betas": (0.8, 0.6), "eps": 0.01, "weight_decay": 0.3}),
            lamb("LAMB-uncorrected-cautious", {"betas": (0.8, 0.6), "eps": 0.01, "bias_correction": False}),
            lamb("LAMB-no_decay-cautious", {"weight_decay": 0.0, "eps": 1e-3, "always_adapt": True}),
        )
    ),
    lars("LARS", {"weight_decay": 0.1}, idle=("eps",)),
    lars("LARS-plain", {}, idle=("trust_coeff", "eps")),
    lars("LARS-adapt-clip", {"always_adapt": True, "trust_clip": True, "trust_coeff": 0.1, "eps": 1e-3}),
    lars(
        "LARS-momentum",
        {"momentum": 0.5, "dampening": 0.3, "weight_decay": 0.1, "trust_coeff": 0.1, "eps": 0.1, "trust_clip": True},
    ),
    lars(
        "LARS-nesterov",
        {"momentum": 0.9, "nesterov": True, "always_adapt": True, "trust_coeff": 0.1, "eps": 1e-30},
        ("lars", {"momentum": 0.9, "nesterov": True, "trust_coefficient": 0.1}),
        idle=("eps",),
    ),
    lamb("LAMB", {}, ("lamb", {"weight_decay": 0.01})),
    lamb("LAMB-adapt", {"weight_decay": 0.0, "always_adapt": True}, ("lamb", {})),
    lamb("LAMB-no_decay", {"weight_decay": 0.0, "eps": 1e-3}),
    lamb(
        "LAMB-odd",
        {"betas": (0.8, 0.6), "eps": 0.01, "weight_decay": 0.3, "grad_averaging": False, "trust_clip": True},
    ),
    lamb("LAMB-uncorrected", {"betas": (0.8, 0.6), "eps": 0.01, "bias_correction": False}),
    lamb("LAMB-bounded", {"weight_decay": 0.3, "eps": 1e-3, "max_norm": 1.5}),
    novograd("NovoGrad", {}, ("novograd", {"b1": 0.95, "b2": 0.98, "eps": 1e-8})),
    novograd(
        "NovoGrad-decay-odd",
        {"betas": (0.8, 0.6), "eps": 0.01, "weight_decay": 0.1},
        ("novograd", {"b1": 0.8, "b2": 0.6, "eps": 0.01, "weight_decay": 0.1}),
    ),
    novograd("NovoGrad-averaging", {"betas": (0.7, 0.3), "weight_decay": 0.1, "grad_averaging": True}),
    stable_adamw("StableAdamW", {}),
    stable_adamw("StableAdamW-decay-odd", {"betas": (0.6, 0.8), "eps": 0.01, "weight_decay": 0.3}),
    # From a large first r: the default's steps are of the size of float32's roundings, and so is their sum.
    dog("DoG", {"reps_rel": 0.1}, optax=("dog", {"init_step": ("heuristic", 0.1)})),
    dog("DoG-decay", {"reps_rel": 0.5, "eps": 0.01, "weight_decay": 0.1}),
    dog("DoG-averaged", {"reps_rel": 0.1, "averaging": 8.0}),
    dog("LDoG", {"reps_rel": 0.1}, fastlr.LDoG, scope="tensor"),
    dog(
        "LDoG-averaged-decay",
        {"reps_rel": 0.5, "eps": 0.1, "weight_decay": 0.1, "averaging": 2.0},
        fastlr.LDoG,
        scope="tensor",
    ),
    dog("DoWG", {"eps": 0.01}, fastlr.DoWG, "dowg", optax=("dowg", {"eps": 0.01})),
    dog("DoWG-decay", {"eps": 0.1, "weight_decay": 0.1}, fastlr.DoWG, "dowg"),
    sgd_hd("SGDHD", {}),
    sgd_hd("SGDHD-momentum", {"momentum": 0.7, "weight_decay": 0.1, "hypergrad_lr": 0.3}),
    replace(sgd_hd("SGDHD-additive", {"hypergrad_lr": 1e-14, "additive": True}), overflowing=frozenset({"huge"})),
    adam_hd("AdamHD", {}),
    adam_hd("AdamHD-decay-odd", {"betas": (0.6, 0.8), "eps": 0.5, "weight_decay": 0.1, "hypergrad_lr": 0.3}),
    adam_hd("AdamHD-additive", {"hypergrad_lr": 1e-9, "additive": True}),
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
