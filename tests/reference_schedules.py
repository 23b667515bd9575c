"""The schedules of other libraries, and the formulas of fastlr's own, from their sources: one step, plain Python.

Imports nothing of fastlr. Where a library's documentation and code differ, the code is what is written here.
"""

from __future__ import annotations

import bisect
import math

# ---- fastlr's own forms, from their docstrings ----------------------------------------------------------------------


def ramp(n, start, end, steps, left):
    u = min(n / steps, 1.0)
    return end + (start - end) * left(u)


LEFT = {
    "linear": lambda u: 1 - u,
    "cosine": lambda u: (1 + math.cos(math.pi * u)) / 2,
    "cosine(2)": lambda u: (1 + math.cos(math.pi * u**2)) / 2,
    "cosine(1, 3)": lambda u: ((1 + math.cos(math.pi * u)) / 2) ** 3,
    "polynomial(2)": lambda u: (1 - u) ** 2,
    "polynomial(0.5)": lambda u: (1 - u) ** 0.5,
    "polynomial(2, 3)": lambda u: (1 - u**3) ** 2,
    "power(3)": lambda u: 1 - u**3,
    "1-sqrt": lambda u: 1 - math.sqrt(u),
    "sqrt": lambda u: math.sqrt(1 - u),
    "exponential": lambda u: 1 - (1 - math.exp(-5 * u)) / (1 - math.exp(-5)),
    "exponential(2)": lambda u: 1 - (1 - math.exp(-2 * u)) / (1 - math.exp(-2)),
    "rex": lambda u: (1 - u) / (0.5 + 0.5 * (1 - u)),
    "rex(0.9)": lambda u: (1 - u) / (0.1 + 0.9 * (1 - u)),
    "tanh": lambda u: (1 - math.tanh(-7 * (1 - u) + 3 * u)) / 2,
    "tanh(-4, 2)": lambda u: (1 - math.tanh(-4 * (1 - u) + 2 * u)) / 2,
}


def time_based(start, rate, steps):
    values = [start]
    for n in range(steps - 1):
        values.append(values[-1] / (1 + rate * n))
    return values


def cyclical(n, low, high, up, down, scale):
    """Smith's formula, with the cycle counted from 1."""
    cycle = math.floor(1 + n / (up + down))
    x = 1 + n / (up + down) - cycle
    ratio = up / (up + down)
    f = x / ratio if x <= ratio else (x - 1) / (ratio - 1)
    return low + (high - low) * f * scale(cycle, n)


def restarts(n, start, end, period, mult, decay):
    """By whole numbers only."""
    at, size, i = 0, period, 0
    while n >= at + size:
        at, size, i = at + size, size * mult, i + 1
    return end + (start * decay**i - end) * (1 + math.cos(math.pi * (n - at) / size)) / 2


# ---- Hugging Face transformers, optimization.py ---------------------------------------------------------------------


def hf_warmup(n, warmup):
    return n / max(1, warmup)


def hf_linear(n, warmup, total):
    if n < warmup:
        return hf_warmup(n, warmup)
    return max(0.0, (total - n) / max(1, total - warmup))


def hf_progress(n, warmup, total):
    return (n - warmup) / max(1, total - warmup)


def hf_cosine(n, warmup, total, cycles=0.5):
    if n < warmup:
        return hf_warmup(n, warmup)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * cycles * 2.0 * hf_progress(n, warmup, total))))


def hf_restarts(n, warmup, total, cycles=1):
    if n < warmup:
        return hf_warmup(n, warmup)
    progress = hf_progress(n, warmup, total)
    if progress >= 1.0:
        return 0.0
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((cycles * progress) % 1.0))))


def hf_polynomial(n, warmup, total, lr, end=1e-7, power=1.0):
    if n < warmup:
        return hf_warmup(n, warmup)
    if n > total:
        return end / lr
    return ((lr - end) * (1 - (n - warmup) / (total - warmup)) ** power + end) / lr


def hf_inverse_sqrt(n, warmup, timescale=None):
    timescale = timescale or warmup or 10_000
    if n < warmup:
        return hf_warmup(n, warmup)
    return 1.0 / math.sqrt((n + timescale - warmup) / timescale)


def hf_min_lr(n, warmup, total, cycles, rate):
    if n < warmup:
        return hf_warmup(n, warmup)
    factor = 0.5 * (1.0 + math.cos(math.pi * cycles * 2.0 * hf_progress(n, warmup, total)))
    return max(0, factor * (1 - rate) + rate)


def hf_warmup_min_lr(n, warmup, total, cycles, rate, first):
    if n < warmup:
        if first is None:
            return (n + 1.0) / max(1.0, warmup)
        return first + (1.0 - first) * n / (warmup - 1)
    factor = 0.5 * (1.0 + math.cos(math.pi * cycles * 2.0 * hf_progress(n, warmup, total)))
    return max(0, factor * (1 - rate) + rate)


def hf_wsd(n, warmup, stable, decay, warmup_type, decay_type, least, cycles=0.5):
    def way(progress, kind):
        if kind == "linear":
            return progress
        if kind == "cosine":
            return 0.5 * (1.0 - math.cos(math.pi * progress))
        return math.sqrt(progress) if warmup_type == kind and n < warmup else None

    if n < warmup:
        return max(0.0, way(n / max(1, warmup), warmup_type) * (1.0 - least) + least)
    if n < warmup + stable:
        return 1.0
    if n < warmup + stable + decay:
        progress = (n - warmup - stable) / max(1, decay)
        left = {
            "linear": 1.0 - progress,
            "cosine": 0.5 * (1.0 + math.cos(math.pi * cycles * 2.0 * progress)),
            "1-sqrt": 1.0 - math.sqrt(progress),
        }[decay_type]
        return max(0.0, left * (1.0 - least) + least)
    return least


# ---- Keras, learning_rate_schedule.py -------------------------------------------------------------------------------


def keras_exponential(n, lr, steps, rate, staircase):
    p = n / steps
    return lr * rate ** (math.floor(p) if staircase else p)


def keras_piecewise(n, boundaries, values):
    return next((v for b, v in zip(boundaries, values, strict=False) if n <= b), values[-1])


def keras_polynomial(n, lr, steps, end, power, cycle):
    if cycle:
        steps = steps * (1.0 if n == 0 else math.ceil(n / steps))
    else:
        n = min(n, steps)
    return (lr - end) * (1 - n / steps) ** power + end


def keras_inverse_time(n, lr, steps, rate, staircase):
    p = n / steps
    return lr / (1 + rate * (math.floor(p) if staircase else p))


def keras_cosine(n, lr, steps, alpha, target, warmup):
    if target is not None and warmup and n < warmup:
        return lr + (target - lr) * n / warmup
    top = lr if target is None else target
    done = min(n - (warmup if target is not None else 0), steps) / steps
    return top * ((1 - alpha) * 0.5 * (1 + math.cos(math.pi * done)) + alpha)


def keras_restarts(n, lr, steps, t_mul, m_mul, alpha):
    at, size, i = 0.0, float(steps), 0
    while n >= at + size:
        at, size, i = at + size, size * t_mul, i + 1
    return lr * ((1 - alpha) * m_mul**i * 0.5 * (1 + math.cos(math.pi * (n - at) / size)) + alpha)


# ---- timm, scheduler/*.py -------------------------------------------------------------------------------------------


def timm_cycles(t, curve, lr, t_initial, lr_min, mul, decay, limit, warmup, init, prefix, warmed):
    """`curve(u, k-th power left to it)` from 1 to 0; `warmed` is what the warm-up goes to."""
    if t < warmup:
        return init + t * (warmed - init) / warmup
    if prefix:
        t -= warmup
    at, size, i = 0, t_initial, 0  # timm: floor(log(...)), which misses some restarts
    while t >= at + size:
        at, size, i = at + size, size * mul, i + 1
    if i >= limit:
        return lr_min
    return lr_min + (lr * decay**i - lr_min) * curve((t - at) / size)


def timm_step(t, lr, decay_t, rate, warmup, init, prefix):
    if t < warmup:
        return init + t * (lr - init) / warmup
    return lr * rate ** ((t - warmup if prefix else t) // decay_t)


def timm_multistep(t, lr, decay_t, rate, warmup, init, prefix):
    if t < warmup:
        return init + t * (lr - init) / warmup
    return lr * rate ** bisect.bisect_right(decay_t, (t - warmup if prefix else t) + 1)
