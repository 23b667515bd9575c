"""The structure of a model: how parameters, gradients and state of one shape are taken apart and put together.

An optimizer sees a list of *entries*, one an array (a `FlatBuffer` is one). A structure turns what the user holds
into that list, and a list of arrays, one an entry, into what the user holds.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastlr.buffers import HALVES, Array, FlatBuffer, allocate, param_array

Reshape = Callable[[tuple[int, ...]], tuple[int, ...]]


class Tensor(NamedTuple):
    """A parameter as rules that treat each by itself see it: a run of elements of an entry."""

    name: str | None
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


class Layout(ABC):
    """How something is kept for each entry: in the `arrays`, or others like them."""

    arrays: list[Array]

    @abstractmethod
    def build(self, arrays: Sequence[Array]) -> Any:
        """What the user holds, over one array an entry."""

    @abstractmethod
    def named(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """The same by name, for checkpoints: views, one a parameter."""


class Structure(Layout):
    """`arrays` has the parameters' entries; `names` what errors call them, after "params" or "grads"."""

    names: list[str]

    @abstractmethod
    def take(self, grads: Any, name: str = "grads") -> Sequence[Any]:
        """The entries of gradients of this structure; None where an entry has none."""

    @abstractmethod
    def shaped(self, reshape: Reshape) -> Structure:
        """Zeros in this structure, each tensor of the shape that is made of its own."""

    def tensors(self) -> list[list[Tensor]]:
        """For each entry, its parameters in order; name None where they have none."""
        return [[Tensor(None, a.shape)] for a in self.arrays]


class One(Structure):
    def __init__(self, x: object, name: str, words: bool = False) -> None:
        self.arrays, self.names = [param_array("params" + name, x, words)], [name]

    def take(self, grads: Any, name: str = "grads") -> Sequence[Any]:
        return (grads,)

    def build(self, arrays: Sequence[Array]) -> Any:
        return arrays[0]

    def named(self, arrays: Sequence[Array]) -> dict[str, Array]:
        return {"0": arrays[0]}

    def shaped(self, reshape: Reshape) -> Structure:
        (model,) = self.arrays
        shape = reshape(model.shape)
        return One(allocate(math.prod(shape), model.dtype).reshape(shape), self.names[0], words=True)


class Flat(Structure):
    def __init__(self, buffer: FlatBuffer, name: str) -> None:
        self.shapes = buffer.shapes
        self.arrays, self.names = [buffer.data], [name]

    def take(self, grads: Any, name: str = "grads") -> Sequence[Any]:
        if isinstance(grads, FlatBuffer):
            if grads.shapes != self.shapes:
                raise ValueError(
                    f"{name}: expected a FlatBuffer of the parameters' layout, got another; use params.like()"
                )
            return (grads if grads.dtype == HALVES["H"] else grads.data,)  # the buffer knows that they are bfloat16
        return (grads,)

    def build(self, arrays: Sequence[Array]) -> Any:
        return FlatBuffer.over(self.shapes, arrays[0])

    def named(self, arrays: Sequence[Array]) -> dict[str, Array]:
        buffer = FlatBuffer.over(self.shapes, arrays[0])
        return {name: buffer[name] for name in buffer}

    def shaped(self, reshape: Reshape) -> Structure:
        shapes = {name: reshape(shape) for name, shape in self.shapes.items()}
        return Flat(FlatBuffer(shapes, self.arrays[0].dtype), self.names[0])

    def tensors(self) -> list[list[Tensor]]:
        return [[Tensor(name, shape) for name, shape in self.shapes.items()]]


class Many(Structure):
    """Parts under keys: a list, a dict, or a list of groups."""

    def __init__(self, parts: dict[Any, Structure]) -> None:
        self.parts = parts
        self.arrays = [a for part in parts.values() for a in part.arrays]
        self.names = [n for part in parts.values() for n in part.names]
        self.simple = all(isinstance(part, One) for part in parts.values())

    def _split(self, arrays: Sequence[Array]) -> dict[Any, Sequence[Array]]:
        split, start = {}, 0
        for key, part in self.parts.items():
            split[key] = arrays[start : start + len(part.arrays)]
            start += len(part.arrays)
        return split

    def _values(self, grads: Any, name: str) -> Sequence[Any]:
        if not isinstance(grads, list | tuple):
            raise TypeError(f"{name} must be a list like the parameters, got {type(grads).__name__}")
        if len(grads) != len(self.parts):
            raise ValueError(f"{name} must have {len(self.parts)} entries like the parameters, got {len(grads)}")
        return grads

    def take(self, grads: Any, name: str = "grads") -> Sequence[Any]:
        values = self._values(grads, name)
        if self.simple:
            return values
        entries: list[Any] = []
        for (key, part), value in zip(self.parts.items(), values, strict=True):
            entries += [None] * len(part.arrays) if value is None else part.take(value, f"{name}[{key!r}]")
        return entries

    def build(self, arrays: Sequence[Array]) -> Any:
        return [self.parts[key].build(some) for key, some in self._split(arrays).items()]

    def named(self, arrays: Sequence[Array]) -> dict[str, Array]:
        return {
            str(key) if isinstance(self.parts[key], One) else f"{key}.{name}": array
            for key, some in self._split(arrays).items()
            for name, array in self.parts[key].named(some).items()
        }

    def shaped(self, reshape: Reshape) -> Structure:
        return type(self)({key: part.shaped(reshape) for key, part in self.parts.items()})

    def tensors(self) -> list[list[Tensor]]:
        return [entry for part in self.parts.values() for entry in part.tensors()]


class Named(Many):
    def _values(self, grads: Any, name: str) -> Sequence[Any]:
        if not isinstance(grads, Mapping):
            raise TypeError(f"{name} must be a mapping like the parameters, got {type(grads).__name__}")
        if grads.keys() != self.parts.keys():
            wrong = sorted(map(str, grads.keys() ^ self.parts.keys()))
            raise ValueError(f"{name} must have the keys of the parameters; missing or unknown: {', '.join(wrong)}")
        return [grads[key] for key in self.parts]

    def build(self, arrays: Sequence[Array]) -> Any:
        return {key: self.parts[key].build(some) for key, some in self._split(arrays).items()}

    def tensors(self) -> list[list[Tensor]]:
        return [[Tensor(str(key), part.arrays[0].shape)] for key, part in self.parts.items()]


def tensors_of(structure: Structure, pieces: Sequence[tuple[int, int, int, int]]) -> list[Tensor]:
    """The tensor of each piece, where these are cut at tensors: see `groups.apart`."""
    tensors = [tensor for entry in structure.tensors() for tensor in entry]
    return tensors if len(tensors) == len(pieces) else [tensor for tensor in tensors if tensor.size]


def structure_of(params: Any, name: str = "", words: bool = False) -> Structure:
    """The structure of an array, a FlatBuffer, or a list or dict of arrays; with `words` uint16 are bfloat16."""
    if isinstance(params, FlatBuffer):
        param_array("params" + name, params, words)
        return Flat(params, name)
    if isinstance(params, Mapping):
        return Named({key: One(x, f"{name}[{key!r}]", words) for key, x in params.items()})
    if isinstance(params, list | tuple):
        return Many({k: One(x, f"{name}[{k}]", words) for k, x in enumerate(params)})
    return One(params, name, words)
