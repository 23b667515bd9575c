"""torch's optimizers, each with fastlr's step: one row each, of what differs between the two."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

import fastlr
from fastlr.optimizer import Optimizer as Rule
from fastlr.torch.optimizer import CARRIED, COUNTED, SHARE, Row, Step

__all__ = [
    "ASGD",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
]

STEP = {"step": (COUNTED, lambda group: 0.0)}
MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}


def _optimizer(
    name: str,
    rule: type[Rule] | Callable[[Mapping[str, Any]], type[Rule]],
    keys: Mapping[str, str],
    numbers: Mapping[str, Any] = STEP,
) -> Any:
    """The class of torch of this name, with our step."""
    base = getattr(torch.optim, name)
    choose = (lambda group: rule) if isinstance(rule, type) else rule
    own = inspect.signature(base.__init__).parameters.values()
    ours = [x for x in inspect.signature(Step.__init__).parameters.values() if x.kind is x.KEYWORD_ONLY]
    signature = inspect.Signature([*list(own)[1:], *ours])
    doc = f"`torch.optim.{name}` with fastlr's step: same arguments, state and checkpoints. See `fastlr.torch`."
    made = type(
        name,
        (Step, base),
        {"__doc__": doc, "__module__": __name__, "__signature__": signature, "row": Row(choose, keys, numbers)},
    )
    return made


def _adam(group: Mapping[str, Any]) -> type[Rule]:
    return fastlr.AMSGrad if group["amsgrad"] else fastlr.Adam


Adam = _optimizer("Adam", _adam, {**MOMENTS, "x": "max_exp_avg_sq"})
AdamW = _optimizer("AdamW", _adam, {**MOMENTS, "x": "max_exp_avg_sq"})
NAdam = _optimizer("NAdam", fastlr.NAdam, MOMENTS, {**STEP, "mu_product": (CARRIED, lambda group: 1.0)})
RAdam = _optimizer("RAdam", fastlr.RAdam, MOMENTS)
Adamax = _optimizer("Adamax", fastlr.Adamax, {"m": "exp_avg", "n": "exp_inf"})
Adadelta = _optimizer("Adadelta", fastlr.Adadelta, {"v": "square_avg", "d": "acc_delta"})
Adagrad = _optimizer("Adagrad", fastlr.Adagrad, {"s": "sum"})
RMSprop = _optimizer("RMSprop", fastlr.RMSprop, {"v": "square_avg", "a": "grad_avg", "b": "momentum_buffer"})
Rprop = _optimizer("Rprop", fastlr.Rprop, {"s": "step_size", "last": "prev"})
ASGD = _optimizer(
    "ASGD",
    fastlr.ASGD,
    {"x": "ax"},
    {**STEP, "eta": (CARRIED, lambda group: float(group["lr"])), "mu": (SHARE, lambda group: 1.0)},
)
SGD = _optimizer("SGD", fastlr.SGD, {"b": "momentum_buffer"}, {})
Muon = _optimizer("Muon", fastlr.Muon, {"b": "momentum_buffer"}, {})
Adafactor = _optimizer("Adafactor", fastlr.Adafactor, {"r": "row_var", "c": "col_var", "v": "variance"})
