"""The protocol that training and tuning share: `objective(params, step) -> (loss, grads)`.

The loss is a number; the gradients have the structure of the parameters, and may be the same buffers at every call. The
step is the 0-based number of the update that the gradients are for: an objective that draws its batch from it, and from
nothing else, can be repeated, resumed and replayed. One that draws from a generator says so with an attribute ``rng``
(a `numpy.random.Generator`) or with ``state_dict`` and ``load_state_dict``, and is restored too.
"""

from __future__ import annotations

import copy
import math
import numbers
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastlr.buffers import Array, as_array
from fastlr.optimizer import Optimizer
from fastlr.structure import Structure, structure_of

Objective = Callable[[Any, int], tuple[float, Any]]


class Problem:
    """An objective with its parameters: evaluations that are checked, and the parameters as one vector.

    Parameters
    ----------
    objective : callable
        ``objective(params, step) -> (loss, grads)``.
    params : array, list or dict of arrays, or FlatBuffer
        What the objective is called with.
    structure : Structure, optional
        The parameters as the optimizer sees them; those of `params` unless given.
    """

    def __init__(self, objective: Objective, params: Any, structure: Structure | None = None) -> None:
        if not callable(objective):
            raise TypeError(
                f"objective must be callable as objective(params, step) -> (loss, grads), got {objective!r}"
            )
        self.objective, self.params = objective, params
        self.structure = structure_of(params) if structure is None else structure
        self.arrays = self.structure.arrays
        self.size = sum(a.size for a in self.arrays)

    def evaluate(self, step: int) -> tuple[float, Any]:
        """Loss and gradients as the objective returns them; the loss is a float, and may be nan or inf."""
        result = self.objective(self.params, step)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise TypeError(f"objective must return (loss, grads), got {_what(result)}")
        return scalar("the loss of the objective", result[0]), result[1]

    def first(self, step: int = 0) -> tuple[float, Any]:
        """The same, where everything about the result is checked: to be called before anything is changed."""
        loss, grads = self.evaluate(step)
        if not math.isfinite(loss):
            raise ValueError(
                f"the loss of the objective must be finite at the start, got {loss}; check the data and the parameters"
            )
        self.entries(grads)
        return loss, grads

    def entries(self, grads: Any) -> list[Array | None]:
        """The gradients as arrays, one an entry of the parameters, shapes and types checked."""
        return entries(self.structure, grads)

    def vector(self) -> Array:
        """The parameters as one new float64 vector."""
        return joined(self.arrays)

    def put(self, vector: Array) -> None:
        """Sets the parameters to `vector`."""
        for a, part in zip(self.arrays, split(vector, self.arrays), strict=True):
            a[...] = part

    def gradient(self, step: int) -> Array:
        """The gradient at the parameters as one new float64 vector."""
        return self.gradient_of(self.evaluate(step)[1])

    def gradient_of(self, grads: Any) -> Array:
        found = zip(self.entries(grads), self.arrays, strict=True)
        return joined([np.zeros_like(p) if g is None else g for g, p in found])


class Snapshot:
    """Parameters, optimizer and random generators as they are now; `restore` brings back every bit of them."""

    def __init__(self, problem: Problem, optimizer: Optimizer | None = None) -> None:
        self._problem, self._optimizer = problem, optimizer
        self._arrays = [a.copy() for a in problem.arrays]
        self._state = None if optimizer is None else optimizer.state_dict()
        self._rates = None if optimizer is None else [group.lr for group in optimizer.groups]
        self._random = random_state(problem.objective)

    def restore(self, generators: bool = True) -> None:
        for a, before in zip(self._problem.arrays, self._arrays, strict=True):
            a[...] = before
        if self._optimizer is not None and self._state is not None and self._rates is not None:
            for group, lr in zip(self._optimizer.groups, self._rates, strict=True):
                group.lr = lr
            self._optimizer.load_state_dict(self._state)
        if generators:
            restore_random(self._problem.objective, self._random)


def random_state(objective: Any) -> dict[str, Any]:
    """Everything that draws random numbers, as plain data: the objective's own, Python's, NumPy's and torch's."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [name, np.array(keys), position, has_gauss, cached],
    }
    if hasattr(objective, "state_dict") and hasattr(objective, "load_state_dict"):
        state["objective"] = copy.deepcopy(objective.state_dict())
    elif isinstance(rng := getattr(objective, "rng", None), np.random.Generator):
        state["rng"] = copy.deepcopy(rng.bit_generator.state)
    if (torch := sys.modules.get("torch")) is not None:
        state["torch"] = torch.get_rng_state().numpy().copy()
    return state


def restore_random(objective: Any, state: Mapping[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))
    if "objective" in state:
        objective.load_state_dict(copy.deepcopy(state["objective"]))
    if "rng" in state:
        objective.rng.bit_generator.state = state["rng"]
    if "torch" in state and (torch := sys.modules.get("torch")) is not None:
        torch.set_rng_state(torch.from_numpy(state["torch"].copy()))


def scalar(name: str, x: object) -> float:
    """`x` as a float: a number, or an array or tensor of one element. It may be nan or inf."""
    if isinstance(x, numbers.Real) and not isinstance(x, bool):
        return float(x)
    size, item = getattr(x, "size", None), getattr(x, "item", None)
    if size is not None and item is not None and (math.prod(size()) if callable(size) else size) == 1:
        value = item()
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            return float(value)
    raise TypeError(f"{name} must be a number, got {_what(x)}")


def entries(structure: Structure, grads: Any) -> list[Array | None]:
    """Gradients as arrays, one an entry of the parameters that `structure` is of, shapes and types checked."""
    found: list[Array | None] = []
    for label, p, entry in zip(structure.names, structure.arrays, structure.take(grads), strict=True):
        if entry is None:
            found.append(None)
            continue
        g = as_array(name := "grads" + label, entry)
        if g.dtype != p.dtype:
            raise TypeError(f"{name}: expected {p.dtype} to match the parameters, got {g.dtype}")
        if g.shape != p.shape:
            raise ValueError(f"{name}: expected shape {p.shape} to match the parameter, got {g.shape}")
        found.append(g)
    return found


def joined(arrays: Sequence[Array]) -> Array:
    """All elements as one new float64 vector."""
    return np.concatenate([np.asarray(a, np.float64).reshape(-1) for a in arrays])


def split(vector: Array, arrays: Sequence[Array]) -> list[Array]:
    """The parts of `vector` in the shapes of `arrays`; undoes `joined`, but for the types."""
    ends = np.cumsum([a.size for a in arrays])[:-1]
    return [part.reshape(a.shape) for part, a in zip(np.split(vector, ends), arrays, strict=True)]


def norm(arrays: Sequence[Array | None]) -> float:
    """The Euclidean norm over all of them."""
    total = 0.0
    with np.errstate(all="ignore"):  # what overflows is ∞, and is meant to be seen as that
        for a in arrays:
            if a is not None and a.size:
                flat = a.reshape(-1)
                square = float(np.dot(flat, flat))
                if not 1e-30 < square < 1e30 and flat.dtype != np.float64:  # float32 loses it at either end
                    wide = flat.astype(np.float64)
                    square = float(np.dot(wide, wide))
                total += square
    return math.sqrt(total)


def _what(x: object) -> str:
    shape = getattr(x, "shape", None)
    return f"{type(x).__name__} of shape {tuple(shape)}" if shape is not None else f"{x!r} ({type(x).__name__})"
