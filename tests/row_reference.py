"""The rules for rows in NumPy, as the papers write them: of one row, which is given the sum of its gradients.

As in tests/reference.py, nothing of fastlr is imported and nothing is rearranged; but here all is written as a loop
over rows and occurrences, where the kernels sort.

    p, state = rule(p, g, state, t, lr=..., ...)        p, g: a row; state: dict of its state
"""

from __future__ import annotations

import numpy as np

from tests import reference


def summed(rows, grads):
    """{row: the sum of its gradients}: in float64, in the order of occurrence, rounded to their type once."""
    sums = {}
    for row, g in zip(rows.tolist(), grads, strict=True):
        sums[row] = sums[row] + g.astype(np.float64) if row in sums else g.astype(np.float64)
    return {row: g.astype(grads.dtype) for row, g in sums.items()}


def sparse_adam(p, g, state, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Kingma & Ba (2015), end of section 2: epsilon-hat."""
    b1, b2 = betas
    g = reference.coupled(p, g, weight_decay)
    m = b1 * state["m"] + (1 - b1) * g
    v = b2 * state["v"] + (1 - b2) * (g * g)
    rate = lr * np.sqrt(1 - b2**t) / (1 - b1**t)
    return p - rate * (m / (np.sqrt(v) + eps)), {"m": m, "v": v}


def lazy_adam(p, g, state, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Kingma & Ba (2015), Algorithm 1, after as many steps with a gradient of 0 that leave p alone as the row
    missed."""
    b1, b2 = betas
    m, v = state["m"], state["v"]
    for _ in range(t - 1 - state["l"]):
        m, v = b1 * m, b2 * v
    g = reference.coupled(p, g, weight_decay)
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * (g * g)
    return p - lr * (m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)), {"m": m, "v": v, "l": t}


def row_adagrad(p, g, state, t, *, lr=1e-2, lr_decay=0.0, eps=1e-10, weight_decay=0.0, initial_accumulator_value=0.0):
    """Gupta, Bengio & Weston (2014); FBGEMM: the mean of squares over the row."""
    g = reference.coupled(p, g, weight_decay)
    s = state["s"] + np.mean(g * g)
    return p - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(s) + eps), {"s": s}


def adagrad(p, g, state, t, **hyper):
    return reference.adagrad(p, g, state, t, **hyper)


def sgd(p, g, state, t, **hyper):
    return reference.sgd(p, g, state, t, **hyper)


def ftrl(p, g, state, t, **hyper):
    return reference.ftrl(p, g, state, t, **hyper)
