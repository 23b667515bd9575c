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

State: sgd `b` (only with momentum); adagrad `s`; rmsprop `v`, with centered `a`, with momentum `b`; adam, adamw, radam,
adopt, qhadam and yogi `m`, `v`; amsgrad `m`, `v`, `x`; adamax `m`, `n`; adadelta `v`, `d`; adabelief `m`, `s`; ademamix
`m`, `n`, `v`; adan `m`, `d`, `n`, `last`; qhm `b`; rprop `s`, `last`; madgrad `s`, `v`, `x0`; laprop `m`, `v` and the
number `rates`; nadam `m`, `v` and the number `product`; signum and lion `m`. Weight decay is added to the gradient
(g + λp); in ademamix, adamw, adan, laprop and the sign rules it is taken off the parameters (ηλp);
`decoupled_weight_decay` chooses.
`eps_mode` "keras" puts ε where Keras or TensorFlow have it.

As in the kernels, overflow gives inf and a root of what is negative NaN, without a warning.
"""

import functools

import numpy as np


def rule(function):
    """Widens the arguments, scales and negates the gradient, and silences what IEEE arithmetic defines."""

    @functools.wraps(function)
    def call(p, g, state, t, *, maximize=False, grad_scale=1.0, **hyper):
        p, g, state = wide(p), wide(g), {key: wide(x) for key, x in state.items()}
        hyper |= {key: wide(x) for key, x in hyper.items() if key == "hessian"}
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


def fading(b):
    """b, where it is the factor of a running average: numbers with error bounds charge it as that."""
    return b.as_factor() if hasattr(b, "as_factor") else b


def coupled(p, g, weight_decay):
    """The gradient of the loss plus λ/2 ‖p‖². Without decay an infinite p must not matter."""
    return g + weight_decay * p if weight_decay != 0 else g


def decoupled(p, move, lr, weight_decay):
    """The move with decay of the parameters themselves."""
    return move + lr * weight_decay * p if weight_decay != 0 else move


def caution(u, g, cautious):
    """Liang et al. (2024), as in their code: u where it has g's sign, over the share of these, 1/1000 or more."""
    if not cautious:
        return u
    mask = np.heaviside(np.sign(u) * np.sign(g), 0)  # not of u g, which underflows
    return u * mask * (1000 * g.size / np.maximum(1000 * mask.astype(np.float64).sum(), g.size))


@rule
def sgd(p, g, state, t, *, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, cautious=False):
    """Polyak (1964); Nesterov as in Sutskever et al. (2013), in torch's form, with the rate outside the buffer."""
    g = coupled(p, g, weight_decay)
    if momentum == 0:
        return p - lr * g, dict(state)
    b = g if t == 1 else momentum * state["b"] + (1 - dampening) * g
    return p - lr * caution(g + momentum * b if nesterov else b, g, cautious), {"b": b}


@rule
def adagrad(
    p,
    g,
    state,
    t,
    *,
    lr=1e-2,
    lr_decay=0.0,
    weight_decay=0.0,
    initial_accumulator_value=0.0,
    eps=1e-10,
    eps_mode="torch",
):
    """Duchi, Hazan & Singer (2011), diagonal."""
    g = coupled(p, g, weight_decay)
    s = state.get("s", initial_accumulator_value) + g * g
    root = np.sqrt(s + eps) if eps_mode == "keras" else np.sqrt(s) + eps
    return p - lr / (1 + (t - 1) * lr_decay) * (g / root), {"s": s}


@rule
def rmsprop(
    p,
    g,
    state,
    t,
    *,
    lr=1e-2,
    alpha=0.99,
    eps=1e-8,
    weight_decay=0.0,
    momentum=0.0,
    centered=False,
    initial_accumulator_value=0.0,
    eps_mode="torch",
):
    """Tieleman & Hinton (2012), ε outside the root; centered: Graves (2013), equations 38 to 40, ε inside as there."""
    g = coupled(p, g, weight_decay)
    v = alpha * state.get("v", initial_accumulator_value) + (1 - alpha) * (g * g)
    new = {"v": v}
    if centered:
        new["a"] = a = alpha * state.get("a", 0.0) + (1 - alpha) * g
        variance = v - a * a
    else:
        variance = v
    d = g / (np.sqrt(variance + eps) if eps_mode == "keras" else np.sqrt(variance) + eps)
    if momentum != 0:
        new["b"] = d = momentum * state.get("b", 0.0) + d
    return p - lr * d, new


def moments(g, state, betas):
    """Biased first and second moment: Kingma & Ba (2015), Algorithm 1."""
    b1, b2 = betas
    m = b1 * state.get("m", 0.0) + (1 - b1) * g
    v = b2 * state.get("v", 0.0) + (1 - b2) * (g * g)
    return m, v


def direction(m, v, t, betas, eps, eps_mode="torch"):
    """Bias-corrected: the rest of Algorithm 1, or the order of the end of its section 2, with epsilon-hat."""
    b1, b2 = betas
    if eps_mode == "keras":
        return np.sqrt(1 - b2**t) / (1 - b1**t) * (m / (np.sqrt(v) + eps))
    return (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)


@rule
def adam(p, g, state, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, eps_mode="torch", cautious=False):
    """Kingma & Ba (2015), Algorithm 1."""
    g = coupled(p, g, weight_decay)
    m, v = moments(g, state, betas)
    return p - lr * caution(direction(m, v, t, betas, eps, eps_mode), g, cautious), {"m": m, "v": v}


@rule
def adamw(
    p, g, state, t, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, eps_mode="torch", cautious=False
):
    """Loshchilov & Hutter (2019), Algorithm 2, line 12; the decay times the learning rate, as everyone has it."""
    m, v = moments(g, state, betas)
    move = lr * caution(direction(m, v, t, betas, eps, eps_mode), g, cautious)
    return p - decoupled(p, move, lr, weight_decay), {"m": m, "v": v}


@rule
def amsgrad(
    p,
    g,
    state,
    t,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    eps_mode="torch",
    cautious=False,
):
    """Reddi, Kale & Kumar (2018), Algorithm 2, with Adam's bias corrections; the maximum is over the uncorrected v."""
    g = g if decoupled_weight_decay else coupled(p, g, weight_decay)
    m, v = moments(g, state, betas)
    x = np.maximum(state.get("x", 0.0), v)
    move = lr * caution(direction(m, x, t, betas, eps, eps_mode), g, cautious)
    return p - decoupled(p, move, lr, weight_decay if decoupled_weight_decay else 0), {"m": m, "v": v, "x": x}


@rule
def adadelta(p, g, state, t, *, lr=1.0, rho=0.9, eps=1e-6, weight_decay=0.0):
    """Zeiler (2012), Algorithm 1, times a rate."""
    g = coupled(p, g, weight_decay)
    v = rho * state.get("v", 0.0) + (1 - rho) * (g * g)
    old = state.get("d", 0.0)
    delta = np.sqrt(old + eps) / np.sqrt(v + eps) * g
    return p - lr * delta, {"v": v, "d": rho * old + (1 - rho) * (delta * delta)}


@rule
def adamax(
    p, g, state, t, *, lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, eps_mode="torch", cautious=False
):
    """Kingma & Ba (2015), Algorithm 2; ε as torch or Keras have it."""
    g, (b1, b2) = coupled(p, g, weight_decay), betas
    m = b1 * state.get("m", 0.0) + (1 - b1) * g
    if eps_mode == "keras":
        n = np.maximum(state.get("n", 0.0) * b2, abs(g))
        return p - lr / (1 - b1**t) * caution(m / (n + eps), g, cautious), {"m": m, "n": n}
    n = np.maximum(state.get("n", 0.0) * b2, abs(g) + eps)
    return p - lr / (1 - b1**t) * caution(m / n, g, cautious), {"m": m, "n": n}


def rectification(b2, t):
    """r of Liu et al. (2020), Algorithm 2, or None where too few gradients were seen for it."""
    longest = 2 / (1 - b2) - 1
    length = longest - 2 * t * b2**t / (1 - b2**t)
    if length > 5:
        return np.sqrt(((length - 4) * (length - 2) * longest) / ((longest - 4) * (longest - 2) * length))
    return None


@rule
def radam(
    p,
    g,
    state,
    t,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    eps_mode="torch",
    cautious=False,
):
    """Liu et al. (2020), Algorithm 2; ε as torch has it, or as TensorFlow Addons."""
    b1, b2 = betas
    g = g if decoupled_weight_decay else coupled(p, g, weight_decay)
    m, v = moments(g, state, betas)
    move = lr * (m / (1 - b1**t))
    if (r := rectification(b2, t)) is not None:
        if eps_mode == "keras":
            move = move * r / (np.sqrt(v / (1 - b2**t)) + eps)
        else:
            move = move * r * (np.sqrt(1 - b2**t) / (np.sqrt(v) + eps))
    move = caution(move, g, cautious)
    return p - decoupled(p, move, lr, weight_decay if decoupled_weight_decay else 0), {"m": m, "v": v}


@rule
def adabelief(
    p,
    g,
    state,
    t,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-16,
    weight_decay=0.0,
    decoupled_weight_decay=True,
    rectify=False,
    cautious=False,
):
    """Zhuang et al. (2020), Algorithm 2 with the ε of its code; `rectify` as in the authors' package."""
    (b1, b2), g = betas, g if decoupled_weight_decay else coupled(p, g, weight_decay)
    m = b1 * state.get("m", 0.0) + (1 - b1) * g
    surprise = g - m
    s = b2 * state.get("s", 0.0) + (1 - b2) * (surprise * surprise) + eps
    move = lr * (m / (1 - b1**t))
    if not rectify:
        move = move / (np.sqrt(s / (1 - b2**t)) + eps)
    elif (r := rectification(b2, t)) is not None:
        move = move * r * (np.sqrt(1 - b2**t) / (np.sqrt(s) + eps))
    move = caution(move, g, cautious)
    return p - decoupled(p, move, lr, weight_decay if decoupled_weight_decay else 0), {"m": m, "s": s}


@rule
def qhadam(
    p,
    g,
    state,
    t,
    *,
    lr=1e-3,
    betas=(0.9, 0.999),
    nus=(1.0, 1.0),
    eps=1e-8,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    cautious=False,
):
    """Ma & Yarats (2019), section 4."""
    (b1, b2), (nu1, nu2) = betas, nus
    g = g if decoupled_weight_decay else coupled(p, g, weight_decay)
    m, v = moments(g, state, betas)
    mean = (1 - nu1) * g + nu1 * (m / (1 - b1**t))
    square = (1 - nu2) * (g * g) + nu2 * (v / (1 - b2**t))
    move = lr * caution(mean / (np.sqrt(square) + eps), g, cautious)
    return p - decoupled(p, move, lr, weight_decay if decoupled_weight_decay else 0), {"m": m, "v": v}


@rule
def yogi(
    p,
    g,
    state,
    t,
    *,
    lr=1e-2,
    betas=(0.9, 0.999),
    eps=1e-3,
    weight_decay=0.0,
    bias_correction=True,
    initial_accumulator_value=1e-6,
    eps_mode="torch",
    cautious=False,
):
    """Zaheer et al. (2018), Algorithm 2; with the bias corrections of its implementations, or without."""
    (b1, b2), g = betas, coupled(p, g, weight_decay)
    m = b1 * state.get("m", 0.0) + (1 - b1) * g
    v = state.get("v", initial_accumulator_value)
    v = v - (1 - b2) * (np.sign(v - g * g) * (g * g))
    u = direction(m, v, t, betas, eps, eps_mode) if bias_correction else m / (np.sqrt(v) + eps)
    return p - lr * caution(u, g, cautious), {"m": m, "v": v}


@rule
def sign_sgd(p, g, state, t, *, lr=1e-4, weight_decay=0.0):
    """Bernstein et al. (2018), Algorithm 1."""
    return p - decoupled(p, lr * np.sign(g), lr, weight_decay), {}


@rule
def signum(p, g, state, t, *, lr=1e-4, beta=0.9, weight_decay=0.0, cautious=False):
    """Bernstein et al. (2018), Algorithm 2."""
    m = beta * state.get("m", 0.0) + (1 - beta) * g
    return p - decoupled(p, lr * caution(np.sign(m), g, cautious), lr, weight_decay), {"m": m}


@rule
def lion(p, g, state, t, *, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, cautious=False):
    """Chen et al. (2023), Algorithm 2."""
    (b1, b2), old = betas, state.get("m", 0.0)
    c = b1 * old + (1 - b1) * g
    u = caution(np.sign(c), g, cautious)
    return p - decoupled(p, lr * u, lr, weight_decay), {"m": b2 * old + (1 - b2) * g}


@rule
def dadapt_adam(
    p,
    g,
    state,
    t,
    *,
    lr=1.0,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    decouple=False,
    use_bias_correction=False,
    d0=1e-6,
    growth_rate=np.inf,
):
    """Defazio & Mishchenko (2023), Algorithm 5, in the form of the authors' code: d is the whole model's."""
    b1, b2 = betas
    b3 = np.sqrt(b2)
    g = g if decouple else coupled(p, g, weight_decay)
    d, v, s = state.get("d", d0), state.get("v", 0.0), state.get("s", 0 * g)
    rate = d * lr
    if use_bias_correction:
        rate = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
    ahead = np.sum(rate * g * (s / (np.sqrt(v) + eps)))
    m = b1 * state.get("m", 0.0) + (1 - b1) * (rate * g)
    v = b2 * v + (1 - b2) * (g * g)
    s = b3 * s + (1 - b3) * (rate * g)
    p = p - decoupled(p, m / (np.sqrt(v) + eps), rate, weight_decay if decouple else 0)
    r, way = state.get("r", 0), np.sum(abs(s))
    if way > 0:
        r = b3 * r + (1 - b3) * ahead
        d = np.maximum(d, np.minimum(r / ((1 - b3) * way), d * growth_rate))
    return p, {"m": m, "v": v, "s": s, "d": d, "r": r}


@rule
def dadapt_sgd(p, g, state, t, *, lr=1.0, momentum=0.0, weight_decay=0.0, d0=1e-6, growth_rate=np.inf):
    """Defazio & Mishchenko (2023), Algorithm 4, in the form of the authors' code; the first norm with the decay."""
    g = coupled(p, g, weight_decay)
    d, s, x0, r = state.get("d", d0), state.get("s", 0 * g), state.get("x0", p), state.get("r", 0)
    norm = state["G"] if "G" in state else np.sqrt(np.sum(g * g))
    rate = d * lr / norm
    r = r + np.sum(rate * g * s)
    s = s + rate * g
    p = momentum * p + (1 - momentum) * (x0 - s)
    way = np.sum(s * s)
    if way > 0:
        d = np.maximum(d, np.minimum(2 * r / np.sqrt(way), d * growth_rate))
    return p, {"s": s, "x0": x0, "d": d, "r": r, "G": norm}


@rule
def prodigy(
    p,
    g,
    state,
    t,
    *,
    lr=1.0,
    betas=(0.9, 0.999),
    beta3=None,
    eps=1e-8,
    weight_decay=0.0,
    decouple=True,
    use_bias_correction=False,
    safeguard_warmup=False,
    d0=1e-6,
    d_coef=1.0,
    growth_rate=np.inf,
):
    """Mishchenko & Defazio (2024), Algorithm 4, with the options of the authors' code: d is the whole model's."""
    b1, b2 = betas
    b3 = np.sqrt(b2) if beta3 is None else beta3
    g = g if decouple else coupled(p, g, weight_decay)
    d, x0, most = state.get("d", d0), state.get("x0", p), state.get("most", d0)
    rate = d * lr
    if use_bias_correction:
        rate = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
    r = b3 * state.get("r", 0) + np.sum(d / d0 * rate * g * (x0 - p))
    dg = d * g
    m = b1 * state.get("m", 0.0) + (1 - b1) * dg
    v = b2 * state.get("v", 0.0) + (1 - b2) * (dg * dg)
    s = b3 * state.get("s", 0 * g) + d / d0 * (d if safeguard_warmup else rate) * g
    p = p - decoupled(p, rate * (m / (np.sqrt(v) + d * eps)), rate, weight_decay if decouple else 0)
    way = np.sum(abs(s))
    if way > 0:
        estimate = d_coef * r / way
        if d == d0:
            d = np.maximum(d, estimate)
        most = np.maximum(most, estimate)
        d = np.minimum(most, d * growth_rate)
    return p, {"m": m, "v": v, "s": s, "x0": x0, "d": d, "r": r, "most": most}


@rule
def madgrad(p, g, state, t, *, lr=1e-2, momentum=0.9, weight_decay=0.0, eps=1e-6, decoupled_weight_decay=False):
    """Defazio & Jelassi (2021), Algorithm 1; η + ε for η and the decay as in the authors' code."""
    g = g if decoupled_weight_decay else coupled(p, g, weight_decay)
    rate = lr + eps if lr != 0 else lr
    k, x0 = rate * np.sqrt(t + 0 * rate), state.get("x0", p)
    s, v = state.get("s", 0.0) + k * g, state.get("v", 0.0) + k * (g * g)
    z = x0 - s / (np.cbrt(v) + eps)
    moved = fading(momentum) * p + (1 - momentum) * z
    return moved - decoupled(p, 0, rate, weight_decay if decoupled_weight_decay else 0), {"s": s, "v": v, "x0": x0}


@rule
def adopt(
    p,
    g,
    state,
    t,
    *,
    lr=1e-3,
    betas=(0.9, 0.9999),
    eps=1e-6,
    clip_exponent=0.25,
    weight_decay=0.0,
    decoupled_weight_decay=False,
    cautious=False,
):
    """Taniguchi et al. (2024), Algorithm 2, clipped; without a clip_exponent Algorithm 1."""
    (b1, b2), g = betas, g if decoupled_weight_decay else coupled(p, g, weight_decay)
    if t == 1:
        return p, {"m": 0 * g, "v": g * g}
    d = g / np.maximum(np.sqrt(state["v"]), eps)
    if clip_exponent is not None:
        most = (t - 1) ** clip_exponent
        d = np.maximum(np.minimum(d, most), -most)
    m = b1 * state["m"] + (1 - b1) * d
    v = b2 * state["v"] + (1 - b2) * (g * g)
    move = lr * caution(m, g, cautious)
    return p - decoupled(p, move, lr, weight_decay if decoupled_weight_decay else 0), {"m": m, "v": v}


@rule
def ademamix(
    p,
    g,
    state,
    t,
    *,
    lr=1e-3,
    betas=(0.9, 0.999, 0.9999),
    alpha=5.0,
    eps=1e-8,
    weight_decay=0.0,
    t_alpha_beta3=None,
    alpha_warmup=None,
    beta3_warmup=None,
    cautious=False,
):
    """Pagliardini et al. (2024), Algorithm 1 and the schedulers of its section 3, in the words of appendix A.1."""
    b1, b2, b3 = betas
    of_alpha = t_alpha_beta3 if alpha_warmup is None else alpha_warmup
    of_beta3 = t_alpha_beta3 if beta3_warmup is None else beta3_warmup
    if of_alpha is not None and t < of_alpha:
        alpha = (t / of_alpha) * alpha
    if of_beta3 is not None and t < of_beta3:
        share = t / of_beta3
        slow = share / np.log(b3)
        if b1 != 0:  # else the limit
            slow = (1 - share) / np.log(b1) + slow
        b3 = fading(np.exp(1 / slow))
    m, v = moments(g, state, (b1, b2))
    n = b3 * state.get("n", 0.0) + (1 - b3) * g
    move = lr * caution((m / (1 - b1**t) + n * alpha) / (np.sqrt(v / (1 - b2**t)) + eps), g, cautious)
    return p - decoupled(p, move, lr, weight_decay), {"m": m, "n": n, "v": v}


@rule
def laprop(p, g, state, t, *, lr=4e-4, betas=(0.9, 0.999), eps=1e-15, weight_decay=0.0, cautious=False):
    """Ziyin, Wang & Ueda (2020), Algorithm 1, with the rate inside the average as in the authors' code."""
    b1, b2 = betas
    v = b2 * state.get("v", 0.0) + (1 - b2) * (g * g)
    m = b1 * state.get("m", 0.0) + (1 - b1) * (lr * (g / (np.sqrt(v / (1 - b2**t)) + eps)))
    rates = b1 * state.get("rates", 0.0) + (1 - b1) * lr
    move = lr / rates * caution(m, g, cautious)
    return p - decoupled(p, move, lr, weight_decay), {"m": m, "v": v, "rates": rates}


@rule
def nadam(
    p,
    g,
    state,
    t,
    *,
    lr=2e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    momentum_decay=4e-3,
    decoupled_weight_decay=False,
    cautious=False,
):
    """Dozat (2016), Algorithm 2; the schedule of its section 3."""
    b1, b2 = betas
    mu, following = (b1 * (1 - 0.96 ** (s * momentum_decay) / 2) for s in (t, t + 1))
    product = state.get("product", 1) * mu
    g = g if decoupled_weight_decay else coupled(p, g, weight_decay)
    m, v = moments(g, state, betas)
    mean = (1 - mu) * g / (1 - product) + following * m / (1 - product * following)
    move = lr * caution(mean / (np.sqrt(v / (1 - b2**t)) + eps), g, cautious)
    new = {"m": m, "v": v, "product": product}
    return p - decoupled(p, move, lr, weight_decay if decoupled_weight_decay else 0), new


@rule
def adan(
    p, g, state, t, *, lr=1e-3, betas=(0.98, 0.92, 0.99), eps=1e-8, weight_decay=0.0, no_prox=False, cautious=False
):
    """Xie et al. (2022), Algorithm 1, with β for its 1 − β and bias corrections, as in the authors' code."""
    b1, b2, b3 = betas
    change = 0 * g if t == 1 else g - state["last"]
    m = b1 * state.get("m", 0.0) + (1 - b1) * g
    d = b2 * state.get("d", 0.0) + (1 - b2) * change
    ahead = g + change * b2
    n = b3 * state.get("n", 0.0) + (1 - b3) * (ahead * ahead)
    u = (m / (1 - b1**t) + (d / (1 - b2**t)) * b2) / (np.sqrt(n / (1 - b3**t)) + eps)
    move = lr * caution(u, g, cautious)
    new = {"m": m, "d": d, "n": n, "last": g}
    if no_prox or weight_decay == 0:
        return p - decoupled(p, move, lr, weight_decay), new
    return p - (move + lr * weight_decay * p) / (1 + lr * weight_decay), new


@rule
def qhm(
    p, g, state, t, *, lr=1e-3, momentum=0.999, nu=0.7, weight_decay=0.0, decoupled_weight_decay=False, cautious=False
):
    """Ma & Yarats (2019), equations 3 and 4."""
    g = g if decoupled_weight_decay else coupled(p, g, weight_decay)
    b = fading(momentum) * state.get("b", 0.0) + (1 - momentum) * g
    move = lr * caution(fading(nu) * b + (1 - nu) * g, g, cautious)
    return p - decoupled(p, move, lr, weight_decay if decoupled_weight_decay else 0), {"b": b}


@rule
def rprop(p, g, state, t, *, lr=1e-2, etas=(0.5, 1.2), step_sizes=(1e-6, 50), weight_decay=0.0):
    """Igel & Hüsken (2000), iRprop−."""
    g, (less, more), (least, most) = coupled(p, g, weight_decay), etas, step_sizes
    s, last = state.get("s", lr + 0 * abs(p)), state.get("last", 0 * g)
    turned = np.sign(g) * np.sign(last)
    s = np.where(turned > 0, s * more, np.where(turned < 0, s * less, s))
    s = np.maximum(np.minimum(s, most), least)
    g = np.where(turned < 0, 0 * g, g)
    return p - s * np.sign(g), {"s": s, "last": g}


@rule
def adahessian(
    p,
    g,
    state,
    t,
    *,
    hessian=None,
    lr=0.15,
    betas=(0.9, 0.999),
    eps=1e-4,
    weight_decay=0.0,
    hessian_power=1,
):
    """Yao et al. (2021), Algorithm 1; the decay as in the authors' code."""
    b1, b2 = betas
    m = b1 * state.get("m", 0.0) + (1 - b1) * g
    v = b2 * state.get("v", 0.0) + (1 - b2) * (hessian * hessian)
    size = np.sqrt(v / (1 - b2**t))
    move = lr * ((m / (1 - b1**t)) / ((size if hessian_power == 1 else np.sqrt(size)) + eps))
    return p - decoupled(p, move, lr, weight_decay), {"m": m, "v": v}


@rule
def sophia(
    p,
    g,
    state,
    t,
    *,
    hessian=None,
    lr=1e-4,
    betas=(0.965, 0.99),
    rho=0.04,
    eps=1e-12,
    weight_decay=0.1,
    use_bias_correction=False,
):
    """Liu et al. (2024), Algorithm 3, lines 6 to 13; without a Hessian its lines 8 and 9 are left out."""
    b1, b2 = betas
    m = b1 * state.get("m", 0.0) + (1 - b1) * g
    h = state.get("h", 0 * g)
    if hessian is not None:
        h = b2 * h + (1 - b2) * hessian
    best = m / (1 - b1**t) if use_bias_correction else m
    move = lr * np.minimum(np.maximum(best / np.maximum(rho * h, eps), -1), 1)
    return p - decoupled(p, move, lr, weight_decay), {"m": m, "h": h}


@rule
def asgd(p, g, state, t, *, lr=1e-2, lambd=1e-4, alpha=0.75, t0=1e6, weight_decay=0.0):
    """Polyak & Juditsky (1992); the rates of Bottou (2010), section 5.1, each of the step before, as in torch."""
    g, eta = coupled(p, g, weight_decay), state.get("eta", lr)
    p = p - (eta * g + eta * lambd * p)
    share = 1 / np.maximum(1, t - 1 - t0)
    x = fading(1 - share) * state.get("x", 0.0) + share * p
    return p, {"x": x, "eta": lr / (1 + lambd * lr * t) ** alpha}


@rule
def ftrl(p, g, state, t, *, lr=0.1, beta=1.0, l1=0.0, l2=0.0, initial_accumulator_value=0.0, weight_decay=0.0):
    """McMahan et al. (2013), Algorithm 1, w last rather than first. A rate of 0 leaves the step out."""
    g, z, n = coupled(p, g, weight_decay), state.get("z", 0 * g), state.get("n", initial_accumulator_value)
    if lr == 0:
        return p, {"z": z, "n": n}
    sigma = (np.sqrt(n + g * g) - np.sqrt(n)) / lr
    z, n = z + g - sigma * p, n + g * g
    beyond = np.sign(z) * np.maximum(abs(z) - l1, 0)
    return -beyond / ((np.sqrt(n) + beta) / lr + l2), {"z": z, "n": n}


def schedule_free(y, z, u, state, t, lr, beta, warmup_steps, r, weight_lr_power):
    """Defazio et al. (2024), Algorithm 1, in terms of y and z; and their appendix's weights of the average."""
    if t < warmup_steps:
        lr = lr * (t / warmup_steps)
    most = np.maximum(state.get("most", 0), lr)
    weight = t**r * most**weight_lr_power
    weights = state.get("weights", 0) + weight
    c = weight / weights
    y = fading(1 - c) * y + c * z - lr * (1 - beta * (1 - c)) * u
    return y, {"z": z - lr * u, "most": most, "weights": weights}


@rule
def schedule_free_sgd(
    p, g, state, t, *, lr=1.0, momentum=0.9, weight_decay=0.0, warmup_steps=0.0, r=0.0, weight_lr_power=2.0
):
    """Defazio et al. (2024), Algorithm 1."""
    g, z = coupled(p, g, weight_decay), state.get("z", p)
    return schedule_free(p, z, g, state, t, lr, momentum, warmup_steps, r, weight_lr_power)


@rule
def schedule_free_adamw(
    p,
    g,
    state,
    t,
    *,
    lr=0.0025,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    warmup_steps=0.0,
    r=0.0,
    weight_lr_power=2.0,
):
    """Defazio et al. (2024), Algorithm 1 with Adam's v, as in the authors' code since its version 1.3."""
    (b1, b2), z = betas, state.get("z", p)
    v = b2 * state.get("v", 0.0) + (1 - b2) * (g * g)
    u = coupled(p, g / (np.sqrt(v / (1 - b2**t)) + eps), weight_decay)
    y, new = schedule_free(p, z, u, state, t, lr, b1, warmup_steps, r, weight_lr_power)
    return y, {**new, "v": v}


def rms(x):
    return np.sqrt(np.sum(x * x) / x.size)


@rule
def adafactor(
    p,
    g,
    state,
    t,
    *,
    lr=1e-2,
    beta2_decay=-0.8,
    eps=(None, 1e-3),
    d=1.0,
    weight_decay=0.0,
    form="torch",
    relative_step=True,
    scale_parameter=True,
):
    """Shazeer & Stern (2018), Algorithms 4 and 5, with torch's ε₁ (None: that of float64) and decay, or fairseq's."""
    fairseq, (eps1, eps2) = form == "fairseq", eps
    eps1 = (1e-30 if fairseq else np.finfo(np.float64).eps) if eps1 is None else eps1
    b2 = 1 - t**beta2_decay
    alpha = min(lr, 1 / np.sqrt(t)) if relative_step else lr
    alpha = alpha * max(eps2, rms(p)) if scale_parameter else alpha
    square = g * g + (eps1 if fairseq else 0)
    if p.ndim > 1:
        r = b2 * state.get("r", 0.0) + (1 - b2) * square.mean(-1, keepdims=True)
        c = b2 * state.get("c", 0.0) + (1 - b2) * square.mean(-2, keepdims=True)
        mean = r.mean(-2, keepdims=True)
        v, new = r * c / (mean if fairseq else np.maximum(mean, eps1)), {"r": r, "c": c}
    else:
        v = b2 * state.get("v", 0.0) + (1 - b2) * square
        new = {"v": v}
    u = g / np.sqrt(v if fairseq else np.maximum(v, eps1**2))
    u = u / max(1.0, rms(u) / d)
    return p - decoupled(p, alpha * u, alpha if fairseq else lr, weight_decay), new


@rule
def muon(
    p,
    g,
    state,
    t,
    *,
    lr=1e-3,
    weight_decay=0.1,
    momentum=0.95,
    nesterov=True,
    ns_coefficients=(3.4445, -4.775, 2.0315),
    eps=1e-7,
    ns_steps=5,
    adjust_lr_fn=None,
    precision=None,
):
    """torch's code, in float64 and by singular values: X ← aX + (bXXᵀ + c(XXᵀ)²)X takes each s to as + bs³ + cs⁵."""
    b = momentum * state.get("b", 0.0) + (1 - momentum) * g
    u = (1 - momentum) * g + momentum * b if nesterov else b
    left, s, right = np.linalg.svd(u, full_matrices=False)
    s = s / max(np.sqrt(np.sum(s * s)), eps)
    a1, a2, a3 = ns_coefficients
    for _ in range(ns_steps):
        s = a1 * s + a2 * s**3 + a3 * s**5
    rows, cols = p.shape
    ratio = 0.2 * np.sqrt(max(rows, cols)) if adjust_lr_fn == "match_rms_adamw" else np.sqrt(max(1.0, rows / cols))
    return p - decoupled(p, lr * ratio * ((left * s) @ right), lr, weight_decay), {"b": b}
