"""Groups of parameters, each with its own hyper-parameters: given with their parameters, or by name pattern."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fastlr.hyper import Check, at_step, is_scheduled
from fastlr.structure import Many, Structure, structure_of


class Group:
    """The hyper-parameters of some parameters, as attributes.

    They may be set at any time; the next step checks them before it writes anything.

    Examples
    --------
    >>> import fastlr, numpy as np
    >>> opt = fastlr.AdamW(np.zeros(3, np.float32), lr=0.1)
    >>> opt.groups[0].lr = -1
    >>> opt.step(np.ones(3, np.float32))
    Traceback (most recent call last):
    ValueError: lr must be finite and >= 0, got -1
    """

    __slots__ = ("__dict__", "_changed", "_checks", "_label")  # __dict__ has the hyper-parameters and nothing else

    def __init__(self, label: str, checks: Mapping[str, Check], values: Mapping[str, Any], changed: list[bool]) -> None:
        for name, x in (("_label", label), ("_checks", checks), ("_changed", changed)):
            object.__setattr__(self, name, x)
        vars(self).update(values)
        changed[0] = True

    def __setattr__(self, name: str, x: Any) -> None:
        if name not in self._checks:
            raise AttributeError(self._unknown(name))
        vars(self)[name] = x
        self._changed[0] = True

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(self._unknown(name))

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} cannot be deleted; set it to its default")

    def _unknown(self, name: str) -> str:
        return f"no hyper-parameter {name!r}; there are {', '.join(self._checks)}"

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())

    def check(self, step: int = 0) -> None:
        """Replaces each value by what its check makes of it, or raises and replaces none.

        Of a schedule the value at `step` is checked; it stays a schedule.
        """
        label, values, checked = self._label, vars(self), {}
        for name, check in self._checks.items():
            x = values[name]
            if is_scheduled(x):
                at_step(label + name, check, x, step)
                checked[name] = tuple(x) if isinstance(x, list) else x
            else:
                checked[name] = check(label + name, x)
        vars(self).update(checked)

    def at(self, step: int) -> Group:
        """The group with numbers in the places of its schedules; itself if it has none."""
        values = vars(self)
        if not any(map(is_scheduled, values.values())):
            return self
        numbers = {
            name: at_step(self._label + name, self._checks[name], x, step) if is_scheduled(x) else x
            for name, x in values.items()
        }
        return Group(self._label, self._checks, numbers, [False])

    def __repr__(self) -> str:
        return f"Group({', '.join(f'{name}={x!r}' for name, x in self)})"


class Piece(NamedTuple):
    """A run of elements of one entry that belong to one group."""

    entry: int
    offset: int
    size: int
    group: int


MakeGroup = Callable[[str, Mapping[str, Any]], Group]  # from a label for errors, and hyper-parameters


def are_groups(params: Any) -> bool:
    return isinstance(params, list | tuple) and any(isinstance(x, Mapping) and "params" in x for x in params)


def explicit(
    given: Sequence[Mapping[str, Any]], make: MakeGroup, words: bool = False
) -> tuple[Structure, list[Group], list[Piece]]:
    """Groups given as dicts with "params" and hyper-parameters: the structure is a list with a part for each."""
    parts: dict[Any, Structure] = {}
    groups: list[Group] = []
    pieces: list[Piece] = []
    for k, own in enumerate(given):
        if not isinstance(own, Mapping) or "params" not in own:
            raise TypeError(f'groups[{k}] must be a dict with "params" and hyper-parameters, got {type(own).__name__}')
        groups.append(make(f"groups[{k}].", {name: x for name, x in own.items() if name != "params"}))
        parts[k] = structure_of(own["params"], f"[{k}]", words)
        pieces += [Piece(len(pieces) + j, 0, a.size, k) for j, a in enumerate(parts[k].arrays)]
    return Many(parts), groups, pieces


def matched(
    given: Sequence[Mapping[str, Any]], structure: Structure, make: MakeGroup
) -> tuple[list[Group], list[Piece]]:
    """Groups given as dicts with "match", a pattern of names, and hyper-parameters; the rest is the last group.

    Neighbours of one entry and one group are one piece.
    """
    groups = []
    for k, own in enumerate(given):
        if not isinstance(own, Mapping) or not isinstance(own.get("match"), str):
            raise TypeError(f'groups[{k}] must be a dict with "match", a pattern, and hyper-parameters, got {own!r}')
        groups.append(make(f"groups[{k}].", {name: x for name, x in own.items() if name != "match"}))
    rest = len(groups)
    pieces: list[Piece] = []
    for entry, tensors in enumerate(structure.tensors()):
        offset = 0
        for tensor in tensors:
            name, size = tensor.name, tensor.size
            if name is None:
                raise TypeError("groups by pattern need names: pass params as a FlatBuffer or a dict, or as groups")
            group = next((k for k, own in enumerate(given) if fnmatch.fnmatchcase(name, own["match"])), rest)
            if pieces and (pieces[-1].entry, pieces[-1].group) == (entry, group):
                pieces[-1] = pieces[-1]._replace(size=pieces[-1].size + size)
            else:
                pieces.append(Piece(entry, offset, size, group))
            offset += size
    used = {piece.group for piece in pieces}
    for k, own in enumerate(given):
        if k not in used:
            raise ValueError(
                f"groups[{k}]: no parameter is left for the pattern {own['match']!r}; "
                "remove it or put it before the others"
            )
    if rest in used:
        groups.append(make(f"groups[{rest}].", {}))
    return groups, pieces


def apart(pieces: Sequence[Piece], structure: Structure) -> list[Piece]:
    """The pieces cut where a tensor ends: one each, for rules that treat each by itself."""
    left = iter([piece for piece in pieces if piece.size])
    cut = []
    for entry, tensors in enumerate(structure.tensors()):
        offset = end = 0
        for tensor in tensors:
            if tensor.size and offset == end:
                piece = next(left)
                end = piece.offset + piece.size
            if tensor.size:
                cut.append(Piece(entry, offset, tensor.size, piece.group))
            offset += tensor.size
    return cut
