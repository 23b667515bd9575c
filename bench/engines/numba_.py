"""Numba by hand: one fused loop a rule, split over threads by prange where there is enough to split."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import prange

from bench.cases import Array, Case
from bench.engines.base import Engine, Step

SERIAL = 32 * 1024  # elements below which starting the threads costs more than they save


def sgd(p, g, lr):
    for i in prange(p.size):
        p[i] -= lr * g[i]


def momentum(p, g, b, lr, mu):
    for i in prange(p.size):
        b[i] = mu * b[i] + g[i]
        p[i] -= lr * b[i]


def nesterov(p, g, b, lr, mu):
    for i in prange(p.size):
        b[i] = mu * b[i] + g[i]
        p[i] -= lr * (g[i] + mu * b[i])


def adagrad(p, g, s, lr, eps):
    for i in prange(p.size):
        s[i] += g[i] * g[i]
        p[i] -= lr * g[i] / (np.sqrt(s[i]) + eps)


def rmsprop(p, g, v, lr, a, eps):
    for i in prange(p.size):
        v[i] += a * (g[i] * g[i] - v[i])
        p[i] -= lr * g[i] / (np.sqrt(v[i]) + eps)


def rmsprop_centered_momentum(p, g, v, mean, b, lr, a, eps, mu):
    for i in prange(p.size):
        v[i] += a * (g[i] * g[i] - v[i])
        mean[i] += a * (g[i] - mean[i])
        b[i] = mu * b[i] + g[i] / (np.sqrt(v[i] - mean[i] * mean[i]) + eps)
        p[i] -= lr * b[i]


def adam(p, g, m, v, rate, a1, a2, eps, decay):
    for i in prange(p.size):
        m[i] += a1 * (g[i] - m[i])
        v[i] += a2 * (g[i] * g[i] - v[i])
        p[i] -= rate * m[i] / (np.sqrt(v[i]) + eps) + decay * p[i]


def amsgrad(p, g, m, v, x, rate, a1, a2, eps, decay):
    for i in prange(p.size):
        m[i] += a1 * (g[i] - m[i])
        v[i] += a2 * (g[i] * g[i] - v[i])
        x[i] = max(x[i], v[i])
        p[i] -= rate * m[i] / (np.sqrt(x[i]) + eps) + decay * p[i]


def _fixed(*names: str) -> Callable[[dict[str, Any], int], tuple[float, ...]]:
    return lambda hyper, t: tuple(1 - hyper[n] if n == "alpha" else hyper[n] for n in names)


def _adam_scalars(hyper: dict[str, Any], t: int) -> tuple[float, ...]:
    (b1, b2), lr = hyper["betas"], hyper["lr"]
    c2 = math.sqrt(1 - b2**t)
    return lr * c2 / (1 - b1**t), 1 - b1, 1 - b2, hyper["eps"] * c2, lr * hyper.get("weight_decay", 0.0)


# rule: (loop, its scalars at step t)
LOOPS = {
    "sgd": (sgd, _fixed("lr")),
    "momentum": (momentum, _fixed("lr", "momentum")),
    "nesterov": (nesterov, _fixed("lr", "momentum")),
    "adagrad": (adagrad, _fixed("lr", "eps")),
    "rmsprop": (rmsprop, _fixed("lr", "alpha", "eps")),
    "rmsprop_centered_momentum": (rmsprop_centered_momentum, _fixed("lr", "alpha", "eps", "momentum")),
    "adam": (adam, _adam_scalars),
    "adamw": (adam, _adam_scalars),
    "amsgrad": (amsgrad, _adam_scalars),
}


class Numba(Engine):
    name = "numba"

    @staticmethod
    def supports(case: Case) -> bool:
        return case.rule in LOOPS

    def setup(self, case: Case, p: Array, g: Array) -> Step:
        numba.set_num_threads(min(case.threads, numba.config.NUMBA_NUM_THREADS))
        self.place(p, g)
        loop, scalars = LOOPS[case.rule]
        parallel = case.threads > 1 and case.size >= SERIAL
        # The "numpy" error model: without a check for zero before each division the loop vectorises.
        update = numba.njit(loop, parallel=parallel, error_model="numpy")
        buffers = (self.p, self.g, *(np.zeros_like(p) for _ in range(case.spec.states)))
        real, hyper, t = p.dtype.type, case.hyper, 0

        def step() -> None:
            nonlocal t
            t += 1
            update(*buffers, *map(real, scalars(hyper, t)))

        return step
