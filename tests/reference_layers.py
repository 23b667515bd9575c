"""The rules of tests/reference.py that need sums over a tensor or a group: that is the array they get here.

What is said there holds here; numbers carried from step to step are in the state too, by name. Sums are of float64.
"""

import functools

import numpy as np

from tests.reference import adamw, caution, coupled, decoupled, direction, moments, rule

adamw_cautious = functools.partial(adamw, cautious=True)


def dot(x, y):
    one = x.astype(np.float64)
    return (one * (one if y is x else y.astype(np.float64))).sum()


def norm(x):
    return np.sqrt(dot(x, x))


@rule
def lars(
    p,
    g,
    state,
    t,
    *,
    lr=1.0,
    momentum=0.0,
    dampening=0.0,
    weight_decay=0.0,
    nesterov=False,
    trust_coeff=1e-3,
    eps=1e-8,
    trust_clip=False,
    always_adapt=False,
):
    """You, Gitman & Ginsburg (2017), Algorithm 1, as timm has it."""
    d = coupled(p, g, weight_decay)
    if weight_decay != 0 or always_adapt:
        r, long, steep = 1, norm(p), norm(g)
        if long > 0 and steep > 0:
            r = trust_coeff * long / (steep + weight_decay * long + eps)
        if trust_clip:
            # 1 where the rate is 0, as r / 0 is ∞.
            r = np.minimum(r / lr, 1) if lr != 0 else 1
        d = r * d
    if momentum == 0:
        return p - lr * d, dict(state)
    b = d if t == 1 else momentum * state["b"] + (1 - dampening) * d
    return p - lr * (d + momentum * b if nesterov else b), {"b": b}


@rule
def lamb(
    p,
    g,
    state,
    t,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-6,
    weight_decay=0.01,
    grad_averaging=True,
    trust_clip=False,
    always_adapt=False,
    bias_correction=True,
    max_norm=np.inf,
    cautious=False,
):
    """You et al. (2020), Algorithm 2, without clipping and γl; the options as timm and apex have them."""
    m, v = moments(g, state, betas)
    if not grad_averaging:
        m = betas[0] * state.get("m", 0.0) + g
    u = direction(m, v, t, betas, eps) if bias_correction else m / (np.sqrt(v) + eps)
    u = decoupled(p, caution(u, g, cautious), 1, weight_decay)
    r = 1
    if weight_decay != 0 or always_adapt:
        long, far = norm(p), norm(u)
        if long > 0 and far > 0:
            r = min(long, max_norm) / far
        if trust_clip:
            r = np.minimum(r, 1)
    return p - lr * (r * u), {"m": m, "v": v}


@rule
def novograd(p, g, state, t, *, lr=1e-3, betas=(0.95, 0.98), eps=1e-8, weight_decay=0.0, grad_averaging=False):
    """Ginsburg et al. (2019), Algorithm 1; v starts as in NVIDIA's code."""
    (b1, b2), v = betas, state.get("v", 0)
    v = dot(g, g) if v == 0 else b2 * v + (1 - b2) * dot(g, g)
    d = decoupled(p, g / (np.sqrt(v) + eps), 1, weight_decay)
    m = b1 * state.get("m", 0.0) + ((1 - b1) * d if grad_averaging else d)
    return p - lr * m, {"m": m, "v": v}


@rule
def stable_adamw(p, g, state, t, *, lr=1e-3, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.01):
    """Wortsman et al. (2023), Algorithm 2, with Adam's m and v, of which the paper's are the corrected ones."""
    m, v = moments(g, state, betas)
    surprise = (g * g) / np.maximum(v / (1 - betas[1] ** t), eps * eps)
    r = np.sqrt(surprise.astype(np.float64).sum() / g.size)
    rate = lr / np.maximum(1, r)
    return p - decoupled(p, rate * direction(m, v, t, betas, eps), rate, weight_decay), {"m": m, "v": v}


def follow(lr, g, u, x, hypergrad_lr, additive):
    """The rate by its hypergradient, and x of which it is made: Baydin et al. (2018)."""
    if additive:
        rate = np.maximum(lr + (x + hypergrad_lr * dot(g, u)), 0)
        return {"x": rate - lr, "rate": rate}
    steep, far = norm(g), norm(u)
    if steep > 0 and far > 0:
        x = x + hypergrad_lr * (dot(g, u) / (steep * far)) * (1 + x)
    return {"x": x, "rate": lr * (1 + x)}


@rule
def sgd_hd(p, g, state, t, *, lr=1e-3, momentum=0.0, weight_decay=0.0, hypergrad_lr=0.02, additive=False):
    """Baydin et al. (2018), Algorithm 4, with a heavy ball."""
    g = coupled(p, g, weight_decay)
    b = state.get("b", 0 * g)
    new = follow(lr, g, b, state.get("x", 0), hypergrad_lr, additive)
    b = momentum * b + g
    return p - new["rate"] * b, {"b": b, **new}


@rule
def adam_hd(
    p,
    g,
    state,
    t,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    hypergrad_lr=0.02,
    additive=False,
):
    """Baydin et al. (2018), Algorithm 6."""
    g = coupled(p, g, weight_decay)
    last = direction(state["m"], state["v"], t - 1, betas, eps) if t > 1 else 0 * g
    new = follow(lr, g, last, state.get("x", 0), hypergrad_lr, additive)
    m, v = moments(g, state, betas)
    return p - new["rate"] * direction(m, v, t, betas, eps), {"m": m, "v": v, **new}


@rule
def dog(p, g, state, t, *, lr=1.0, reps_rel=1e-6, eps=1e-8, weight_decay=0.0, averaging=None):
    """Ivgi, Hinder & Carmon (2023), as in the authors' code; r is that of the next step. Of a tensor, their L-DoG."""
    g = coupled(p, g, weight_decay)
    x0 = state.get("x0", p)
    r = state["r"] if "r" in state else reps_rel * (1 + norm(p))
    squares = state.get("G", eps) + dot(g, g)
    rate = lr * r / np.sqrt(squares)
    p = p - rate * g
    new = {"x0": x0, "r": np.maximum(r, norm(p - x0)), "G": squares, "rate": rate}
    if averaging is not None:
        weight = (1 + averaging) / (t + averaging)
        new["a"] = (1 - weight) * state.get("a", 0 * p) + weight * p
    return p, new


@rule
def dowg(p, g, state, t, *, lr=1.0, eps=1e-4, weight_decay=0.0):
    """Khaled, Mishchenko & Jin (2023), Algorithm 1, as in the authors' code; r is that of the next step, squared."""
    g = coupled(p, g, weight_decay)
    x0, r = state.get("x0", p), state.get("r", eps)
    squares = state.get("G", 0) + r * dot(g, g)
    rate = lr * (r / (np.sqrt(squares) + eps))
    p = p - rate * g
    return p, {"x0": x0, "r": np.maximum(r, dot(p - x0, p - x0)), "G": squares, "rate": rate}


@rule
def mechanic_adamw(
    p,
    g,
    state,
    t,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=1e-2,
    tuner_betas=(0.9, 0.5),
    s_init=0.5,
    s_decay=0.1,
    tuner_eps=0.01,
):
    """Cutkosky, Defazio & Mehta (2023), Algorithm 1, about AdamW; m begins as in the authors' code."""
    delta, start, scale = state.get("delta", 0 * g), state.get("start", p), state.get("scale", 0)
    h = dot(delta, g) + s_decay * scale * norm(g) / (norm(p) + tuner_eps) * dot(delta, p)
    moved, new = adamw(p, g, state, t, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    total, count = 0, len(tuner_betas)
    for k, b in enumerate(tuner_betas):
        s, r, v = (state.get(f"{name}{k}", 0) for name in "srv")
        m = np.maximum(b * (state[f"m{k}"] if t > 1 else 1 + 0 * b) / (1 if t > 1 else 10**6), abs(h))
        v = b * b * v + h * h
        r = np.maximum(b * r - s * h, 0)
        s = (m * s_init / count + r) / (np.sqrt(v) + tuner_eps)
        new |= {f"s{k}": s, f"r{k}": r, f"m{k}": m, f"v{k}": v}
        total = total + s
    delta = delta + (moved - p)
    return start + delta * total, {**new, "delta": delta, "start": start, "scale": total}
