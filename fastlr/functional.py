"""One update of one array, for libraries that own their state: in place, stateless, by function.

Every function is the update of the class of its name, with its hyper-parameters and checks; state comes as arrays of
the parameter's shape and dtype, and `step` says which update this is, counting from 1. All are updated in place, and
must not overlap. Options of all: `maximize`, `grad_scale` (a factor > 0 on the gradient), `zero_grads`.

>>> import numpy as np
>>> p, m, v = np.ones(3, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
>>> adamw(p, np.float32([1, -2, 0]), m, v, step=1, lr=0.1, weight_decay=0)
>>> p.round(6)
array([0.9, 1.1, 1. ], dtype=float32)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from fastlr import _core
from fastlr.adadelta import Adadelta
from fastlr.adagrad import Adagrad
from fastlr.adam import Adam, Adamax, AdamW, AMSGrad
from fastlr.buffers import param_array
from fastlr.groups import Group
from fastlr.hyper import flag, nonnegative, positive
from fastlr.optimizer import Optimizer
from fastlr.radam import RAdam
from fastlr.rmsprop import RMSprop
from fastlr.sgd import SGD
from fastlr.sign import Lion, SignSGD, Signum

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "amsgrad",
    "lion",
    "radam",
    "rmsprop",
    "sgd",
    "sign_sgd",
    "signum",
]


class Call(TypedDict, total=False):
    maximize: bool
    grad_scale: float
    zero_grads: bool


def _update(
    cls: type[Optimizer], p: Any, g: Any, state: dict[str, Any], step: int, call: Call, hyper: dict[str, Any]
) -> None:
    if isinstance(step, bool) or not isinstance(step, int | np.integer):
        raise TypeError(f"step must be an integer, got {step!r} ({type(step).__name__})")
    if step < 1:
        raise ValueError(f"step must be >= 1, the number of this update, got {step}")
    if unknown := call.keys() - Call.__annotations__.keys():
        raise TypeError(f"{min(unknown)}: unknown option; there are {', '.join(Call.__annotations__)}")
    group = Group("", {**cls.checks(), "lr": nonnegative}, {"lr_scale": 1.0, **hyper}, [False])
    group.check()
    rule, states = cls.variant([group])
    given = tuple(key for key, array in state.items() if array is not None)
    if set(given) != set(states):
        raise ValueError(
            f"state must be {', '.join(states) or 'none'} for these hyper-parameters, got {', '.join(given) or 'none'}"
        )
    param = param_array("p", p)
    plan = _core.Plan(
        rule, param.dtype.char, [param], [""], {key: [state[key]] for key in states}, [(0, 0, param.size, 0)], 1
    )
    plan.set_group(0, group.lr, *cls.decay(group), cls.kernel(group))
    plan.set_steps(int(step) - 1, [int(step) - 1])
    plan.step(
        (g,),
        positive("grad_scale", call.get("grad_scale", 1.0)),
        flag("maximize", call.get("maximize", False)),
        -1.0,
        flag("zero_grads", call.get("zero_grads", False)),
        _core.PROPAGATE,
    )


def sgd(
    p: Any,
    g: Any,
    b: Any = None,
    *,
    step: int,
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    **call: Unpack[Call],
) -> None:
    """`SGD`: p and, with momentum, b are updated."""
    hyper = {
        "lr": lr,
        "momentum": momentum,
        "dampening": dampening,
        "weight_decay": weight_decay,
        "nesterov": nesterov,
    }
    _update(SGD, p, g, {"b": b}, step, call, hyper)


def adagrad(
    p: Any,
    g: Any,
    s: Any,
    *,
    step: int,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    eps: float = 1e-10,
    **call: Unpack[Call],
) -> None:
    """`Adagrad`: p and s, the sum of squares, are updated."""
    hyper = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay, "eps": eps, "initial_accumulator_value": 0.0}
    _update(Adagrad, p, g, {"s": s}, step, call, hyper)


def rmsprop(
    p: Any,
    g: Any,
    v: Any,
    a: Any = None,
    b: Any = None,
    *,
    step: int,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
    **call: Unpack[Call],
) -> None:
    """`RMSprop`: p, v, with `centered` a, with `momentum` b are updated."""
    hyper = {
        "lr": lr,
        "alpha": alpha,
        "eps": eps,
        "weight_decay": weight_decay,
        "momentum": momentum,
        "centered": centered,
    }
    _update(RMSprop, p, g, {"v": v, "a": a, "b": b}, step, call, hyper)


def adam(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    **call: Unpack[Call],
) -> None:
    """`Adam`: p, m and v are updated."""
    _update(
        Adam, p, g, {"m": m, "v": v}, step, call, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    )


def adamw(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    **call: Unpack[Call],
) -> None:
    """`AdamW`: p, m and v are updated."""
    _update(
        AdamW, p, g, {"m": m, "v": v}, step, call, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    )


def amsgrad(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    x: Any,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    **call: Unpack[Call],
) -> None:
    """`AMSGrad`: p, m, v and x, the largest v so far, are updated."""
    hyper = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    _update(AMSGrad, p, g, {"m": m, "v": v, "x": x}, step, call, hyper)


def adadelta(
    p: Any,
    g: Any,
    v: Any,
    d: Any,
    *,
    step: int,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    **call: Unpack[Call],
) -> None:
    """`Adadelta`: p, v and d are updated."""
    hyper = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay}
    _update(Adadelta, p, g, {"v": v, "d": d}, step, call, hyper)


def adamax(
    p: Any,
    g: Any,
    m: Any,
    n: Any,
    *,
    step: int,
    lr: float = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    **call: Unpack[Call],
) -> None:
    """`Adamax`: p, m and n are updated."""
    hyper = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
    _update(Adamax, p, g, {"m": m, "n": n}, step, call, hyper)


def radam(
    p: Any,
    g: Any,
    m: Any,
    v: Any,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    **call: Unpack[Call],
) -> None:
    """`RAdam`: p, m and v are updated."""
    hyper = {
        "lr": lr,
        "betas": betas,
        "eps": eps,
        "weight_decay": weight_decay,
        "decoupled_weight_decay": decoupled_weight_decay,
    }
    _update(RAdam, p, g, {"m": m, "v": v}, step, call, hyper)


def sign_sgd(p: Any, g: Any, *, step: int, lr: float = 1e-4, weight_decay: float = 0.0, **call: Unpack[Call]) -> None:
    """`SignSGD`: p is updated."""
    _update(SignSGD, p, g, {}, step, call, {"lr": lr, "weight_decay": weight_decay})


def signum(
    p: Any,
    g: Any,
    m: Any,
    *,
    step: int,
    lr: float = 1e-4,
    beta: float = 0.9,
    weight_decay: float = 0.0,
    **call: Unpack[Call],
) -> None:
    """`Signum`: p and m are updated."""
    _update(Signum, p, g, {"m": m}, step, call, {"lr": lr, "beta": beta, "weight_decay": weight_decay})


def lion(
    p: Any,
    g: Any,
    m: Any,
    *,
    step: int,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
    **call: Unpack[Call],
) -> None:
    """`Lion`: p and m are updated."""
    _update(Lion, p, g, {"m": m}, step, call, {"lr": lr, "betas": betas, "weight_decay": weight_decay})
