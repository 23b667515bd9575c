"""Schedules as trees of segments, and the tables that the C kernel reads: the names are those of kernels/schedule.h."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from fastlr import _core

KINDS = [
    "constant",
    "interpolate",
    "exponential",
    "inverse_time",
    "time_based",
    "inverse_sqrt",
    "noam",
    "power_law",
    "polynomial_cycle",
    "triangle",
    "noise",
    "custom",
    "sequence",
    "repeat",
    "product",
    "sum",
    "clock",
    "clip",
    "scale",
    "end",
]
SHAPES = [
    "linear",
    "cosine",
    "cosine_power",
    "polynomial",
    "polynomial_power",
    "power",
    "root",
    "root_left",
    "rex",
    "tanh",
    "exponential",
    "geometric",
]

PARAMETERS = 10
START = 9  # the parameter that has a leaf's first value
ROW = struct.Struct(f"={2 + PARAMETERS}d4q")
MOST_DEPTH = 48  # each level of the tree has a few kilobytes of the C stack
MOST_CYCLES = 4096
MOST_KNOTS = 1 << 20

Time = int | float | Fraction


class Node(NamedTuple):
    """One segment; `start` is on the clock of the node it belongs to."""

    kind: str
    p: tuple[float, ...] = ()
    children: tuple[Node, ...] = ()
    start: Time = 0
    first: float = 0.0
    shape: int = 0
    custom: tuple[int, int, Any] | None = None  # function, context, and what must be kept for them to stay valid


def twofold(x: Time) -> tuple[float, float]:
    """X as the sum of two doubles."""
    hi = float(x)
    return hi, float(Fraction(x) - Fraction(hi))


def logarithm(x: float) -> tuple[float, float]:
    """Ln x as the sum of two doubles, so that powers with a large exponent keep their digits."""
    return _core.logarithm_of(x)


def table_of(root: Node) -> tuple[bytes, tuple[Any, ...]]:
    """The table, children side by side, and the objects that its pointers refer to."""
    nodes, places, kept = [root], [0], []
    for k in range(1 << 62):
        if k == len(nodes):
            break
        places.append(len(nodes))
        nodes += nodes[k].children
    rows = []
    for node, first in zip(nodes, places[1:], strict=True):
        p = [*node.p, *[0.0] * (PARAMETERS - len(node.p))]
        if len(node.p) <= START:
            p[START] = node.first
        count = len(node.children)
        if node.custom is not None:
            first, count, thing = node.custom
            kept.append(thing)
        rows.append(ROW.pack(*twofold(node.start), *p, KINDS.index(node.kind), node.shape, first, count))
    return b"".join(rows), tuple(kept)


def value(node: Node, at: float) -> float:
    """The node's value at a time on its parent's clock."""
    curve = _core.Curve()
    curve._compile(*table_of(node._replace(start=0)))
    return float(curve(at))


def after(x: float) -> float:
    """The next double."""
    return math.nextafter(x, math.inf)


def depth(node: Node) -> int:
    return 1 + max(map(depth, node.children), default=0)


# ---- leaves ---------------------------------------------------------------------------------------------------------


def constant(value: float) -> Node:
    return Node("constant", first=value)


def interpolate(
    start: float, end: float, length: float, shape: tuple[str, tuple[float, ...]] = ("linear", ()), offset: float = 0.0
) -> Node:
    """From start to end along a shape, over `length` steps; `offset` of them are over at step 0."""
    name, p = shape
    if start == end:
        return constant(start)
    if name == "geometric":
        if not start * end > 0:
            raise ValueError(
                f'the shape "geometric" needs two values of one sign, got {start} and {end}; '
                'use "exponential(5)", which may start or end at 0'
            )
        p = logarithm(end / start)
    elif name == "exponential":
        p = (p[0], 1 - _core.elementary("exponential", -p[0]))
    return Node("interpolate", (end, float(length), float(offset), *p), first=start, shape=SHAPES.index(name))


# ---- what schedules are put together with ---------------------------------------------------------------------------


def sequence(*parts: tuple[Time, Node]) -> Node:
    """Each part from its start on, with its own clock; the first starts at 0."""
    if len(parts) == 1 and parts[0][0] == 0:
        return parts[0][1]
    return Node("sequence", children=tuple(node._replace(start=start) for start, node in parts))


def repeat(child: Node, period: Time, mult: float = 1, decay: float = 1, only_start: bool = False) -> Node:
    """Cycle i lasts period multⁱ, exactly; its values, or only the first, are multiplied by decayⁱ."""
    log = logarithm(decay)
    if mult == 1:
        cycles: list[Node] = []
    else:
        cycles = [
            Node("constant", (stretch, factor), start=start) for start, stretch, factor in _cycles(period, mult, decay)
        ]
    return Node("repeat", (float(period), float(mult), *log, float(only_start)), (child, *cycles))


def _cycles(period: Time, mult: float, decay: float) -> Iterator[tuple[Fraction, float, float]]:
    """(start, stretch, factor) of cycles, as far as two doubles reach, with whole numbers exact."""
    if math.log(float(1 << 53) / period * (mult - 1) + 1) > MOST_CYCLES * math.log(mult):
        raise ValueError(f"mult must be 1 or so large that {MOST_CYCLES} cycles reach 2**53 steps, got {mult}")
    start, stretch, ratio = Fraction(0), Fraction(1), Fraction(mult)
    for k in range(MOST_CYCLES):
        yield start, float(stretch), _core.elementary("power", decay, k)
        start = _rounded(start + Fraction(period) * stretch)
        stretch = _rounded(stretch * ratio)
        if start > 1 << 112:
            return


def _rounded(x: Fraction) -> Fraction:
    """To 160 bits, or powers of a number with a fraction would have thousands."""
    extra = x.denominator.bit_length() + x.numerator.bit_length() - 320
    if extra <= 0:
        return x
    scale = 1 << max(0, 160 - x.numerator.bit_length() + x.denominator.bit_length())
    return Fraction(round(x * scale), scale)


def clock(
    child: Node,
    before: float = 0.0,
    numerator: float = 1.0,
    denominator: float = 1.0,
    after: float = 0.0,
    whole: bool = False,
) -> Node:
    """The child at (t − before) numerator / denominator + after, rounded down if `whole`, never below 0."""
    return Node("clock", tuple(map(float, (before, numerator, denominator, after, whole))), (child,))


def clip(child: Node, least: float, most: float) -> Node:
    return Node("clip", (least, most), (child,))


def scale(child: Node, factor: float) -> Node:
    return child if factor == 1 else Node("scale", (factor,), (child,))


ENDS = {"hold": 0.0, "zero": 1.0, "raise": 2.0}


def end(child: Node, length: float, what: str = "hold") -> Node:
    return Node("end", (float(length), ENDS[what]), (child,))


def combine(kind: str, nodes: Iterable[Node]) -> Node:
    return Node(kind, children=tuple(nodes))


# ---- where a curve has corners and jumps ----------------------------------------------------------------------------


def _every(period: float, stop: float, offset: float = 0.0) -> list[float]:
    count = (stop + offset) / period
    if count > MOST_KNOTS:
        raise ValueError(f"there are {count:.3g} pieces up to step {stop:g}, more than {MOST_KNOTS}; ask for a part")
    return [k * period - offset for k in range(1, int(count) + 1)]


def knots(node: Node, stop: float) -> set[float]:
    """Times in (0, stop) between which the node's value is smooth; 0 and stop themselves may be among them."""
    p = node.p
    found: set[float] = set()
    match node.kind:
        case "interpolate":
            found = {p[1] - p[2]}
        case "exponential" if p[4]:
            found = set(_every(p[2], stop, p[3]))
        case "inverse_time" if p[2]:
            found = set(_every(p[1], stop))
        case "noam":
            found = {p[1] - 1}
        case "power_law" if p[0] > 0 and node.first > 0:
            found = {(node.first / p[2]) ** (1 / p[0]) / p[1]}
        case "polynomial_cycle":
            found = set(_every(p[1], stop))
        case "triangle":
            tops = _every(p[3] + p[4], stop + p[4])
            found = {*tops, *(x - p[4] for x in tops), p[3]}
        case "noise":
            found = set(_every(1, stop))
        case "sequence":
            starts = [float(c.start) for c in node.children]
            for child, begin, finish in zip(node.children, starts, [*starts[1:], stop], strict=True):
                if begin < stop:
                    found |= {
                        begin,
                        *(begin + x for x in knots(child, min(finish, stop) - begin) if begin + x < finish),
                    }
        case "repeat":
            child, *cycles = node.children
            plan = [(float(c.start), c.p[0]) for c in cycles] or [(x, 1.0) for x in (0.0, *_every(p[0], stop))]
            inner = knots(child, p[0])
            for begin, stretch in plan:
                if begin < stop:
                    found |= {begin, *(begin + x * stretch for x in inner if x < p[0])}
                if len(found) > MOST_KNOTS:
                    raise ValueError(f"there are more than {MOST_KNOTS} pieces up to step {stop:g}; ask for a part")
        case "product" | "sum" | "scale":
            found = set().union(*(knots(c, stop) for c in node.children))
        case "clip":
            found = knots(node.children[0], stop)
        case "end":
            found = {p[0], *knots(node.children[0], min(stop, p[0]))}
        case "clock":
            before, numerator, denominator, after, whole = p
            far = max(0.0, (stop - before) * numerator / denominator + after)
            inner = set(_every(1, far)) if whole else knots(node.children[0], far)
            found = {before, before - after * denominator / numerator}
            found |= {(x - after) * denominator / numerator + before for x in inner}
    return {x for x in found if 0 < x < stop}


def leaves(node: Node) -> Iterator[Node]:
    if not node.children:
        yield node
    for child in node.children:
        yield from leaves(child)
