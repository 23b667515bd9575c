"""Schedules: a hyper-parameter as a pure function of the step.

>>> from fastlr import schedules as S
>>> s = S.cosine(3e-4, 3e-5, 10_000).warmup(500)
>>> s(500)
0.0003

One convention for all: ``s(n)`` is the value used by update n, counted from 0; a curve of `steps` updates reaches its
end at n = steps (``endpoint="exclusive"``) or at its last update (``"inclusive"``), and holds it. `Schedule` says what
can be done with one; `compat` has constructors that give other libraries' values, edges included.
"""

from fastlr.schedules import compat
from fastlr.schedules.curves import (
    constant,
    cosine,
    custom,
    cyclical,
    cyclical_custom,
    exponential,
    interpolate,
    inverse_sqrt,
    inverse_time,
    linear,
    multistep,
    natural_exponential,
    noam,
    noise,
    piecewise,
    polynomial,
    power_law,
    ramp,
    rex,
    step,
    tanh,
    time_based,
    warm_restarts,
)
from fastlr.schedules.feedback import Plateau, PlateauState
from fastlr.schedules.hyper import HyperSchedule
from fastlr.schedules.parse import parse
from fastlr.schedules.recipes import (
    cycle,
    flat_cosine,
    infinite,
    linear_to_zero,
    one_cycle,
    tri_stage,
    warmup_cosine,
    wsd,
)
from fastlr.schedules.schedule import Schedule

__all__ = [
    "HyperSchedule",
    "Plateau",
    "PlateauState",
    "Schedule",
    "compat",
    "constant",
    "cosine",
    "custom",
    "cycle",
    "cyclical",
    "cyclical_custom",
    "exponential",
    "flat_cosine",
    "infinite",
    "interpolate",
    "inverse_sqrt",
    "inverse_time",
    "linear",
    "linear_to_zero",
    "multistep",
    "natural_exponential",
    "noam",
    "noise",
    "one_cycle",
    "parse",
    "piecewise",
    "polynomial",
    "power_law",
    "ramp",
    "rex",
    "step",
    "tanh",
    "time_based",
    "tri_stage",
    "warm_restarts",
    "warmup_cosine",
    "wsd",
]
