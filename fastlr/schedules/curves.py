"""The curves: each a function that returns a `Schedule`.

In the formulas n is the 0-based update, u = n / steps, held at 1 from the end on, and with ``endpoint="inclusive"``
u = n / (steps − 1). `steps`, like all lengths, is a number of updates or a string such as '10%', '5ep' or '2e9tok'
(see `Schedule.bind`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from fastlr import _core
from fastlr.hyper import fraction, nonnegative, positive
from fastlr.schedules import tree
from fastlr.schedules.schedule import Boundaries, Endpoint, Lowered, Schedule, ShapeName, Steps, form
from fastlr.schedules.shapes import parsed

ENDPOINT: Endpoint = "exclusive"


def _span(steps: float, endpoint: str) -> float:
    if endpoint == "exclusive":
        return steps
    if steps < 2:
        raise ValueError(f'steps must be >= 2 for endpoint="inclusive", got {steps}')
    return steps - 1


def _way(start: float, end: float, steps: float, shape: str, endpoint: str) -> Lowered:
    return Lowered(tree.interpolate(start, end, _span(steps, endpoint), parsed(shape)), steps)


@form
def constant(value: float, steps: Steps | None = None) -> Lowered | Schedule:
    """`value`, for ever or for `steps` updates.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> (S.constant(0.1, 100) >> S.constant(0.01))(99)
    0.1
    """
    return Lowered(tree.constant(value), steps)


@form
def ramp(
    start: float, end: float, steps: Steps, shape: ShapeName = "linear", endpoint: Endpoint = "exclusive"
) -> Lowered | Schedule:
    """From start to end along any shape: see `fastlr.schedules.shapes`.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> S.ramp(1.0, 0.0, 100, "1-sqrt")(25)
    0.5
    """
    return _way(start, end, steps, shape, endpoint)


@form
def linear(start: float, end: float, steps: Steps, endpoint: Endpoint = "exclusive") -> Lowered | Schedule:
    """Start + (end − start) u. torch's LinearLR takes factors of the rate; see `compat.torch`."""
    return _way(start, end, steps, "linear", endpoint)


@form
def polynomial(
    start: float,
    end: float,
    steps: Steps,
    power: float = 1.0,
    cycle: bool = False,
    k: float = 1.0,
    endpoint: Endpoint = "exclusive",
) -> Lowered | Schedule:
    """End + (start − end) (1 − uᵏ)^power.

    With `cycle` it goes on for ever: u = n / (steps · ⌈n / steps⌉), as Keras has it. k is timm's k-decay.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> S.polynomial(1.0, 0.0, 100, power=2)(50)
    0.25
    """
    power, k = positive("power", power), positive("k", k)
    if cycle:
        if k != 1 or endpoint != "exclusive":
            raise ValueError("cycle=True goes with k=1 and the exclusive endpoint")
        return Lowered(tree.Node("polynomial_cycle", (end, float(steps), power), first=start))
    return _way(start, end, steps, f"polynomial({power!r}, {k!r})", endpoint)


@form
def step(start: float, factor: float, every: Steps, offset: int = 0) -> Lowered | Schedule:
    """Start · factor^⌊(n + offset) / every⌋.

    ``offset=0`` is torch's StepLR; ``offset=1`` is the formula of many textbooks, η₀ d^⌊(1 + n) / r⌋, which drops one
    update earlier.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> S.step(1.0, 0.5, 10)(9), S.step(1.0, 0.5, 10)(10), S.step(1.0, 0.5, 10, offset=1)(9)
    (1.0, 0.5, 0.5)
    """
    return _powers(start, positive("factor", factor), every, nonnegative("offset", offset), True)


def _powers(start: float, base: float, period: float, offset: float, whole: bool) -> Lowered:
    return Lowered(
        tree.Node("exponential", (*tree.logarithm(base), float(period), float(offset), float(whole)), first=start)
    )


@form
def multistep(start: float, factors: Boundaries, side: str = "at") -> Lowered | Schedule:
    """Start times the factor of every boundary that has been reached.

    ``side="at"``: update b is the first that has its factor, as in torch and optax. ``side="after"``: update b is the
    last without it, as in Keras.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> s = S.multistep(1.0, {30: 0.5, 80: 0.1})
    >>> s(29), s(30), s(80)
    (1.0, 0.5, 0.05)
    """
    values = [start]
    for _, factor in factors:
        values.append(values[-1] * factor)
    return _stairs([at for at, _ in factors], values, side)


@form
def piecewise(boundaries: list[Steps], values: list[float], side: str = "at") -> Lowered | Schedule:
    """values[k] from boundary k − 1 to boundary k: one value more than boundaries.

    ``side="at"``: update b has the new value already. ``side="after"``: update b still has the old one, as in Keras'
    PiecewiseConstantDecay.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> s = S.piecewise([10, 20], [1.0, 0.5, 0.1])
    >>> s(9), s(10), s(20)
    (1.0, 0.5, 0.1)
    """
    if len(values) != len(boundaries) + 1:
        raise ValueError(
            f"values must be one more than boundaries, got {len(values)} values and {len(boundaries)} boundaries"
        )
    if sorted(set(boundaries)) != list(boundaries):
        raise ValueError(f"boundaries must increase, got {list(boundaries)}")
    return _stairs(boundaries, values, side)


def _stairs(boundaries: list[Steps], values: list[float], side: str) -> Lowered:
    if side not in ("at", "after"):
        raise ValueError(f"side must be one of 'at', 'after', got {side!r}")
    # After b means from the next double on: for whole steps the same as b + 1, and right between them.
    starts = [b if side == "at" else tree.after(b) for b in boundaries]
    parts = [(s, tree.constant(v)) for s, v in zip([0, *starts], values, strict=True)]
    if starts and starts[0] == 0:
        del parts[0]
    return Lowered(tree.sequence(*parts))


@form
def interpolate(knots: Boundaries, shape: ShapeName = "linear") -> Lowered | Schedule:
    """Through the given values at the given steps, in between along a shape; the first and last value are held.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> S.interpolate({0: 0.0, 100: 1.0, 300: 0.5})(200)
    0.75
    """
    if not knots:
        raise ValueError("knots must have at least one step")
    parts: list[tuple[float, tree.Node]] = [(0, tree.constant(knots[0][1]))] if knots[0][0] > 0 else []
    for (a, start), (b, end) in itertools.pairwise(knots):
        parts.append((a, tree.interpolate(start, end, b - a, parsed(shape))))
    last, value = knots[-1]
    return Lowered(tree.sequence(*parts, (last, tree.constant(value))), last or None)


@form
def exponential(start: float, gamma: float, period: Steps = 1, staircase: bool = False) -> Lowered | Schedule:
    """Start · gamma^(n / period), or with `staircase` start · gamma^⌊n / period⌋.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> S.exponential(1.0, 0.5, 100)(200)
    0.25
    """
    return _powers(start, positive("gamma", gamma), period, 0, staircase)


@form
def natural_exponential(start: float, rate: float) -> Lowered | Schedule:
    """Start · e^(−rate n)."""
    return Lowered(tree.Node("exponential", (-rate, 0.0, 1.0, 0.0, 0.0), first=start))


@form
def inverse_time(start: float, rate: float, period: Steps = 1, staircase: bool = False) -> Lowered | Schedule:
    """Start / (1 + rate n / period): what libraries call time-based or inverse time decay.

    The recursion η ← η / (1 + rate n) is `time_based`, and falls much faster.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> S.inverse_time(1.0, 1e-3)(1000)
    0.5
    """
    return Lowered(tree.Node("inverse_time", (nonnegative("rate", rate), float(period), float(staircase)), first=start))


@form
def time_based(start: float, rate: float) -> Lowered | Schedule:
    """The recursion ηₙ₊₁ = ηₙ / (1 + rate n), literally: ηₙ = start / Π (1 + rate k), k = 0 … n − 1.

    In closed form (ratios of gamma functions, or Euler and Maclaurin's formula), so that any step can be asked for,
    within 1e-11 of itself. Beware: at rate = 1e-3 update 1000 uses 2.4e-168 of `start`; `inverse_time`, which is what
    is usually meant, half.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> S.time_based(1.0, 0.1)(3), 1 / (1.1 * 1.2)
    (0.7575757575757..., 0.7575757575757...)
    """
    if nonnegative("rate", rate) == 0:
        return Lowered(tree.constant(start))
    log = _core.elementary("logarithm", rate)
    return Lowered(tree.Node("time_based", (rate, log, _core.stirling(1 / rate)), first=start))


@form
def inverse_sqrt(peak: float, timescale: Steps) -> Lowered | Schedule:
    """Peak / √((n + timescale) / timescale). After a warm-up of `timescale` updates it is peak √(timescale / n).

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> S.inverse_sqrt(1.0, 100)(300)
    0.5
    """
    return Lowered(tree.Node("inverse_sqrt", (float(timescale),), first=peak))


@form
def noam(d_model: float, warmup: Steps, scale: float = 1.0) -> Lowered | Schedule:
    """Scale · d_model^−½ · min(m^−½, m · warmup^−1½), m = n + 1. Vaswani et al., Attention Is All You Need, 2017."""
    w = float(warmup)
    top = scale * positive("d_model", d_model) ** -0.5
    return Lowered(tree.Node("noam", (1 / (w * w**0.5), w), first=top))


@form
def cosine(
    start: float, end: float, steps: Steps, k: float = 1.0, power: float = 1.0, endpoint: Endpoint = "exclusive"
) -> Lowered | Schedule:
    """End + (start − end) ((1 + cos(π uᵏ)) / 2)^power: half a cosine from start to end, the floor.

    Computed as cos²(πuᵏ/2), which is exact in relative terms up to the end, and exactly `end` there. It holds `end`
    afterwards (torch's rises again). k is timm's k-decay, `power` optax's exponent.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> s = S.cosine(1e-3, 1e-5, 1000)
    >>> s(0), s(500), s(1000)
    (0.001, 0.000505, 1e-05)
    """
    return _way(start, end, steps, f"cosine({positive('k', k)!r}, {positive('power', power)!r})", endpoint)


@form
def warm_restarts(
    start: float, end: float, period: Steps, mult: float = 1.0, decay: float = 1.0, k: float = 1.0
) -> Lowered | Schedule:
    """Cosines from start to end, again and again: cycle i is period · multⁱ long and starts from start · decayⁱ.

    Boundaries are exact integers however many cycles there are; torch's ``step(epoch)`` and timm take a logarithm and
    miss some. SGDR: Loshchilov & Hutter 2017.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> s = S.warm_restarts(1.0, 0.0, 10, mult=2, decay=0.5)
    >>> s([0, 5, 10, 20, 30]).tolist()
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """
    child = _way(start, end, period, f"cosine({positive('k', k)!r})", "exclusive").node
    return Lowered(tree.repeat(child, period, _growth(mult), positive("decay", decay), only_start=True))


def _growth(mult: float) -> float:
    if mult < 1:
        raise ValueError(f"mult must be >= 1, got {mult}")
    return mult


@form
def cyclical(
    low: float,
    high: float,
    up: Steps,
    down: Steps | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
) -> Lowered | Schedule:
    """Up from low to high in `up` updates and down again in `down` (default: `up`), for ever. Smith 2017.

    `mode` says what becomes of the height of the triangles: ``"triangular"``, nothing; ``"triangular2"``, halved each
    cycle; ``"exp_range"``, times gamma^n, n the update; ``"exp_cycle"``, times gamma^i, i the cycle. `cyclical_custom`
    takes a function. For momentum, which cycles the other way, give the larger value as `low`.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> S.cyclical(0.0, 1.0, 10, mode="triangular2")([0, 10, 15, 20, 30]).tolist()
    [0.0, 1.0, 0.5, 0.0, 0.5]
    """
    bases = {"triangular": 1.0, "triangular2": 0.5, "exp_range": gamma, "exp_cycle": gamma}
    if mode not in bases:
        raise ValueError(f"mode must be one of {', '.join(map(repr, bases))}, got {mode!r}")
    log = tree.logarithm(positive("gamma", bases[mode]))
    down = up if down is None else down
    return Lowered(
        tree.Node("triangle", (0.0, 0.0, high, float(up), float(down), *log, float(mode == "exp_range")), first=low)
    )


@form
def cyclical_custom(
    low: float,
    high: float,
    up: Steps,
    down: Steps | None = None,
    *,
    height: Callable[[float], float],
    per: str = "cycle",
) -> Lowered | Schedule:
    """`cyclical` whose triangles have the height (high − low) · height(x): x counts cycles from 0, or updates.

    ``per="cycle"`` or ``"step"``. `height` may be a function or a schedule. torch's ``scale_fn`` counts cycles from 1.
    """
    if per not in ("cycle", "step"):
        raise ValueError(f"per must be one of 'cycle', 'step', got {per!r}")
    down = up if down is None else down
    factor = height if isinstance(height, Schedule) else custom(height)
    if per == "cycle":
        factor = factor.every(up + down)
    return constant(low) + constant(high - low) * (cyclical(0.0, 1.0, up, down) * factor)


@form
def power_law(scale: float, exponent: float, ceiling: float, tokens_per_step: float = 1.0) -> Lowered | Schedule:
    """min(ceiling, scale · x^−exponent), x = n · tokens_per_step the tokens seen. Shen et al., Power Scheduler, 2024.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> s = S.power_law(4.0, 0.5, ceiling=0.02, tokens_per_step=1e6)
    >>> s(0), s(100)
    (0.02, 0.0004)
    """
    p = (exponent, positive("tokens_per_step", tokens_per_step), ceiling)
    return Lowered(tree.Node("power_law", p, first=scale))


@form
def rex(start: float, end: float, steps: Steps, d: float = 0.5, endpoint: Endpoint = "exclusive") -> Lowered | Schedule:
    """End + (start − end) w / (1 − d + d w), w = 1 − u.

    d = 0.5 is the paper's (Chen, Wolfe & Kyrillidis, REX, 2022); trainers of diffusion models ship d = 0.9 under the
    same name.
    """
    return _way(start, end, steps, f"rex({fraction('d', d)!r})", endpoint)


@form
def tanh(
    start: float, end: float, steps: Steps, lower: float = -7.0, upper: float = 3.0, endpoint: Endpoint = "exclusive"
) -> Lowered | Schedule:
    """End + (start − end) (1 − tanh(lower (1 − u) + upper u)) / 2, as timm has it.

    At u = 0 and u = 1 it is only almost `start` and `end`: by 8e-7 and 2.5e-3 of their difference.
    """
    return _way(start, end, steps, f"tanh({lower!r}, {upper!r})", endpoint)


@form
def noise(low: float, high: float, seed: int = 0) -> Lowered | Schedule:
    """Uniform between low and high, another number for each update, made from the seed and n alone.

    So a resumed run has the same noise. Multiply or add it: ``S.cosine(...) * S.noise(0.9, 1.1)``.
    """
    return Lowered(tree.Node("noise", (high,), first=low, shape=(seed + (1 << 63)) % (1 << 64) - (1 << 63)))


@form
def custom(fn: Callable[[float], float], steps: Steps | None = None, jit: bool = False) -> Lowered | Schedule:
    """Any function of the step, called with one float.

    With ``jit=True`` Numba compiles it (``pip install 'fastlr-kernels[jit]'``): then it is called without Python, by
    optimizers too. It composes like any schedule and can be pickled if the function can, but has no JSON.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> S.custom(lambda n: 1 / (1 + n) ** 0.25).clip(0.1)(15)
    0.5
    """
    from fastlr.schedules.jit import compiled

    if jit:
        return Lowered(tree.Node("custom", custom=compiled(fn)), steps)
    held = _core.Custom(fn)
    return Lowered(tree.Node("custom", custom=(held.address[0], held.address[1], held)), steps)
