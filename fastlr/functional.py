"""One update of one array, for libraries that own their state: in place, stateless, by function.

Every function is the update of the class of its name, with its hyper-parameters and checks; state comes as arrays of
the parameter's shape and dtype, in the order of the class or by its letter, and `step` says which update this is,
counting from 1. All are updated in place, and must not overlap. Of parameters in bfloat16 or float16 state is float32;
of these and of float32 ones it may be bfloat16, where the class takes ``state_dtype="bfloat16"``. Options of all:
`maximize`, `grad_scale` (a factor > 0 on the gradient), `zero_grads`, and ``dtype="bfloat16"``, which says that arrays
of uint16 are that. A rule that carries numbers from step to step takes them as `numbers`, a float64 array
of zeros before the first; one that needs a diagonal of the Hessian takes it as `hessian`. What a class sums over the
model is summed over p: give the whole model as one array. One with `step_rows`
takes `rows`: then g has a gradient for each of these rows of p, which alone are updated. `mechanize` makes of a
function one that finds its rate.

>>> import numpy as np
>>> p, m, v = np.ones(3, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)
>>> adamw(p, np.float32([1, -2, 0]), m, v, step=1, lr=0.1, weight_decay=0)
>>> p.round(6)
array([0.9, 1.1, 1. ], dtype=float32)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from fastlr import _core
from fastlr.buffers import Array, as_array, param_array
from fastlr.groups import Group
from fastlr.hyper import flag, nonnegative, positive
from fastlr.optimizer import Optimizer
from fastlr.plain import overrides
from fastlr.precision import Precision
from fastlr.rules.adabelief import AdaBelief
from fastlr.rules.adadelta import Adadelta
from fastlr.rules.adafactor import Adafactor
from fastlr.rules.adagrad import Adagrad
from fastlr.rules.adam import Adam, Adamax, AdamW, AMSGrad
from fastlr.rules.adan import Adan
from fastlr.rules.ademamix import AdEMAMix
from fastlr.rules.adopt import Adopt
from fastlr.rules.asgd import ASGD
from fastlr.rules.dadapt import DAdaptAdam, DAdaptSGD
from fastlr.rules.distance import DoG, DoWG, LDoG
from fastlr.rules.ftrl import FTRL
from fastlr.rules.hypergradient import SGDHD, AdamHD
from fastlr.rules.laprop import LaProp
from fastlr.rules.layerwise import LAMB, LARS, NovoGrad, StableAdamW
from fastlr.rules.madgrad import MADGRAD
from fastlr.rules.mechanic import BETAS
from fastlr.rules.mechanic import mechanize as _mechanized
from fastlr.rules.muon import Muon
from fastlr.rules.nadam import NAdam
from fastlr.rules.prodigy import Prodigy
from fastlr.rules.qh import QHM, QHAdam
from fastlr.rules.radam import RAdam
from fastlr.rules.rmsprop import RMSprop
from fastlr.rules.rows import LazyAdam, RowAdagrad, SparseAdam
from fastlr.rules.rprop import Rprop
from fastlr.rules.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from fastlr.rules.second_order import AdaHessian, Sophia
from fastlr.rules.sgd import SGD
from fastlr.rules.sign import Lion, SignSGD, Signum
from fastlr.rules.yogi import Yogi
from fastlr.structure import One

__all__ = [
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adahessian",
    "adam",
    "adam_hd",
    "adamax",
    "adamw",
    "adan",
    "ademamix",
    "adopt",
    "amsgrad",
    "asgd",
    "dadapt_adam",
    "dadapt_sgd",
    "dog",
    "dowg",
    "ftrl",
    "lamb",
    "laprop",
    "lars",
    "lazy_adam",
    "ldog",
    "lion",
    "madgrad",
    "mechanize",
    "muon",
    "nadam",
    "novograd",
    "prodigy",
    "qhadam",
    "qhm",
    "radam",
    "rmsprop",
    "row_adagrad",
    "rprop",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "sgd",
    "sgd_hd",
    "sign_sgd",
    "signum",
    "sophia",
    "sparse_adam",
    "stable_adamw",
    "yogi",
]


def _function(name: str, cls: type[Optimizer]) -> Callable[..., None]:
    """The update of a class: its signature is the constructor's, with the state in the place of the structure."""
    own = inspect.signature(cls).parameters
    defaults = {key: x.default for key, x in own.items() if key in cls.checks() and key not in cls.starting}
    buffers = (*cls.states, *cls.optional_states)

    def update(
        p: Any,
        g: Any,
        *arrays: Any,
        step: int,
        hessian: Any = None,
        numbers: Any = None,
        maximize: bool = False,
        grad_scale: float = 1.0,
        zero_grads: bool = False,
        dtype: str | None = None,
        rows: Any = None,
        **named: Any,
    ) -> None:
        if isinstance(step, bool) or not isinstance(step, int | np.integer):
            raise TypeError(f"step must be an integer, got {step!r} ({type(step).__name__})")
        if step < 1:
            raise ValueError(f"step must be >= 1, the number of this update, got {step}")
        for key in named:
            if key not in defaults and key not in buffers:
                raise TypeError(f"{key}: unknown argument; there are {', '.join([*buffers, *defaults])}")
        if len(arrays) > len(buffers):
            raise TypeError(f"state must be {', '.join(buffers) or 'none'}, got {len(arrays)} arrays")
        given = dict(zip(buffers, arrays, strict=False)) | {key: x for key, x in named.items() if key in buffers}
        given = {key: x for key, x in given.items() if x is not None}
        hyper = defaults | {key: x for key, x in named.items() if key in defaults}
        absent = {key: 0.0 for key in cls.starting}  # how state starts is the caller's business
        group = Group("", {**cls.checks(), "lr": nonnegative}, {"lr_scale": 1.0, **absent, **hyper}, [False])
        group.check(int(step) - 1)
        group = group.at(int(step) - 1)
        rule, states = cls.variant([group])
        precision = Precision.of("float32", dtype, None, "nearest", 0, None, "keep")
        param = param_array("p", p, precision.words)
        precision.check(param.dtype, cls)
        structure = One(param, "", words=True)
        for key in {*cls.optional_states} - {*given}:
            if (layout := cls.layout(key, structure)) is not structure and layout.arrays[0].size == 0:
                given[key] = layout.arrays[0]  # p's shape has none
        if set(given) != set(states):
            found = ", ".join(given) or "none"
            raise ValueError(f"state must be {', '.join(states) or 'none'} for these hyper-parameters, got {found}")
        state = {key: [_state(key, given[key], precision.words)] for key in states}
        _, precise = _core.state_bits(rule)
        for j, (key, (array,)) in enumerate(state.items()):
            if precise >> j & 1 and array.dtype.char in ("B" if key in cls.signs else "HB"):
                raise TypeError(
                    f"{key} must be float32 for the rule of {cls.__name__}, got {array.dtype}: see state_dtype"
                )
        pieces = [(0, 0, param.size, 0)]
        derived = cls.derived(structure, state, pieces, [group])
        plan = cls.plan(rule, structure, state, pieces, 1)
        precision.govern(plan)
        plan.set_group(0, group.lr, *cls.decay(group), cls.kernel(group))
        lengths = [len(row) for row in plan.numbers]
        carried = _numbers(numbers, sum(lengths))
        rows_of_numbers = np.split(carried, np.cumsum(lengths)[:-1])
        plan.set_steps(int(step) - 1, [int(step) - 1], [row.tolist() for row in rows_of_numbers])
        scale, maximize = positive("grad_scale", grad_scale), flag("maximize", maximize)
        zero = flag("zero_grads", zero_grads)
        if rows is None:
            inputs = derived if hessian is None else (hessian,)
            plan.step((g,), scale, maximize, -1.0, zero, _core.PROPAGATE, inputs)
        elif not cls.by_rows:
            raise TypeError(f"rows must be None for the rule of {cls.__name__}, which is one for whole gradients")
        elif zero:
            raise ValueError("zero_grads must be False with rows: their gradients are only read")
        else:
            plan.step_rows((rows,), (g,), scale, maximize, -1.0, _core.PROPAGATE)
        if carried.size:
            carried[:] = np.concatenate(plan.numbers)

    update.__name__ = update.__qualname__ = name
    update.rule = cls  # type: ignore[attr-defined]
    updated = [*buffers, *(["numbers"] if _carries(cls) else [])]
    update.__doc__ = f"`{cls.__name__}`: p{''.join(f', {key}' for key in updated)} are updated."
    update.__signature__ = _signature(update, cls, buffers, defaults)  # type: ignore[attr-defined]
    return update


def _carries(cls: type[Optimizer]) -> bool:
    """Whether the rule keeps numbers from step to step."""
    own = getattr(cls, "carried", None)  # of a class that fastlr.rule made
    return bool(_core.carried(cls.rule)[0] if own is None else own) or hasattr(cls, "_tuning")


def _signature(
    update: Callable[..., None], cls: type[Optimizer], buffers: tuple[str, ...], defaults: dict[str, Any]
) -> inspect.Signature:
    kind, plain = inspect.Parameter, inspect.signature(update).parameters
    none = {key: None for key in cls.optional_states}
    state = [kind(key, kind.POSITIONAL_OR_KEYWORD, default=none.get(key, kind.empty)) for key in buffers]
    inputs = [plain["step"]]
    if cls.informed is not None and not overrides(cls, "derived"):
        needed = _core.rule_info(cls.rule)["inputs"] > 0
        inputs.append(plain["hessian"].replace(default=kind.empty if needed else None))
    if _carries(cls):
        inputs.append(plain["numbers"].replace(default=kind.empty))
    hyper = [kind(name, kind.KEYWORD_ONLY, default=x) for name, x in defaults.items()]
    options = [
        plain[name] for name in ("maximize", "grad_scale", "zero_grads", "dtype", *(["rows"] if cls.by_rows else []))
    ]
    return inspect.Signature([plain["p"], plain["g"], *state, *inputs, *hyper, *options])


def _state(key: str, x: Any, words: bool) -> Array:
    """An array over the memory of a state, which is checked by the plan but for what uint16 are."""
    array = as_array(key, x)
    return param_array(key, x, words) if array.dtype.char == "H" else array


def _numbers(numbers: Any, count: int) -> Array:
    """What a rule carries, checked: empty where it carries nothing."""
    if numbers is None and count == 0:
        return np.empty(0)
    if not isinstance(numbers, np.ndarray) or numbers.dtype != np.float64 or not numbers.flags.writeable:
        raise TypeError(f"numbers must be a writable float64 array of {count}, got {numbers!r}")
    if numbers.shape != (count,):
        raise ValueError(f"numbers must have the shape ({count},), got {numbers.shape}")
    return numbers


def mechanize(
    update: Callable[..., None],
    betas: tuple[float, ...] = BETAS,
    s_init: float = 1e-8,
    s_decay: float = 0.01,
    eps: float = 1e-8,
) -> Callable[..., None]:
    """The update of the class that `fastlr.mechanize` makes of a function's: one that finds its rate.

    Parameters
    ----------
    update : function of this module, or ``function`` of a class of `fastlr.rule`
        Of a rule that steps whole; see `fastlr.mechanize`.
    betas, s_init, s_decay, eps
        As in `fastlr.mechanize`.

    Returns
    -------
    function
        With the arguments of `update`, and after its states ``delta`` and ``start``, both zeros before the first step.
        ``numbers`` has, after those of the rule, S and then s, r, m and v of each of the n betas: 1 + 4n.

    Examples
    --------
    >>> import numpy as np
    >>> update = mechanize(sgd)
    >>> p, delta, start = np.float32([3, -4]), np.zeros(2, np.float32), np.zeros(2, np.float32)
    >>> numbers = np.zeros(1 + 4 * 6)
    >>> for t in range(1, 201):
    ...     update(p, p.copy(), delta, start, step=t, lr=1.0, numbers=numbers)    # the gradient of ‖p‖²/2
    >>> bool(abs(p).max() < 1e-3), bool(numbers[0] > 0.01)
    (True, True)
    """
    cls = getattr(update, "rule", None)
    if not callable(update) or not isinstance(cls, type):
        raise TypeError(f"update must be a function of fastlr.functional, such as adamw, got {update!r}")
    made = _mechanized(cls, betas=betas, s_init=s_init, s_decay=s_decay, eps=eps)
    return _function(f"mechanic_{update.__name__}", made)


adabelief = _function("adabelief", AdaBelief)
adadelta = _function("adadelta", Adadelta)
adafactor = _function("adafactor", Adafactor)
adagrad = _function("adagrad", Adagrad)
adahessian = _function("adahessian", AdaHessian)
adam = _function("adam", Adam)
adam_hd = _function("adam_hd", AdamHD)
adamax = _function("adamax", Adamax)
adamw = _function("adamw", AdamW)
adan = _function("adan", Adan)
ademamix = _function("ademamix", AdEMAMix)
adopt = _function("adopt", Adopt)
amsgrad = _function("amsgrad", AMSGrad)
asgd = _function("asgd", ASGD)
dadapt_adam = _function("dadapt_adam", DAdaptAdam)
dadapt_sgd = _function("dadapt_sgd", DAdaptSGD)
dog = _function("dog", DoG)
dowg = _function("dowg", DoWG)
lamb = _function("lamb", LAMB)
ftrl = _function("ftrl", FTRL)
laprop = _function("laprop", LaProp)
lazy_adam = _function("lazy_adam", LazyAdam)
lars = _function("lars", LARS)
ldog = _function("ldog", LDoG)
lion = _function("lion", Lion)
madgrad = _function("madgrad", MADGRAD)
muon = _function("muon", Muon)
nadam = _function("nadam", NAdam)
novograd = _function("novograd", NovoGrad)
prodigy = _function("prodigy", Prodigy)
qhadam = _function("qhadam", QHAdam)
qhm = _function("qhm", QHM)
radam = _function("radam", RAdam)
rmsprop = _function("rmsprop", RMSprop)
rprop = _function("rprop", Rprop)
row_adagrad = _function("row_adagrad", RowAdagrad)
schedule_free_adamw = _function("schedule_free_adamw", ScheduleFreeAdamW)
schedule_free_sgd = _function("schedule_free_sgd", ScheduleFreeSGD)
sgd = _function("sgd", SGD)
sgd_hd = _function("sgd_hd", SGDHD)
sign_sgd = _function("sign_sgd", SignSGD)
signum = _function("signum", Signum)
sparse_adam = _function("sparse_adam", SparseAdam)
sophia = _function("sophia", Sophia)
stable_adamw = _function("stable_adamw", StableAdamW)
yogi = _function("yogi", Yogi)

BY_RULE: dict[type[Optimizer], Callable[..., None]] = {
    update.rule: update for update in map(globals().__getitem__, __all__) if update is not mechanize
}
"""The function of each class."""
