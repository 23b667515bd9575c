"""How an optimizer's numbers are stored: in how many bits, rounded how, and what is kept beside them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlr import _core
from fastlr.buffers import DTYPES, HALVES, Array, allocate, param_array
from fastlr.hyper import choice, fraction
from fastlr.structure import Layout, Structure

STATE_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(np.uint16),
    "int8": np.dtype(np.uint8),
}

Pieces = Sequence[tuple[int, int, int, int]]


def to_float32(x: Array) -> npt.NDArray[np.float32]:
    """float32 copies of float16, or of uint16 whose elements are bfloat16.

    Examples
    --------
    >>> to_float32(np.uint16([0x3F80, 0xC000]))
    array([ 1., -2.], dtype=float32)
    """
    if x.dtype != np.uint16:
        return x.astype(np.float32)
    wide = np.empty(x.shape, np.float32)
    _core.widen("bfloat16", np.ascontiguousarray(x).reshape(-1), wide.reshape(-1))
    return wide


def to_bfloat16(x: npt.ArrayLike, seed: int | None = None) -> npt.NDArray[np.uint16]:
    """Numbers as bfloat16 in uint16: the nearest, of two the even one; with a seed float32 ones up or down by chance.

    Examples
    --------
    >>> to_float32(to_bfloat16([1.0, 1.001, np.inf]))
    array([ 1.,  1., inf], dtype=float32)
    """
    exact = seed is None and getattr(x, "dtype", None) == np.float64
    wide = np.ascontiguousarray(x, np.float64 if exact else np.float32)
    codes = np.empty(wide.shape, np.uint16)
    _core.narrow("bfloat16", wide.reshape(-1), codes.reshape(-1), seed)
    return codes


def converted(x: Array, dtype: np.dtype[Any]) -> Array:
    """Numbers in another dtype, uint16 being bfloat16: the nearest. Always a copy."""
    wide = to_float32(x) if x.dtype.char in HALVES else x
    if dtype.char == "H":
        return to_bfloat16(wide)
    with np.errstate(over="ignore"):
        return wide.astype(dtype)


class Packed(Layout):
    """A state in 8 bits, in blocks of 256 with a scale each: bytes for each entry, in `arrays`.

    Where an entry, or what of it belongs to one group, has fewer than 4,096 elements, and in what is left after the
    last whole block, the state is float32. So results depend on how parameters are cut, unless that is at whole blocks
    into parts of at least 4,096.

    Examples
    --------
    >>> import fastlr
    >>> opt = fastlr.Adam(np.zeros(10_000, np.float32), state_dtype="int8")
    >>> opt.step(np.linspace(-1, 1, 10_000, dtype=np.float32)).step
    1
    >>> opt.state["m"]
    Packed(10000 elements, 10240 bytes)
    >>> opt.state["m"].unpack()[[0, -1]].round(3)
    array([-0.1,  0.1], dtype=float32)
    """

    def __init__(self, structure: Structure, pieces: Pieces, squares: bool) -> None:
        self._structure, self._squares = structure, squares
        self._pieces = sorted(tuple(piece[:3]) for piece in pieces)
        sizes = [0] * len(structure.arrays)
        for entry, _, n in self._pieces:
            sizes[entry] += _core.packed_size(n)
        flat, start, self.arrays = allocate(sum(sizes), np.uint8), 0, []
        for size in sizes:
            self.arrays.append(flat[start : start + size])
            start += size

    def like(self) -> Packed:
        """Zeros, packed as these."""
        other = copy.copy(self)
        other.arrays = [np.zeros_like(a) for a in self.arrays]
        return other

    def build(self, arrays: Sequence[Array]) -> Packed:
        return self

    def named(self, arrays: Sequence[Array]) -> dict[str, Array]:
        return {str(k): a for k, a in enumerate(arrays)}

    def unpack(self) -> Any:
        """The state as float32, in new arrays in the structure of the parameters."""
        entries = [np.zeros(a.shape, np.float32) for a in self._structure.arrays]
        for packed, part in self._parts(entries):
            _core.unpack(packed, part, self._squares)
        return self._structure.build(entries)

    def pack(self, state: Any) -> None:
        """Takes over float32 numbers, in the structure of the parameters."""
        taken = self._structure.take(state, "state")
        entries = [np.ascontiguousarray(x, np.float32) for x in taken]
        for k, (a, x) in enumerate(zip(self._structure.arrays, entries, strict=True)):
            if a.shape != x.shape:
                raise ValueError(f"state{self._structure.names[k]} must have shape {a.shape}, got {x.shape}")
        for packed, part in self._parts(entries):
            _core.pack(part, packed, self._squares)

    def _parts(self, entries: list[Any]) -> list[tuple[Array, Array]]:
        parts, starts = [], [0] * len(entries)
        for entry, offset, n in self._pieces:
            size, start = _core.packed_size(n), starts[entry]
            parts.append((self.arrays[entry][start : start + size], entries[entry].reshape(-1)[offset : offset + n]))
            starts[entry] += size
        return parts

    def __repr__(self) -> str:
        size, nbytes = sum(a.size for a in self._structure.arrays), sum(a.nbytes for a in self.arrays)
        return f"Packed({size} elements, {nbytes} bytes)"


class Precision(NamedTuple):
    """What `Optimizer` was given about storage, checked."""

    state_dtype: str
    words: bool
    master: str | None
    rounding: str
    seed: int
    ema: float | None
    denormals: str

    @classmethod
    def of(
        cls, state_dtype: Any, dtype: Any, master: Any, rounding: Any, seed: Any, ema: Any, denormals: Any
    ) -> Precision:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
            raise ValueError(f"seed must be an integer in [0, 2**64), got {seed!r}")
        return cls(
            choice(*STATE_DTYPES)("state_dtype", state_dtype),
            dtype is not None and choice("bfloat16")("dtype", dtype) == "bfloat16",
            None if master is None else choice("float32", "split")("master", master),
            choice("nearest", "stochastic", "kahan")("rounding", rounding),
            int(seed),
            None if ema is None else fraction("ema", ema),
            choice("keep", "flush")("denormals", denormals),
        )

    def check(self, dtype: np.dtype[Any], rule: type[Any], copies: bool = False) -> None:
        """Refuses what the parameters' dtype has no use for, or a rule that has one way of storing things."""
        half, name = dtype.char in "eH", "bfloat16" if dtype.char == "H" else dtype.name
        if dtype.char == "d" and self.state_dtype != "float32":
            raise TypeError(
                f"state_dtype must be 'float32', the default, for float64 parameters, got {self.state_dtype!r}"
            )
        if self.master == "split" and dtype.char != "H":
            raise TypeError(f"master='split' needs bfloat16 parameters, the upper halves of float32, got {name}")
        if self.master and not half:
            raise TypeError(f"master={self.master!r} needs bfloat16 or float16 parameters, got {name}")
        if self.rounding != "nearest" and not half:
            raise TypeError(f"rounding={self.rounding!r} is of bfloat16 or float16 parameters, got {name}")
        if self.master and self.rounding != "nearest":
            raise ValueError(f"rounding must be 'nearest' with master={self.master!r}, which loses nothing")
        if not rule.narrows and (half or copies or not self._replace(words=False).plain):
            raise TypeError(
                f"{rule.__name__} has float32 or float64 parameters and state, and neither ema nor copy_to; "
                "use AdamW for the parameters that are to be stored in fewer bits"
            )

    def formats(self, rule: type[Any], kernel: str, states: Sequence[str]) -> dict[str, str]:
        """The dtype of each state: the rule may insist on float32."""
        _, precise = _core.state_bits(kernel)
        halved = rule.signs if self.state_dtype == "bfloat16" else ()
        found = {
            key: "float32" if precise >> j & 1 and key not in halved else self.state_dtype
            for j, key in enumerate(states)
        }
        if self.state_dtype != "float32" and states and self.state_dtype not in found.values():
            may = "'float32' or 'bfloat16'" if rule.signs else "'float32'"
            raise TypeError(
                f"state_dtype must be {may} for {rule.__name__}, got {self.state_dtype!r}: {', '.join(states)} must "
                "not be rounded to fewer bits, being sums, means of parameters, steps, or what a step is a small "
                "difference of (python -m bench.kept)"
            )
        return found

    @property
    def keeps(self) -> tuple[str, ...]:
        """What is kept beside parameters and state, as `Plan` calls it."""
        asked = {
            "master": self.master == "float32",
            "low": self.master == "split",
            "lost": self.rounding == "kahan",
            "ema": self.ema is not None,
        }
        return tuple(key for key, given in asked.items() if given)

    def kept_as(self, key: str, held: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype of one of them: copies of parameters have the arithmetic's, the others are 16 bits of such."""
        return np.dtype(np.uint16) if key in ("low", "lost") else DTYPES["d" if held.char == "d" else "f"]

    def beside(self, structure: Structure, copies: Sequence[Array] | None) -> dict[str, list[Any]]:
        """Arrays of what is kept, as it begins; of copies as they are: see `begin`."""

        def first(a: Array, dtype: np.dtype[Any]) -> Array:
            return allocate(a.size, dtype).reshape(a.shape) if dtype.char == "H" else converted(a, dtype)

        held = structure.arrays[0].dtype
        kept: dict[str, Any] = {k: [first(a, self.kept_as(k, held)) for a in structure.arrays] for k in self.keeps}
        if copies is not None:
            kept["copy"] = list(copies)
        return kept

    @staticmethod
    def begin(structure: Structure, kept: dict[str, list[Any]]) -> None:
        """Writes the parameters to their copies, which nothing is left to be said against."""
        for p, x in zip(structure.arrays, kept.get("copy", structure.arrays), strict=True):
            if x is not p:
                x[...] = converted(p, x.dtype)

    def govern(self, plan: _core.Plan, firsts: Sequence[int] | None = None) -> None:
        """Has a plan store numbers so; `firsts` as of `Plan.set_storing`."""
        share = 0.0 if self.ema is None else 1 - self.ema
        flush = self.denormals == "flush"
        plan.set_storing(self.words, self.rounding == "stochastic", self.seed, share, flush, firsts)

    @property
    def plain(self) -> bool:
        return self == Precision.of("float32", None, None, "nearest", self.seed, None, self.denormals)

    def saved(self, structure: Structure, pieces: Pieces) -> dict[str, Any]:
        """What must be the same in the optimizer that loads a checkpoint."""
        return {
            "params": "bfloat16" if structure.arrays[0].dtype.char == "H" else structure.arrays[0].dtype.name,
            "state": self.state_dtype,
            "master": self.master,
            "rounding": self.rounding,
            "seed": self.seed,
            "ema": self.ema is not None,
            "pieces": [list(piece) for piece in pieces] if self.state_dtype == "int8" else [],
        }


def entries_of(structure: Structure, copies: Any, words: bool) -> list[Array] | None:
    """Where new parameters are copied to, an array an entry; with `words` uint16 are bfloat16."""
    if copies is None:
        return None
    held = structure.arrays[0].dtype
    entries: list[Array] = []
    for name, p, x in zip(structure.names, structure.arrays, structure.take(copies, "copy_to"), strict=True):
        if x is None:
            raise TypeError("copy_to must have an array for each parameter, got None")
        copy = param_array(f"copy_to{name}", x, words)
        if copy.dtype.char == "d" and held.char != "d":
            raise TypeError(f"copy_to{name} must be float32, float16 or bfloat16 for {held} parameters, got float64")
        if copy.dtype != (first := (*entries, copy)[0].dtype):
            raise TypeError(f"copy_to{name}: expected {first} to match the first, got {copy.dtype}; use one dtype")
        if copy.shape != p.shape:
            raise ValueError(f"copy_to{name}: expected shape {p.shape} to match the parameter, got {copy.shape}")
        entries.append(copy)
    return entries
