"""What lies beside a parameter in an optimizer's state: which tensors, of what shape and dtype, and how they begin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from fastlr import _core
from fastlr.groups import Group
from fastlr.optimizer import Optimizer as Rule
from fastlr.plain import overrides
from fastlr.precision import Precision
from fastlr.structure import structure_of
from fastlr.torch.layout import DTYPES, HALVES, empty_like, make_like, run_of

STORED = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.uint8}
BESIDE = {"f": torch.float32, "d": torch.float64, "H": torch.int16}  # of words, which torch can pickle


class Kept(NamedTuple):
    """What a rule keeps for parameters of one dtype, by the letters of its states and the keys of `Precision.keeps`."""

    cls: type[Rule]
    precision: Precision
    formats: Mapping[str, str]
    squares: Mapping[str, bool]

    @classmethod
    def of(cls, rule: type[Rule], kernel: str, states: Sequence[str], given: Precision, dtype: Any) -> Kept:
        """Raises the error that says what cannot be stored as the user has it."""
        precision = given if dtype in HALVES else given._replace(master=None, rounding="nearest")
        precision.check(DTYPES[dtype], rule)
        if dtype.is_complex and not precision.plain:
            raise TypeError("state_dtype must be 'float32' and ema None for complex parameters")
        squares, _ = _core.state_bits(kernel)
        signs = {key: bool(squares >> j & 1) for j, key in enumerate(states)}
        return cls(rule, precision, precision.formats(rule, kernel, states), signs)

    def like(self, key: str, name: str, p: Any) -> Any:
        """A tensor without memory of which it has shape, dtype and strides; None if `p`, called `name`, has no such."""
        if key in self.precision.keeps:
            return empty_like(p, BESIDE[self.precision.kept_as(key, DTYPES[p.dtype]).char])
        if extent := self.cls.per_row.get(key):
            return empty_like(p, torch.int64 if extent == "count" else p.dtype, p.shape[:1])
        stored = self.formats.get(key, "float32")
        if stored == "int8":
            if not p.is_contiguous():
                raise ValueError(
                    f"{name} must be contiguous for state_dtype='int8', whose blocks have the order of memory, "
                    f"got strides {tuple(p.stride())}"
                )
            return empty_like(p, torch.uint8, (_core.packed_size(p.numel()),))
        dtype = STORED[stored] if stored != "float32" or p.dtype in HALVES else p.dtype
        if not overrides(self.cls, "layout"):
            return empty_like(p, dtype)
        (array,) = self.cls.layout(key, structure_of(np.empty(tuple(p.shape), np.float32))).arrays
        return empty_like(p, dtype, array.shape) if math.prod(array.shape) else None

    def make(self, key: str, likes: Sequence[Any], params: Sequence[Any], groups: Sequence[Group]) -> list[Any]:
        """What it is before the first step, for parameters of some groups."""
        made = make_like(likes)
        if key in self.precision.keeps:
            first = self.precision.beside(structure_of([run_of(p) for p in params], words=True), None)[key]
            for x, a in zip(made, first, strict=True):
                run_of(x)[:] = a
            return made
        for x, p, group in zip(made, params, groups, strict=True):
            value = self.cls.initial(key, group)
            if value and self.formats.get(key) == "int8":
                _core.pack(np.full(p.numel(), value, np.float32), run_of(x), self.squares[key])
            elif value:
                (torch.view_as_real(x) if x.is_complex() else x).fill_(value)
        return made


def check_state(name: str, x: Any, like: Any, p: Any) -> None:
    """Raises the error that says why a state does not fit its parameter."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    if x.dtype != like.dtype:
        raise TypeError(
            f"{name} must be {like.dtype} for the parameter's {p.dtype}, got {x.dtype}; nothing is converted "
            "silently - make the optimizer after model.to(dtype) and with the state_dtype of the checkpoint, or "
            "convert that"
        )
    if x.shape != like.shape:
        raise ValueError(
            f"{name} must have shape {tuple(like.shape)} for the parameter's {tuple(p.shape)}, got {tuple(x.shape)}"
        )
