"""torch's optimizers, each with fastlr's step: one row each, of what differs between the two."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

import fastlr
from fastlr.custom import Custom
from fastlr.groups import Group, Piece
from fastlr.optimizer import Optimizer as Rule
from fastlr.torch.bound import CARRIED, SHARE, STEP, Row
from fastlr.torch.informed import Informed
from fastlr.torch.layout import run_of
from fastlr.torch.optimizer import IMPLEMENTATIONS, Step

MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}


def _optimizer(
    name: str,
    rule: type[Rule] | Callable[[Mapping[str, Any]], type[Rule]],
    keys: Mapping[str, str],
    numbers: Mapping[str, Any] = STEP,
    whole: tuple[str, ...] = (),
    mean: Any = None,
) -> Any:
    """The class of torch of this name, with our step."""
    base = getattr(torch.optim, name)
    choose = (lambda group: rule) if isinstance(rule, type) else rule
    doc = f"`torch.optim.{name}` with fastlr's step: same arguments, state and checkpoints."
    row = Row(choose, keys, numbers, whole, mean)
    return _class(name, base, doc, list(inspect.signature(base).parameters.values()), row)


def _class(
    name: str, base: Any, doc: str, arguments: list[inspect.Parameter], row: Row, rule: type[Rule] | None = None
) -> Any:
    ours = [x for x in inspect.signature(Step.__init__).parameters.values() if x.kind is x.KEYWORD_ONLY]
    known = {x.name for x in arguments}
    ignored = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default)
        for key, default in IMPLEMENTATIONS.items()
        if key not in known
    ]
    body = {
        "__doc__": f"{doc}\n\n{inspect.cleandoc(Step.__doc__ or '').partition(chr(10) * 2)[2]}",
        "__module__": __name__,
        "__signature__": inspect.Signature([*arguments, *ignored, *ours]),
        "row": row,
        "own": issubclass(base, Own),
        "ignored": tuple(x.name for x in ignored),
    }
    return type(name, (Informed if rule is not None and rule.informed else Step, base), body)


class Own(torch.optim.Optimizer):
    """A rule that torch does not have, as the base class of its optimizer."""

    __signature__: inspect.Signature

    def __init__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        given = type(self).__signature__.bind(params, *args, **kwargs)
        given.apply_defaults()
        own = [name for name, x in type(self).__signature__.parameters.items() if x.kind is x.POSITIONAL_OR_KEYWORD]
        super().__init__(params, {name: given.arguments[name] for name in own[1:]})


class Made(Own):
    """Optimizers of `fastlr.rule`, whose classes are found by those of the rules when they are pickled."""

    def __reduce__(self) -> Any:
        return _blank, (type(self).row.choose({}),), self.__getstate__()


def _blank(rule: Any) -> Any:
    cls = optimizer_of(rule)
    return cls.__new__(cls)


def _own(rule: type[Rule], mean: Any = None, base: Any = Own) -> Any:
    """An optimizer with the names of fastlr's: hyper-parameters, and states by letter."""
    given = inspect.signature(rule).parameters
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = [name for name in given if name in rule.checks()]
    arguments = [given["params"].replace(annotation=inspect.Parameter.empty)]
    arguments += [inspect.Parameter(name, kind, default=given[name].default) for name in names]
    arguments += [inspect.Parameter("maximize", kind, default=False)]
    keys = {key: key for key in (*rule.states, *rule.optional_states)}
    doc = f"`fastlr.{rule.__name__}` as an optimizer of torch: its arguments, and the names of its states."
    return _class(rule.__name__, base, doc, arguments, Row(lambda group: rule, keys, STEP, mean=mean), rule)


def _averaged(group: Group, p: Any, slot: Mapping[str, Any]) -> Any:
    """DoG's, in a buffer of its own."""
    if "a" not in slot:
        raise ValueError("averaging must be a number for eval_params, got None; the authors' is 8")
    return slot["a"]


def _schedule_free(rule: Any) -> Any:
    """That of Schedule-Free, which is computed."""

    def mean(group: Group, p: Any, slot: Mapping[str, Any]) -> Any:
        x = torch.empty_strided(p.shape, p.stride(), dtype=p.dtype)
        out, y = run_of(x), run_of(p)
        if p.numel():
            rule.average([out], [""], [y], [run_of(slot["z"])], [Piece(0, 0, out.size, 0)], [group])
        return x

    return mean


def optimizer_of(rule: type[Rule]) -> Any:
    """The torch optimizer of a class that `fastlr.rule` made: hyper-parameters and states by its names.

    Examples
    --------
    >>> import fastlr, fastlr.torch, torch
    >>> @fastlr.rule(states=("b",), momentum=0.9)
    ... def Heavy(g, b, momentum):
    ...     b = momentum * b + g
    ...     return b, b
    >>> TorchHeavy = fastlr.torch.optimizer_of(Heavy)
    >>> p = torch.nn.Parameter(torch.ones(2))
    >>> opt = TorchHeavy([p], lr=0.5)
    >>> (3 * p).sum().backward()
    >>> opt.step()
    >>> p.data, opt.state[p]["b"]
    (tensor([-0.5000, -0.5000]), tensor([3., 3.]))
    """
    if not (isinstance(rule, type) and issubclass(rule, Custom)):
        raise TypeError(f"rule must be a class that fastlr.rule made, got {rule!r}; fastlr.torch has the others")
    return _made(rule)


_made = functools.cache(functools.partial(_own, base=Made))


def _adam(group: Mapping[str, Any]) -> type[Rule]:
    if group["amsgrad"]:
        return fastlr.AMSGrad
    return fastlr.AdamW if group["decoupled_weight_decay"] else fastlr.Adam


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
    mean=lambda group, p, slot: slot["ax"],
)
SGD = _optimizer("SGD", fastlr.SGD, {"b": "momentum_buffer"}, {})
Muon = _optimizer("Muon", fastlr.Muon, {"b": "momentum_buffer"}, {})
Adafactor = _optimizer("Adafactor", fastlr.Adafactor, {"r": "row_var", "c": "col_var", "v": "variance"})
SparseAdam = _optimizer("SparseAdam", fastlr.SparseAdam, MOMENTS, STEP, ("step",))

AMSGrad = _own(fastlr.AMSGrad)
AdaHessian = _own(fastlr.AdaHessian)
AdEMAMix = _own(fastlr.AdEMAMix)
AdaBelief = _own(fastlr.AdaBelief)
AdamHD = _own(fastlr.AdamHD)
Adan = _own(fastlr.Adan)
Adopt = _own(fastlr.Adopt)
DAdaptAdam = _own(fastlr.DAdaptAdam)
DAdaptSGD = _own(fastlr.DAdaptSGD)
DoG = _own(fastlr.DoG, _averaged)
DoWG = _own(fastlr.DoWG)
FTRL = _own(fastlr.FTRL)
LAMB = _own(fastlr.LAMB)
LARS = _own(fastlr.LARS)
LDoG = _own(fastlr.LDoG, _averaged)
LaProp = _own(fastlr.LaProp)
LazyAdam = _own(fastlr.LazyAdam)
Lion = _own(fastlr.Lion)
MADGRAD = _own(fastlr.MADGRAD)
NovoGrad = _own(fastlr.NovoGrad)
Prodigy = _own(fastlr.Prodigy)
QHAdam = _own(fastlr.QHAdam)
QHM = _own(fastlr.QHM)
RowAdagrad = _own(fastlr.RowAdagrad)
SGDHD = _own(fastlr.SGDHD)
ScheduleFreeAdamW = _own(fastlr.ScheduleFreeAdamW, _schedule_free(fastlr.ScheduleFreeAdamW))
ScheduleFreeSGD = _own(fastlr.ScheduleFreeSGD, _schedule_free(fastlr.ScheduleFreeSGD))
SignSGD = _own(fastlr.SignSGD)
Signum = _own(fastlr.Signum)
Sophia = _own(fastlr.Sophia)
StableAdamW = _own(fastlr.StableAdamW)
Yogi = _own(fastlr.Yogi)
