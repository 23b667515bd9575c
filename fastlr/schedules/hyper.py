"""`HyperSchedule`: schedules for several hyper-parameters at once, with multipliers for groups of parameters."""

from __future__ import annotations

import json
import numbers
from collections.abc import Iterator, Mapping
from typing import Any

from fastlr.hyper import real
from fastlr.schedules import recipes
from fastlr.schedules.schedule import Endpoint, Floats, Schedule, ShapeName, Steps

Value = float | Schedule | tuple["float | Schedule", ...]


class HyperSchedule(Mapping[str, Any]):
    """Hyper-parameters by name, each a number, a schedule, or a tuple of these: immutable, hashable, comparable.

    A mapping, so an optimizer takes it whole: ``fastlr.AdamW(params, **hypers)``.

    Parameters
    ----------
    groups : mapping of str to mapping of str to float, optional
        For each group of parameters, factors on hyper-parameters: ``{"backbone": {"lr": 0.1}}``.
    **hypers
        The hyper-parameters.

    Examples
    --------
    >>> from fastlr import schedules as S
    >>> h = S.HyperSchedule(lr=S.linear(1.0, 0.0, 100), betas=(0.9, S.linear(0.5, 1.0, 100)),
    ...                     groups={"head": {"lr": 10}})
    >>> h(50)
    {'lr': 0.5, 'betas': (0.9, 0.75)}
    >>> h.group("head")(50)["lr"]
    5.0
    """

    __slots__ = ("_groups", "_hypers")

    def __init__(self, *, groups: Mapping[str, Mapping[str, float]] | None = None, **hypers: Any) -> None:
        if not hypers:
            raise TypeError("at least one hyper-parameter must be given, such as lr=")
        self._hypers: dict[str, Any] = {name: _checked(name, x) for name, x in hypers.items()}
        self._groups = {
            group: {name: real(f"groups[{group!r}][{name!r}]", x) for name, x in own.items()}
            for group, own in (groups or {}).items()
        }
        for group, own in self._groups.items():
            for name in own:
                if name not in self._hypers:
                    raise TypeError(f"groups[{group!r}]: there is no {name!r}; there are {', '.join(self._hypers)}")

    @classmethod
    def one_cycle(
        cls,
        peak: float,
        steps: Steps,
        momentum: tuple[float, float] = (0.85, 0.95),
        warm: float = 0.3,
        div: float = 25.0,
        final_div: float = 1e4,
        shape: ShapeName = "cosine",
        three_phase: bool = False,
        endpoint: Endpoint = "exclusive",
        beta2: float | None = None,
    ) -> HyperSchedule:
        """One cycle of the rate, and the opposite one of the momentum, or with `beta2` of the first of `betas`."""
        low, high = momentum
        lr = recipes.one_cycle(peak, steps, warm, div, final_div, shape, three_phase, endpoint)
        other = recipes.cycle(high, low, high, high, steps, warm, shape, three_phase, endpoint)
        return cls(lr=lr, momentum=other) if beta2 is None else cls(lr=lr, betas=(other, beta2))

    def __getitem__(self, name: str) -> Any:
        return self._hypers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._hypers)

    def __len__(self) -> int:
        return len(self._hypers)

    def __call__(self, n: float) -> dict[str, Any]:
        """The numbers of update n."""
        return {name: _at(x, n) for name, x in self._hypers.items()}

    def table(self, steps: Any) -> dict[str, Floats | tuple[Floats, ...]]:
        """An array for each hyper-parameter, of its values at an array of steps."""
        import numpy as np

        def values(x: Any) -> Any:
            if isinstance(x, tuple):
                return tuple(map(values, x))
            return x(np.asarray(steps)) if isinstance(x, Schedule) else np.full(np.shape(steps), float(x))

        return {name: values(x) for name, x in self._hypers.items()}

    @property
    def groups(self) -> dict[str, dict[str, float]]:
        return {group: dict(own) for group, own in self._groups.items()}

    def group(self, name: str) -> HyperSchedule:
        """The hyper-parameters of a group: those with a factor, multiplied by it."""
        if name not in self._groups:
            raise KeyError(f"there is no group {name!r}; there are {', '.join(self._groups) or 'none'}")
        own = self._groups[name]
        return HyperSchedule(**{key: _scaled(x, own.get(key, 1.0)) for key, x in self._hypers.items()})

    def bind(self, **sizes: float) -> HyperSchedule:
        """All schedules bound: see `Schedule.bind`."""

        def bound(x: Any) -> Any:
            if isinstance(x, tuple):
                return tuple(map(bound, x))
            return x.bind(**sizes) if isinstance(x, Schedule) else x

        return HyperSchedule(groups=self._groups, **{name: bound(x) for name, x in self._hypers.items()})

    def to_json(self) -> str:
        """As JSON; see `from_json`."""

        def plain(x: Any) -> Any:
            if isinstance(x, tuple):
                return [plain(part) for part in x]
            return x.to_dict() if isinstance(x, Schedule) else x

        hypers = {name: plain(x) for name, x in self._hypers.items()}
        return json.dumps({"format": "fastlr.hyper", "version": 1, "hypers": hypers, "groups": self._groups})

    @staticmethod
    def from_json(text: str) -> HyperSchedule:
        """What `to_json` wrote."""
        saved = json.loads(text)
        if saved.get("format") != "fastlr.hyper" or saved.get("version") != 1:
            raise ValueError(f"hyper-parameters of version 1 must be given, got {saved.get('format')!r}")

        def rich(x: Any) -> Any:
            if isinstance(x, list):
                return tuple(map(rich, x))
            return Schedule.from_dict(x) if isinstance(x, dict) else x

        return HyperSchedule(groups=saved["groups"], **{name: rich(x) for name, x in saved["hypers"].items()})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HyperSchedule):
            return NotImplemented
        return self._hypers == other._hypers and self._groups == other._groups

    def __hash__(self) -> int:
        return hash((tuple(self._hypers.items()), tuple((g, tuple(own.items())) for g, own in self._groups.items())))

    def __repr__(self) -> str:
        shown = [f"{name}={x!r}" for name, x in self._hypers.items()]
        return f"S.HyperSchedule({', '.join(shown + ([f'groups={self._groups!r}'] if self._groups else []))})"


def _checked(name: str, x: Any) -> Any:
    if isinstance(x, Schedule):
        return x
    if isinstance(x, tuple | list):
        return tuple(_checked(f"{name}[{k}]", part) for k, part in enumerate(x))
    if isinstance(x, numbers.Real):
        return x if isinstance(x, bool) else real(name, x)
    raise TypeError(f"{name} must be a number, a schedule or a tuple of these, got {x!r}")


def _at(x: Any, n: float) -> Any:
    if isinstance(x, tuple):
        return tuple(_at(part, n) for part in x)
    return x(n) if isinstance(x, Schedule) else x


def _scaled(x: Any, factor: float) -> Any:
    if factor == 1:
        return x
    if isinstance(x, tuple):
        return tuple(_scaled(part, factor) for part in x)
    return x * factor
