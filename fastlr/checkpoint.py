"""Checkpoints of an optimizer as plain dicts: strict, transactional, exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlr.buffers import Array
from fastlr.structure import Structure

if TYPE_CHECKING:
    from fastlr.optimizer import Optimizer

FORMAT = 1


def save(opt: Optimizer) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "rule": opt.rule,
        "step": opt._plan.step_count,
        "steps": opt._plan.steps_made,
        "groups": [{name: None if callable(x) else x for name, x in group} for group in opt.groups],
        "state": {
            key: {name: a.copy() for name, a in opt._structure.named(arrays).items()}
            for key, arrays in opt._entries.items()
        },
    }


def load(opt: Optimizer, saved: Mapping[str, Any]) -> None:
    """Checks everything, then changes everything in one call that cannot be interrupted."""
    _expect("state_dict", set(saved), {"format", "rule", "step", "steps", "groups", "state"})
    _expect("state_dict['format']", saved["format"], FORMAT)
    _expect("state_dict['rule']", saved["rule"], opt.rule)
    _expect("state_dict['groups']: count", len(saved["groups"]), len(opt.groups))
    _expect("state_dict['steps']: count", len(saved["steps"]), len(opt._structure.arrays))
    _expect("state_dict['state']", set(saved["state"]), set(opt.states))
    step = _count("state_dict['step']", saved["step"])
    steps = [_count(f"state_dict['steps'][{k}]", t) for k, t in enumerate(saved["steps"])]
    groups = [
        (vars(group), _hypers(opt, f"state_dict['groups'][{k}]", saved["groups"][k], group.lr))
        for k, group in enumerate(opt.groups)
    ]
    state = {key: _collect(opt._structure, f"state_dict['state'][{key!r}]", saved["state"][key]) for key in opt.states}
    opt._plan.load(state, step, steps, groups)
    opt._changed[0] = True


def _hypers(opt: Optimizer, label: str, own: Mapping[str, Any], lr: Any) -> dict[str, Any]:
    """The hyper-parameters of a group; `lr` is its present one, which stays if it is a function."""
    _expect(label, set(own), set(opt.checks()))
    if callable(lr) != (own["lr"] is None):
        raise ValueError(
            f"{label}['lr'] was {'a function' if own['lr'] is None else own['lr']} when it was saved, "
            f"and this optimizer's is {lr!r}; build the optimizer with the same kind"
        )
    group = opt._group(f"{label}.", {**own, "lr": lr if own["lr"] is None else own["lr"]})
    opt.kernel(group)
    return vars(group)


def _collect(structure: Structure, label: str, saved: Mapping[str, Any]) -> list[Array]:
    """New arrays, one an entry, from saved ones by name."""
    entries = [np.empty_like(a) for a in structure.arrays]
    places = structure.named(entries)
    _expect(label, set(saved), set(places))
    for name, place in places.items():
        array = np.asarray(saved[name])
        _expect(f"{label}[{name!r}]: dtype", array.dtype, place.dtype)
        _expect(f"{label}[{name!r}]: shape", array.shape, place.shape)
        place[...] = array
    return entries


def _expect(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise ValueError(f"{what} must be {wanted!r}, got {found!r}")


def _count(what: str, x: object) -> int:
    if isinstance(x, bool) or not isinstance(x, int | np.integer) or x < 0:
        raise ValueError(f"{what} must be an integer >= 0, got {x!r}")
    return int(x)
