"""Published schedules that are a few curves one after the other, each in a few lines."""

from __future__ import annotations

from fastlr.hyper import positive
from fastlr.schedules import curves, tree
from fastlr.schedules.schedule import Endpoint, Lowered, Schedule, ShapeName, Steps, form
from fastlr.schedules.shapes import parsed


@form
def warmup_cosine(
    peak: float, warmup: Steps, steps: Steps, end: float = 0.0, start: float = 0.0, endpoint: Endpoint = "exclusive"
) -> Lowered | Schedule:
    """Linear warm-up, then half a cosine; `steps` is the whole, the warm-up included."""
    return curves.cosine(peak, end, _rest(steps, warmup), endpoint=endpoint).warmup(warmup, start)


def _rest(steps: float, first: float) -> float:
    if first >= steps:
        raise ValueError(f"steps must be > warmup, got {steps} and {first}")
    return steps - first


@form
def linear_to_zero(peak: float, warmup: Steps, steps: Steps, endpoint: Endpoint = "exclusive") -> Lowered | Schedule:
    """Linear warm-up, then linearly to 0; `steps` is the whole, the warm-up included."""
    return curves.linear(peak, 0.0, _rest(steps, warmup), endpoint=endpoint).warmup(warmup)


@form
def one_cycle(
    peak: float,
    steps: Steps,
    warm: float = 0.3,
    div: float = 25.0,
    final_div: float = 1e4,
    shape: ShapeName = "cosine",
    three_phase: bool = False,
    endpoint: Endpoint = "exclusive",
) -> Lowered | Schedule:
    """From peak/div up to peak in `warm` of the steps, then down to peak/(div · final_div).

    With `three_phase` down to peak/div as long as it went up, then on to the end. Smith & Topin 2018; the defaults are
    torch's OneCycleLR, whose phases end as with ``endpoint="inclusive"``. `HyperSchedule.one_cycle` has the momentum
    too.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> s = S.one_cycle(1.0, 100, warm=0.25)
    >>> s(0), s(25)
    (0.04, 1.0)
    """
    start = peak / positive("div", div)
    return cycle(
        start, peak, start, start / positive("final_div", final_div), steps, warm, shape, three_phase, endpoint
    )


@form
def cycle(
    start: float,
    peak: float,
    back: float,
    end: float,
    steps: Steps,
    warm: float = 0.3,
    shape: ShapeName = "cosine",
    three_phase: bool = False,
    endpoint: Endpoint = "exclusive",
) -> Lowered | Schedule:
    """`one_cycle` with every value given: start, peak, with `three_phase` back, end.

    For a momentum, which goes the other way: ``S.cycle(0.95, 0.85, 0.95, 0.95, steps)``.
    """
    if not 0 < warm < (0.5 if three_phase else 1):
        raise ValueError(f"warm must be in (0, {0.5 if three_phase else 1}), got {warm}")
    less = 1 if endpoint == "inclusive" else 0
    tops = [warm * steps - less] + ([2 * warm * steps - 2 * less] if three_phase else [])
    ends, values = [*tops, steps - less], [start, peak, *([back] if three_phase else []), end]
    if ends[0] <= 0:
        raise ValueError(f"warm must be more than one of the {steps} steps, got {warm}")
    parts, at = [], 0.0
    for k, stop in enumerate(ends):
        if stop > at:
            parts.append((at, tree.interpolate(values[k], values[k + 1], stop - at, parsed(shape))))
            at = stop
    return Lowered(tree.sequence(*parts), steps)


@form
def wsd(
    peak: float,
    warmup: Steps,
    stable: Steps,
    decay: Steps,
    end: float = 0.0,
    start: float = 0.0,
    shape: ShapeName = "1-sqrt",
) -> Lowered | Schedule:
    """Warmup-stable-decay: linear warm-up, the peak for `stable` updates, then down to `end` along a shape.

    Hu et al., MiniCPM, 2024; the decay by 1 − √u is Hägele et al. 2024.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> s = S.wsd(1.0, 100, 800, 100)
    >>> s([100, 899, 925, 1000]).tolist()
    [1.0, 1.0, 0.5, 0.0]
    """
    return curves.constant(peak, stable).cooldown(decay, end, shape).warmup(warmup, start)


@form
def flat_cosine(
    peak: float, steps: Steps, flat: float = 0.75, end: float = 0.0, endpoint: Endpoint = "exclusive"
) -> Lowered | Schedule:
    """`peak` for `flat` of the steps, then half a cosine to `end`, as fastai's fit_flat_cos."""
    if not 0 < flat < 1:
        raise ValueError(f"flat must be in (0, 1), got {flat}")
    first = flat * steps
    return curves.constant(peak, first) >> curves.cosine(peak, end, steps - first, endpoint=endpoint)


@form
def infinite(
    peak: float,
    plateau: float,
    warmup: Steps,
    cooldown: Steps,
    stable: Steps | None = None,
    anneal: Steps | None = None,
    end: float = 0.0,
    shape: ShapeName = "cosine",
) -> Lowered | Schedule:
    """Warm-up, then down to a plateau that may last for ever; with `stable` and `anneal` it ends some day.

    For runs that go on with new data: `Schedule.rewarm` begins again. Ibrahim et al. 2024.
    """
    s = curves.ramp(peak, plateau, cooldown, shape).warmup(warmup)
    if stable is None:
        if anneal is not None:
            raise ValueError("anneal needs stable, the updates on the plateau before it")
        return s >> curves.constant(plateau)
    s = s >> curves.constant(plateau, stable)
    return s if anneal is None else s.cooldown(anneal, end, "exponential")


@form
def tri_stage(
    peak: float, warmup: Steps, hold: Steps, decay: Steps, init_scale: float = 0.01, final_scale: float = 0.01
) -> Lowered | Schedule:
    """Linear from init_scale · peak, the peak, then geometrically to final_scale · peak, as fairseq's tri_stage."""
    end = positive("final_scale", final_scale) * peak
    return (
        curves.constant(peak, hold)
        .cooldown(decay, end, "geometric")
        .warmup(warmup, init_scale * peak, "linear", "start")
    )
