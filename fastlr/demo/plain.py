"""The six rules in plain NumPy, as whole-array expressions: what one writes without fastlr, for comparison.

Each takes parameters `p`, which it updates in place, gradients `g`, a dict of state that starts empty, the 1-based
number of the step `t` and hyper-parameters with the names and defaults of fastlr's class.
"""

from __future__ import annotations

import numpy as np

from fastlr.buffers import Array

State = dict[str, Array]


def sgd(p: Array, g: Array, state: State, t: int, lr: float, momentum: float = 0.0, nesterov: bool = False) -> None:
    if not momentum:
        p -= lr * g
        return
    state["b"] = momentum * state["b"] + g if t > 1 else g.copy()
    p -= lr * (g + momentum * state["b"] if nesterov else state["b"])


def adagrad(p: Array, g: Array, state: State, t: int, lr: float, eps: float = 1e-10) -> None:
    state["s"] = state.get("s", 0) + g**2
    p -= lr * g / (np.sqrt(state["s"]) + eps)


def rmsprop(p: Array, g: Array, state: State, t: int, lr: float, alpha: float = 0.99, eps: float = 1e-8) -> None:
    state["v"] = alpha * state.get("v", 0) + (1 - alpha) * g**2
    p -= lr * g / (np.sqrt(state["v"]) + eps)


def adam(
    p: Array, g: Array, state: State, t: int, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> None:
    b1, b2 = betas
    state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
    state["v"] = b2 * state.get("v", 0) + (1 - b2) * g**2
    m_hat = state["m"] / (1 - b1**t)
    v_hat = state["v"] / (1 - b2**t)
    p -= lr * m_hat / (np.sqrt(v_hat) + eps)


def adamw(
    p: Array,
    g: Array,
    state: State,
    t: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> None:
    p *= 1 - lr * weight_decay
    adam(p, g, state, t, lr, betas, eps)


def amsgrad(
    p: Array, g: Array, state: State, t: int, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> None:
    b1, b2 = betas
    state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
    state["v"] = b2 * state.get("v", 0) + (1 - b2) * g**2
    state["x"] = np.maximum(state.get("x", 0), state["v"])
    m_hat = state["m"] / (1 - b1**t)
    x_hat = state["x"] / (1 - b2**t)
    p -= lr * m_hat / (np.sqrt(x_hat) + eps)
