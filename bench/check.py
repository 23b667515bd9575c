"""The check before the clock: a few steps of every engine against the float64 reference, element by element.

Adafactor's step depends on two norms of the whole tensor. torch sums these in float32, of 16 Mi elements to 1e-3: forty
times what an element may be off by. So the reference is given the engine's own norms, where it has any, and all else
must agree as it must elsewhere; the norms themselves with what a sum in float32 can be off by; `norm_error` is printed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from unittest import mock

import numpy as np

from bench.cases import PERIOD, Array, Case, period
from bench.engines.base import Engine, Step

# The gradient of each step, as a multiple of the data's: they differ in sign and size, so that momentum that is
# forgotten, a maximum taken over another quantity or a wrong bias correction shows.
FACTORS = (1.0, -0.5, 0.25)

# For rules that find their rate: it grows where the gradients agree.
AGREEING = (1.0, 0.5, 0.25)


def factors(case: Case) -> tuple[float, ...]:
    return AGREEING if case.spec.whole else FACTORS


# Of an element's path, the sum of its moves; plus four ulps of the parameter, each step rounding it once or twice. The
# peers' float32 bias corrections (DeepSpeed, optax: 1 - 0.999f is off by 1e-5) set the first.
OF_PATH = {"float32": 2e-5, "float64": 1e-10}
ULPS = 4


@functools.lru_cache(maxsize=16)
def _expected(rule: str, size: int, dtype: str, norm: Callable[[Array], float] | None = None) -> tuple[Array, Array]:
    """Where one period of the parameters ends, all with a rule that sums, and how far each may be from there."""
    from tests import reference, reference_layers

    case = Case(rule, size, dtype)
    function = case.spec.function
    update = getattr(reference, function, None) or getattr(reference_layers, function)
    start, g = (np.resize(x, size).reshape(case.shape) for x in period(case))
    p, state = start.astype(np.float64), {}
    path, ulp = np.zeros_like(p), np.spacing(np.abs(start))

    def rms(x: Array) -> float:
        return exact(x) if norm is None else norm(x.astype(dtype)) / math.sqrt(x.size)

    exact = reference.rms
    given = {"hessian": g.astype(np.float64)} if case.spec.informed else {}
    for t, factor in enumerate(factors(case), start=1):
        before = p
        with mock.patch.object(reference, "rms", rms):
            p, state = update(before, factor * g.astype(np.float64), state, t, **case.hyper, **given)
        path += np.abs(p - before)
        ulp = np.maximum(ulp, np.spacing(np.abs(p).astype(dtype)))
    return p.reshape(-1), (OF_PATH[dtype] * path + ULPS * ulp).reshape(-1)


def norm_error(case: Case, engine: Engine) -> float:
    """What part of the norm of the case's parameters the engine's own is off by; 0 if its steps need none."""
    if engine.norm is None or not case.spec.matrix:
        return 0.0
    p = np.resize(period(case)[0], case.size)
    exact = math.sqrt(np.sum(np.square(p, dtype=np.float64)))
    return abs(engine.norm(p) / exact - 1)


# A sum of n squares in the lanes of a vector, no fewer than four, is off by half an ulp an addition; the root by half.
LANES = 4


def most_norm_error(case: Case) -> float:
    return case.size / LANES * float(np.finfo(case.dtype).eps) / 4


def excess(case: Case, params: Array, norm: Callable[[Array], float] | None = None) -> float:
    """The largest error of the parameters after the steps of `FACTORS`, in tolerances; 1 is still right."""
    size = case.size if case.spec.survey or case.spec.whole else min(case.size, PERIOD)
    expected, tolerance = _expected(case.rule, size, case.dtype, norm)
    if params.shape != (case.size,) or params.dtype != case.dtype:
        return math.inf
    worst = 0.0
    for first in range(0, case.size, max(size, 1)):
        part = params[first : first + size]
        error = np.max(np.abs(part - expected[: part.size]) / tolerance[: part.size])
        worst = max(worst, float(error) if error == error else math.inf)
    return worst


def verify(case: Case, engine: Engine, step: Step, g: Array) -> float:
    """Runs the steps on a fresh engine and returns `excess`."""
    for factor in factors(engine.checked_as(case)):
        engine.gradient(g * g.dtype.type(factor))
        step()
    norm = engine.norm if case.spec.matrix else None
    if norm_error(case, engine) > most_norm_error(case):
        return math.inf
    return excess(engine.checked_as(case), engine.params(), norm)
