"""NumPy as one writes it who cares: in place, no temporaries but two that are kept. Single-threaded, as NumPy is."""

from __future__ import annotations

import math

import numpy as np

from bench.cases import Array, Case
from bench.engines.base import Engine, Step


class Numpy(Engine):
    name = "numpy"

    @staticmethod
    def supports(case: Case) -> bool:
        return case.spec.function in UPDATES

    def setup(self, case: Case, p: Array, g: Array) -> Step:
        self.place(p, g)
        self.hyper = {"momentum": 0.0, "nesterov": False, "centered": False, "weight_decay": 0.0, **case.hyper}
        self.state = [np.zeros_like(p) for _ in range(case.spec.states)]
        self.scratch = np.empty_like(p), np.empty_like(p)
        self.t = 0
        update = UPDATES[case.spec.function]

        def step() -> None:
            self.t += 1
            update(self, **self.hyper)

        return step


def _average(old: Array, new: Array, beta: float, scratch: Array) -> None:
    old *= beta
    old += np.multiply(new, 1 - beta, out=scratch)


def _sgd(e: Numpy, lr: float, momentum: float, nesterov: bool, **_: object) -> None:
    a, _b = e.scratch
    if not momentum:
        e.p -= np.multiply(e.g, lr, out=a)
        return
    (b,) = e.state
    b *= momentum
    b += e.g
    if nesterov:
        np.multiply(b, momentum, out=a)
        a += e.g
        a *= lr
    else:
        np.multiply(b, lr, out=a)
    e.p -= a


def _adagrad(e: Numpy, lr: float, eps: float, **_: object) -> None:
    (s,), (a, b) = e.state, e.scratch
    s += np.multiply(e.g, e.g, out=a)
    np.sqrt(s, out=a)
    a += eps
    np.divide(e.g, a, out=b)
    b *= lr
    e.p -= b


def _rmsprop(e: Numpy, lr: float, alpha: float, eps: float, momentum: float, centered: bool, **_: object) -> None:
    v, *rest = e.state
    a, b = e.scratch
    _average(v, np.multiply(e.g, e.g, out=a), alpha, b)
    if centered:
        mean = rest.pop(0)
        _average(mean, e.g, alpha, b)
        np.subtract(v, np.multiply(mean, mean, out=a), out=a)
        np.sqrt(a, out=a)
    else:
        np.sqrt(v, out=a)
    a += eps
    np.divide(e.g, a, out=b)
    if momentum:
        (buffer,) = rest
        buffer *= momentum
        buffer += b
        np.multiply(buffer, lr, out=b)
    else:
        b *= lr
    e.p -= b


def _adam(e: Numpy, lr: float, betas: tuple[float, float], eps: float, weight_decay: float, **_: object) -> None:
    m, v, *largest = e.state
    a, b = e.scratch
    c1, c2 = 1 - betas[0] ** e.t, 1 - betas[1] ** e.t
    if weight_decay:
        e.p *= 1 - lr * weight_decay
    _average(m, e.g, betas[0], a)
    _average(v, np.multiply(e.g, e.g, out=b), betas[1], a)
    if largest:
        v = np.maximum(largest[0], v, out=largest[0])
    np.sqrt(v, out=a)
    a += eps * math.sqrt(c2)
    np.divide(m, a, out=b)
    b *= lr * math.sqrt(c2) / c1
    e.p -= b


def _corrected(e: Numpy, m: Array, v: Array, lr: float, betas: tuple[float, float], eps: float) -> None:
    """The step of Adam with these moments."""
    a, b = e.scratch
    c1, c2 = 1 - betas[0] ** e.t, 1 - betas[1] ** e.t
    np.sqrt(v, out=a)
    a += eps * math.sqrt(c2)
    np.divide(m, a, out=b)
    b *= lr * math.sqrt(c2) / c1
    e.p -= b


def _adabelief(e: Numpy, lr: float, betas: tuple[float, float], eps: float, **_: object) -> None:
    (m, s), (a, b) = e.state, e.scratch
    _average(m, e.g, betas[0], a)
    np.subtract(e.g, m, out=b)
    _average(s, np.multiply(b, b, out=b), betas[1], a)
    s += eps
    _corrected(e, m, s, lr, betas, eps)


def _qhadam(e: Numpy, lr: float, betas: tuple[float, float], nus: tuple[float, float], eps: float, **_: object) -> None:
    (m, v), (a, b) = e.state, e.scratch
    k1, k2 = nus[0] / (1 - betas[0] ** e.t), nus[1] / (1 - betas[1] ** e.t)
    _average(m, e.g, betas[0], a)
    _average(v, np.multiply(e.g, e.g, out=b), betas[1], a)
    b *= 1 - nus[1]
    b += np.multiply(v, k2, out=a)
    np.sqrt(b, out=b)
    b += eps
    np.multiply(m, k1, out=a)
    a /= b
    e.p -= np.multiply(a, lr, out=a)
    np.multiply(e.g, 1 - nus[0], out=a)
    a /= b
    e.p -= np.multiply(a, lr, out=a)


def _adan(e: Numpy, lr: float, betas: tuple[float, float, float], eps: float, **_: object) -> None:
    (m, d, n, last), (a, b) = e.state, e.scratch
    c1, c2, c3 = (1 - beta**e.t for beta in betas)
    _average(m, e.g, betas[0], a)
    np.subtract(e.g, e.g if e.t == 1 else last, out=b)
    _average(d, b, betas[1], a)
    b *= betas[1]
    b += e.g
    _average(n, np.multiply(b, b, out=b), betas[2], a)
    np.copyto(last, e.g)
    np.sqrt(n, out=a)
    a += eps * math.sqrt(c3)
    np.multiply(d, betas[1] * c1 / c2, out=b)
    b += m
    b /= a
    e.p -= np.multiply(b, lr * math.sqrt(c3) / c1, out=b)


def _laprop(e: Numpy, lr: float, betas: tuple[float, float], eps: float, **_: object) -> None:
    (m, v), (a, b) = e.state, e.scratch
    c1, c2 = 1 - betas[0] ** e.t, 1 - betas[1] ** e.t
    _average(v, np.multiply(e.g, e.g, out=b), betas[1], a)
    np.sqrt(v, out=a)
    a += eps * math.sqrt(c2)
    np.divide(e.g, a, out=b)
    b *= lr * math.sqrt(c2)
    _average(m, b, betas[0], a)
    e.p -= np.multiply(m, 1 / c1, out=a)


def _qhm(e: Numpy, lr: float, momentum: float, nu: float, **_: object) -> None:
    (buffer,), (a, _b) = e.state, e.scratch
    _average(buffer, e.g, momentum, a)
    e.p -= np.multiply(buffer, lr * nu, out=a)
    e.p -= np.multiply(e.g, lr * (1 - nu), out=a)


def _yogi(e: Numpy, lr: float, betas: tuple[float, float], eps: float, **_: object) -> None:
    (m, v), (a, b) = e.state, e.scratch
    _average(m, e.g, betas[0], a)
    np.multiply(e.g, e.g, out=b)
    np.sign(np.subtract(v, b, out=a), out=a)
    a *= b
    v -= np.multiply(a, 1 - betas[1], out=a)
    _corrected(e, m, v, lr, betas, eps)


UPDATES = {
    "sgd": _sgd,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "adam": _adam,
    "adamw": _adam,
    "amsgrad": _adam,
    "adabelief": _adabelief,
    "adan": _adan,
    "laprop": _laprop,
    "qhm": _qhm,
    "qhadam": _qhadam,
    "yogi": _yogi,
}
