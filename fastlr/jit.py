"""The kernels inside functions that Numba compiles: whole training loops without Python. Needs ``fastlr-kernels[jit]``.

What `update` returns calls the kernel by address: the rule is not compiled again, and has the same bits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from fastlr import _core
from fastlr.custom import Custom
from fastlr.extras import need
from fastlr.groups import Group
from fastlr.hyper import is_scheduled
from fastlr.optimizer import Optimizer

numba = need("numba", "jit", "fastlr.jit")
extending = need("numba.extending", "jit", "fastlr.jit")
llvm = need("llvmlite.binding", "jit", "fastlr.jit")

_t = numba.types
_DTYPES = {_t.float32: 0, _t.float64: 1}
_WANTED = "p, g and the states must be C-contiguous arrays of one type, float32 or float64"


def _external(name: str, result: Any, *arguments: Any) -> Any:
    """A function of _core.pxd, as a symbol that compiled code finds by its name."""
    symbol = f"fastlr_{name}"
    llvm.add_symbol(symbol, extending.get_cython_function_address("fastlr._core", name))
    return _t.ExternalFunction(symbol, result(*arguments))


# Pointers as integers: what arrays give. voidptr is what _name() gives.
_i, _u, _f = _t.int64, _t.uint64, _t.float64
_scratch_size = _external("scratch_size", _u, _u, _i)
_update_array = _external(
    "update_array", _t.int32, *(_t.voidptr, _t.int32, _u, *[_i] * 7), *(_i, *[_f] * 4, _i, _u), *(_i, _i, _u)
)


def _name(rule: str) -> Any:
    """A function that returns the rule's name as C has it."""

    @extending.intrinsic  # type: ignore[untyped-decorator]
    def name(typing: Any) -> Any:
        return _t.voidptr(), lambda context, builder, *_: context.insert_const_string(builder.module, rule)

    return name


def _kind(p: Any, g: Any, s: Any) -> int:
    """The dtype of arrays as fastlr.h has it. For compiled code, which finds out when it is compiled."""
    raise NotImplementedError


def _addresses(s: Any) -> Any:
    """Those of FASTLR_STATES arrays, 0 where there are fewer. For compiled code."""
    raise NotImplementedError


def _sized(s: Any, n: int) -> bool:
    """Whether each has n elements. For compiled code."""
    raise NotImplementedError


@extending.overload(_kind, strict=False)  # type: ignore[untyped-decorator]
def _(p: Any, g: Any, s: Any) -> Any:
    arrays = (p, g, *(s.types if isinstance(s, _t.BaseTuple) else (None,)))
    good = all(isinstance(a, _t.Array) and a.layout == "C" and a.dtype == p.dtype for a in arrays)
    if not good or p.dtype not in _DTYPES or not p.mutable:
        found = ", ".join(map(str, (p, g, s)))
        raise numba.errors.TypingError(f"{_WANTED}, and s a tuple of these; got {found}")
    kind = _DTYPES[p.dtype]
    return lambda p, g, s: kind


@extending.overload(_addresses, strict=False)  # type: ignore[untyped-decorator]
def _(s: Any) -> Any:
    return (
        lambda s: (0, 0, 0, 0, 0),
        lambda s: (s[0].ctypes.data, 0, 0, 0, 0),
        lambda s: (s[0].ctypes.data, s[1].ctypes.data, 0, 0, 0),
        lambda s: (s[0].ctypes.data, s[1].ctypes.data, s[2].ctypes.data, 0, 0),
        lambda s: (s[0].ctypes.data, s[1].ctypes.data, s[2].ctypes.data, s[3].ctypes.data, 0),
        lambda s: (s[0].ctypes.data, s[1].ctypes.data, s[2].ctypes.data, s[3].ctypes.data, s[4].ctypes.data),
    )[len(s)]


@extending.overload(_sized, strict=False)  # type: ignore[untyped-decorator]
def _(s: Any, n: Any) -> Any:
    if len(s) == 0:
        return lambda s, n: True

    def sized(s: Any, n: Any) -> bool:
        same = True
        for a in s:
            same &= a.size == n
        return same

    return sized


def update(optimizer: type[Optimizer], **hyper: Any) -> Callable[..., None]:
    """A function for compiled loops that makes one step by an optimizer's kernel.

    Parameters
    ----------
    optimizer : type
        The class, such as `fastlr.AdamW`, or one that `fastlr.rule` made. Not one whose rule keeps numbers from step to
        step (Prodigy), takes a Hessian, or is not one pass over the elements (Adafactor, Muon).
    **hyper
        Its hyper-parameters but for `lr`: numbers, checked as the class checks them.

    Returns
    -------
    function
        ``step(p, g, s, t, lr, scale=1.0)``, compiled: p is updated in place by the gradients g times `scale`, and so is
        its state, the arrays in the tuple s, in the order of the class; what they start with is the caller's business.
        t counts from 1. C-contiguous arrays of one type, float32 or float64, and one size, that do not overlap: the
        last is not checked. It raises ValueError, before it writes, if sizes differ or numbers are not finite in the
        arrays' type. Steps run on `fastlr.get_num_threads` threads.

    Examples
    --------
    >>> import fastlr, fastlr.jit, numba, numpy as np
    >>> step = fastlr.jit.update(fastlr.AdamW, weight_decay=0)
    >>> @numba.njit
    ... def descend(p, steps):
    ...     m, v = np.zeros_like(p), np.zeros_like(p)
    ...     for t in range(1, steps + 1):
    ...         step(p, 2 * p, (m, v), t, 0.01)
    ...     return p
    >>> descend(np.ones(2), 500).round(3)
    array([0., 0.])
    """
    defaults = {
        key: x.default for key, x in inspect.signature(optimizer).parameters.items() if key in optimizer.checks()
    }
    group = Group("", optimizer.checks(), {**defaults, "lr_scale": 1.0, **hyper, "lr": 0.0}, [False])
    for name, x in group:
        if is_scheduled(x):
            raise TypeError(f"{name} must be a number: give what changes to the function that this returns")
    group.check()
    rule, states = optimizer.variant([group])
    if issubclass(optimizer, Custom):
        for kind in "fd":  # what arrays will be is not known yet
            optimizer.compile(kind)
    if not _core.embeds(rule) or optimizer.per_row:
        raise TypeError(f"optimizer must be one whose rule is one pass over p, g and states, got {optimizer.__name__}")
    l2, decay = map(float, optimizer.decay(group))
    numbers = np.array(optimizer.kernel(group), np.float64)
    count, hypers, name = len(states), len(numbers), _name(rule)

    def step(p: Any, g: Any, s: Any, t: int, lr: float, scale: float = 1.0) -> None:
        kind = _kind(p, g, s)
        if len(s) != count:
            raise ValueError("s must be a tuple with each of the rule's states")
        if g.size != p.size or not _sized(s, p.size):
            raise ValueError("p, g and the states must have one size")
        a = _addresses(s)
        room = _scratch_size(1, np.array([p.size]).ctypes.data)
        scratch = np.empty(room, np.uint8)
        status = _update_array(
            *(
                name(),
                kind,
                p.size,
                p.ctypes.data,
                g.ctypes.data,
                a[0],
                a[1],
                a[2],
                a[3],
                a[4],
                t,
                lr,
                scale,
                l2,
                decay,
            ),
            *(numbers.ctypes.data, hypers, 0, scratch.ctypes.data, room),
        )
        if status != 0:
            raise ValueError("t must be >= 1, and lr and scale finite in the arrays' type")

    step.__name__ = step.__qualname__ = f"step_{rule}"
    return numba.njit(step)  # type: ignore[no-any-return]
