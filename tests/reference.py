"""The update rules in NumPy, as the papers write them: what every other implementation is compared with.

Nothing of fastlr is imported, and nothing is rearranged: `m / (1 - b1**t)`, not the kernels' order. Each rule is one
function, all with one signature:

    p, state = adamw(
        p, g, state, t, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, maximize=False, grad_scale=1.0
    )

    p, g          arrays of one shape; narrower than float64 is widened to it, anything else computes in its own type
    state         dict of arrays by fastlr's letters (below); what it lacks is as before the first step, so {} starts
    t             number of this update, from 1
    hypers        keyword only; names and defaults are torch's. lr has torch's default too
    maximize      use -g
    grad_scale    multiplies g before all else
    return        new parameters and a new state; nothing given is written

State: sgd `b` (only with momentum); adagrad `s`; rmsprop `v`, with centered `a`, with momentum `b`; adam, adamw and
radam `m`, `v`; amsgrad `m`, `v`, `x`; adamax `m`, `n`; adadelta `v`, `d`; signum and lion `m`. Weight decay is added
to the gradient (g + λp); in adamw and the sign rules it is taken off the parameters (ηλp).

As in the kernels, overflow gives inf and a root of what is negative NaN, without a warning.
"""

import functools

import numpy as np


def rule(function):
    """Widens the arguments, scales and negates the gradient, and silences what IEEE arithmetic defines."""

    @functools.wraps(function)
    def call(p, g, state, t, *, maximize=False, grad_scale=1.0, **hyper):
        p, g, state = wide(p), wide(g), {key: wide(x) for key, x in state.items()}
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            if grad_scale != 1:
                g = grad_scale * g
            if maximize:
                g = -g
            return function(p, g, state, t, **hyper)

    return call


def wide(x):
    """`x` in float64 at least; number types that are not NumPy's stay what they are."""
    return np.asarray(x, np.result_type(x, np.float64)) if isinstance(x, np.ndarray | np.generic) else x


def coupled(p, g, weight_decay):
    """The gradient of the loss plus λ/2 ‖p‖². Without decay an infinite p must not matter."""
    return g + weight_decay * p if weight_decay != 0 else g


def decoupled(p, move, lr, weight_decay):
    """The move with decay of the parameters themselves."""
    return move + lr * weight_decay * p if weight_decay != 0 else move


@rule
def sgd(p, g, state, t, *, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    """Polyak (1964); Nesterov as in Sutskever et al. (2013), in torch's form, with the rate outside the buffer."""
    g = coupled(p, g, weight_decay)
    if momentum == 0:
        return p - lr * g, dict(state)
    b = g if t == 1 else momentum * state["b"] + (1 - dampening) * g
    return p - lr * (g + momentum * b if nesterov else b), {"b": b}


@rule
def adagrad(p, g, state, t, *, lr=1e-2, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10):
    """Duchi, Hazan & Singer (2011), diagonal."""
    g = coupled(p, g, weight_decay)
    s = state.get("s", initial_accumulator_value) + g * g
    return p - lr / (1 + (t - 1) * lr_decay) * (g / (np.sqrt(s) + eps)), {"s": s}


@rule
def rmsprop(p, g, state, t, *, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False):
    """Tieleman & Hinton (2012), ε outside the root; centered: Graves (2013), equations 38 to 40."""
    g = coupled(p, g, weight_decay)
    v = alpha * state.get("v", 0.0) + (1 - alpha) * (g * g)
    new = {"v": v}
    if centered:
        new["a"] = a = alpha * state.get("a", 0.0) + (1 - alpha) * g
        d = g / (np.sqrt(v - a * a) + eps)
    else:
        d = g / (np.sqrt(v) + eps)
    if momentum != 0:
        new["b"] = d = momentum * state.get("b", 0.0) + d
    return p - lr * d, new


def moments(g, state, betas):
    """Biased first and second moment: Kingma & Ba (2015), Algorithm 1."""
    b1, b2 = betas
    m = b1 * state.get("m", 0.0) + (1 - b1) * g
    v = b2 * state.get("v", 0.0) + (1 - b2) * (g * g)
    return m, v


def direction(m, v, t, betas, eps):
    """Bias-corrected: the rest of Algorithm 1."""
    b1, b2 = betas
    return (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)


@rule
def adam(p, g, state, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Kingma & Ba (2015), Algorithm 1."""
    m, v = moments(coupled(p, g, weight_decay), state, betas)
    return p - lr * direction(m, v, t, betas, eps), {"m": m, "v": v}


@rule
def adamw(p, g, state, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
    """Loshchilov & Hutter (2019), Algorithm 2, line 12; the decay times the learning rate, as everyone has it."""
    m, v = moments(g, state, betas)
    move = lr * direction(m, v, t, betas, eps)
    return p - decoupled(p, move, lr, weight_decay), {"m": m, "v": v}


@rule
def amsgrad(p, g, state, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Reddi, Kale & Kumar (2018), Algorithm 2, with Adam's bias corrections; the maximum is over the uncorrected v."""
    m, v = moments(coupled(p, g, weight_decay), state, betas)
    x = np.maximum(state.get("x", 0.0), v)
    return p - lr * direction(m, x, t, betas, eps), {"m": m, "v": v, "x": x}


@rule
def adadelta(p, g, state, t, *, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0):
    """Zeiler (2012), Algorithm 1, times a rate."""
    g = coupled(p, g, weight_decay)
    v = rho * state.get("v", 0.0) + (1 - rho) * (g * g)
    old = state.get("d", 0.0)
    delta = np.sqrt(old + eps) / np.sqrt(v + eps) * g
    return p - lr * delta, {"v": v, "d": rho * old + (1 - rho) * (delta * delta)}


@rule
def adamax(p, g, state, t, *, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    """Kingma & Ba (2015), Algorithm 2; ε as torch has it."""
    g, (b1, b2) = coupled(p, g, weight_decay), betas
    m = b1 * state.get("m", 0.0) + (1 - b1) * g
    n = np.maximum(state.get("n", 0.0) * b2, abs(g) + eps)
    return p - lr / (1 - b1**t) * (m / n), {"m": m, "n": n}


@rule
def radam(p, g, state, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled_weight_decay=False):
    """Liu et al. (2020), Algorithm 2; ε as torch has it."""
    b1, b2 = betas
    m, v = moments(g if decoupled_weight_decay else coupled(p, g, weight_decay), state, betas)
    longest = 2 / (1 - b2) - 1
    length = longest - 2 * t * b2**t / (1 - b2**t)
    move = lr * (m / (1 - b1**t))
    if length > 5:
        r = np.sqrt(((length - 4) * (length - 2) * longest) / ((longest - 4) * (longest - 2) * length))
        move = move * r * (np.sqrt(1 - b2**t) / (np.sqrt(v) + eps))
    return p - decoupled(p, move, lr, weight_decay if decoupled_weight_decay else 0), {"m": m, "v": v}


@rule
def sign_sgd(p, g, state, t, *, lr=1e-4, weight_decay=0.0):
    """Bernstein et al. (2018), Algorithm 1."""
    return p - decoupled(p, lr * np.sign(g), lr, weight_decay), {}


@rule
def signum(p, g, state, t, *, lr=1e-4, beta=0.9, weight_decay=0.0):
    """Bernstein et al. (2018), Algorithm 2."""
    m = beta * state.get("m", 0.0) + (1 - beta) * g
    return p - decoupled(p, lr * np.sign(m), lr, weight_decay), {"m": m}


@rule
def lion(p, g, state, t, *, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
    """Chen et al. (2023), Algorithm 2."""
    (b1, b2), old = betas, state.get("m", 0.0)
    c = b1 * old + (1 - b1) * g
    return p - decoupled(p, lr * np.sign(c), lr, weight_decay), {"m": b2 * old + (1 - b2) * g}
