"""Checkpoints of an optimizer as plain dicts: strict, transactional, exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlr.buffers import Array
from fastlr.hyper import is_scheduled
from fastlr.storage import Bfloat16, kind
from fastlr.structure import Layout

if TYPE_CHECKING:
    from fastlr.optimizer import Optimizer

FORMAT = 1


def save(opt: Optimizer) -> dict[str, Any]:
    saved = {
        "format": FORMAT,
        "rule": _rule(opt),
        "step": opt._plan.step_count,
        "steps": opt._plan.steps_made,
        "numbers": opt._plan.numbers,
        "groups": [{name: None if _is_function(x) else x for name, x in group} for group in opt.groups],
        "state": {
            key: {name: _copied(opt, key, a) for name, a in opt._layouts[key].named(arrays).items()}
            for key, arrays in opt._entries.items()
        },
    }
    if not opt._precision.plain:
        saved["storage"] = opt._precision.saved(opt._structure, opt._pieces)
        saved["beside"] = {
            key: {name: _copied(opt, key, a) for name, a in opt._structure.named(arrays).items()}
            for key, arrays in _beside(opt).items()
        }
    return saved


def _beside(opt: Optimizer) -> dict[str, list[Array]]:
    """What belongs in a checkpoint of what is kept beside the state."""
    return {key: arrays for key, arrays in opt._beside.items() if key != "copy"}


def _halves(opt: Optimizer) -> set[str]:
    """What is bfloat16: of bfloat16 parameters what their rounding lost, too."""
    return {"lost"} | {key for key, dtype in opt._formats.items() if dtype == "bfloat16"}


def _copied(opt: Optimizer, key: str, x: Array) -> Array:
    copy: Array = x.copy()
    return copy.view(Bfloat16) if key in _halves(opt) else copy


def load(opt: Optimizer, saved: Mapping[str, Any]) -> None:
    """Checks everything, then changes everything in one call that cannot be interrupted."""
    keys = {"format", "rule", "step", "steps", "numbers", "groups", "state"}
    plain = opt._precision.plain
    _expect("state_dict", set(saved), keys if plain else keys | {"storage", "beside"})
    if not plain:
        _expect("state_dict['storage']", saved["storage"], opt._precision.saved(opt._structure, opt._pieces))
        _expect("state_dict['beside']", set(saved["beside"]), set(_beside(opt)))
    _expect("state_dict['format']", saved["format"], FORMAT)
    _expect("state_dict['rule']", saved["rule"], _rule(opt))
    _expect("state_dict['groups']: count", len(saved["groups"]), len(opt.groups))
    _expect("state_dict['steps']: count", len(saved["steps"]), len(opt._structure.arrays))
    _expect("state_dict['state']", set(saved["state"]), set(opt.states))
    step = _count("state_dict['step']", saved["step"])
    steps = [_count(f"state_dict['steps'][{k}]", t) for k, t in enumerate(saved["steps"])]
    numbers = _numbers(opt, saved["numbers"])
    groups = [
        (vars(group), _hypers(opt, f"state_dict['groups'][{k}]", saved["groups"][k], vars(group)))
        for k, group in enumerate(opt.groups)
    ]
    halves = _halves(opt)
    state = {
        key: _collect(layout, opt._entries[key], f"state_dict['state'][{key!r}]", saved["state"][key], key in halves)
        for key, layout in opt._layouts.items()
    }
    for key, arrays in _beside(opt).items():
        label = f"state_dict['beside'][{key!r}]"
        state[key] = _collect(opt._structure, arrays, label, saved["beside"][key], key in halves)
    opt._plan.load(state, step, steps, numbers, groups)
    opt._changed[0] = True


def _rule(opt: Optimizer) -> str:
    """Its name, without the number that a rule made at run time has in this process: see custom.py."""
    return opt.rule.partition("#")[0]


def _is_function(x: Any) -> bool:
    """Of the step: it has no place in a checkpoint."""
    return callable(x) or is_scheduled(x)


def _hypers(opt: Optimizer, label: str, own: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters of a group; of the present ones those stay that are functions or schedules."""
    _expect(label, set(own), set(opt.checks()))
    for name, x in present.items():
        if x is not None and _is_function(x) != (own[name] is None):  # None may be a value, too
            raise ValueError(
                f"{label}[{name!r}] was {'a function' if own[name] is None else own[name]} when it was saved, "
                f"and this optimizer's is {x!r}; build the optimizer with the same kind"
            )
    group = opt._group(f"{label}.", {name: present[name] if x is None else x for name, x in own.items()})
    opt.kernel(group.at(0))
    return vars(group)


def _collect(structure: Layout, present: list[Array], label: str, saved: Mapping[str, Any], half: bool) -> list[Array]:
    """New arrays like the present ones, one an entry, from saved ones by name."""
    entries = [np.empty_like(a) for a in present]
    places = structure.named(entries)
    _expect(label, set(saved), set(places))
    for name, place in places.items():
        array = np.asanyarray(saved[name])
        _expect(f"{label}[{name!r}]: dtype", kind(array), "bfloat16" if half else kind(place))
        _expect(f"{label}[{name!r}]: shape", array.shape, place.shape)
        place[...] = array
    return entries


def _numbers(opt: Optimizer, saved: Any) -> list[list[float]]:
    """What the rule carries from step to step beside its buffers."""
    label, wanted = "state_dict['numbers']", [len(row) for row in opt._plan.numbers]
    _expect(f"{label}: counts", [len(row) for row in saved], wanted)
    for row in saved:
        for x in row:
            if isinstance(x, bool) or not isinstance(x, int | float | np.number):
                raise TypeError(f"{label} must be lists of numbers, got {x!r}")
    return [[float(x) for x in row] for row in saved]


def _expect(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise ValueError(f"{what} must be {wanted!r}, got {found!r}")


def _count(what: str, x: object) -> int:
    if isinstance(x, bool) or not isinstance(x, int | np.integer) or x < 0:
        raise ValueError(f"{what} must be an integer >= 0, got {x!r}")
    return int(x)
