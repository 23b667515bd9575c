"""What `search` may choose from: ranges, drawn evenly in their logarithm, and lists of values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastlr.hyper import positive

Values = dict[str, Any]


@dataclass(frozen=True)
class Axis:
    """One of the names: its bounds if `log`, else its choices."""

    given: Sequence[Any]
    log: bool

    def at(self, u: float) -> Any:
        """The value at u in [0, 1]."""
        if not self.log:
            return self.given[min(int(u * len(self.given)), len(self.given) - 1)]
        low, high = map(math.log, self.given)
        return min(max(math.exp(low + (high - low) * u), self.given[0]), self.given[1])

    def of(self, value: Any) -> float:
        """Where in [0, 1] a value lies."""
        if not self.log:
            return (list(self.given).index(value) + 0.5) / len(self.given)
        low, high = map(math.log, self.given)
        return (math.log(value) - low) / (high - low)


def axes(space: object) -> dict[str, Axis]:
    """The space that a user gave, checked."""
    if not isinstance(space, Mapping) or not space:
        raise TypeError(f"space must be a dict of names to bounds or lists, got {space!r}")
    return {key: _axis(key, given) for key, given in space.items()}


def _axis(name: str, given: Any) -> Axis:
    if isinstance(given, list) and given:
        for x in given:
            if not isinstance(x, str | int | float | bool | None):
                raise TypeError(f"space[{name!r}]: choices must be numbers, strings, bools or None, got {x!r}")
        return Axis(given, log=False)
    if not isinstance(given, tuple) or len(given) != 2:
        raise TypeError(f"space[{name!r}] must be (low, high) or a list of choices, got {given!r}")
    low, high = positive(f"space[{name!r}][0]", given[0]), positive(f"space[{name!r}][1]", given[1])
    if low >= high:
        raise ValueError(f"space[{name!r}]: low must be below high, got {given}")
    return Axis((low, high), log=True)


def grid(axes: Mapping[str, Axis], budget: int) -> list[Values]:
    """Every combination, as fine as the budget allows."""
    fixed = math.prod(len(a.given) for a in axes.values() if not a.log)
    ranges = sum(a.log for a in axes.values())
    levels = int((budget / fixed) ** (1 / ranges) + 1e-9) if ranges else 1
    if levels < 1 or fixed > budget:
        raise ValueError(f"budget must be at least {fixed} for this grid, got {budget}")
    places = [
        list(a.given) if not a.log else [a.at(0.5 if levels == 1 else k / (levels - 1)) for k in range(levels)]
        for a in axes.values()
    ]
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*places)]
