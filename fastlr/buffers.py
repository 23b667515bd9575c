"""Memory: which objects can be updated in place, aligned allocation, and `FlatBuffer`, a whole model in one array."""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {"f": np.dtype(np.float32), "d": np.dtype(np.float64)}
HALVES: dict[str, np.dtype[Any]] = {"e": np.dtype(np.float16), "H": np.dtype(np.uint16)}  # the latter are bfloat16
OTHERS: dict[str, np.dtype[Any]] = {"q": np.dtype(np.int64), "B": np.dtype(np.uint8)}
COUNTS = OTHERS["q"]  # of states that count

_SMALL = 64 << 10  # bytes below which an array is numpy's own
_HUGE = 2 << 20  # bytes of a huge page on x86-64 and most of aarch64
_LINE = 64  # bytes of a cache line, and of the widest vector


@functools.lru_cache(64)
def _is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether it is that of ml_dtypes. A dtype makes its name each time that it is asked, for a microsecond."""
    return str(dtype.name) == "bfloat16"


def as_array(name: str, x: object) -> Array:
    """An array over the memory of `x`, which is an ndarray, a CPU torch tensor or any object with a buffer. No copy.

    NumPy has no bfloat16: it comes as uint16, from torch's tensors and from arrays of ml_dtypes.
    """
    if isinstance(x, np.ndarray):
        return x.view(np.uint16) if _is_bfloat16(x.dtype) else x
    if isinstance(x, FlatBuffer):
        return x.data
    torch: Any = sys.modules.get("torch")  # of whoever has a tensor
    if isinstance(x, getattr(torch, "Tensor", ())):
        tensor: Any = x
        try:
            tensor = tensor.detach() if tensor.requires_grad else tensor
            words = tensor.dtype is torch.bfloat16
            array: Array = (tensor.view(torch.int16) if words else tensor).numpy()
            return array.view(np.uint16) if words else array
        except (TypeError, RuntimeError) as error:
            raise TypeError(f"{name} must be a dense tensor of floats on the CPU: {error}") from None
    with contextlib.suppress(TypeError):
        return np.asarray(memoryview(x))  # type: ignore[arg-type]
    raise TypeError(
        f"{name} must be an array that can be updated in place (numpy array, CPU torch tensor or buffer), "
        f"got {type(x).__name__}; pass numpy.asarray(x, numpy.float32) and keep it"
    )


def refuse(
    name: str,
    x: object,
    kind: str,
    shape: tuple[int, ...] | None,
    writable: bool,
    why: str = "to match the parameter",
) -> NoReturn:
    """Raises the error that says why `x` cannot be bound as a buffer of type `kind` and `shape`."""
    array = as_array(name, x)
    dtype = {**DTYPES, **HALVES, **OTHERS}[kind]
    if array.dtype != dtype:
        expected = "bfloat16" if kind == "H" else dtype
        remedy = "convert it with astype"
        if array.dtype == HALVES["H"]:
            remedy = 'build the optimizer with dtype="bfloat16" if that is what it holds'
        raise TypeError(f"{name}: expected {expected} to match the parameters, got {array.dtype}; {remedy}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape} {why}, got {array.shape}")
    if not array.flags.c_contiguous:
        raise BufferError(
            f"{name} must be C-contiguous, got strides {array.strides}; fastlr works in place and never copies - "
            "pass numpy.ascontiguousarray(x) and keep it"
        )
    if not array.flags.aligned:
        raise BufferError(f"{name} must be aligned to its item size of {dtype.itemsize} bytes; copy it to a new array")
    if writable and not array.flags.writeable:
        raise BufferError(f"{name} must be writable, got a read-only array; pass a copy")
    raise BufferError(f"{name} cannot be used as a buffer of {dtype}, got {type(x).__name__}")


def refuse_rows(name: str, x: object) -> NoReturn:
    """Raises the error that says why `x` cannot be the rows of gradients."""
    array = as_array(name, x)
    if array.dtype not in (np.dtype(np.int32), np.dtype(np.int64)):
        raise TypeError(
            f"{name} must be int32 or int64 in native byte order, got {array.dtype}; convert it with astype"
        )
    if array.ndim != 1:
        raise ValueError(f"{name} must have 1 dimension, a row number for each row of grads, got shape {array.shape}")
    raise BufferError(
        f"{name} must be contiguous and aligned, got strides {array.strides}; pass numpy.ascontiguousarray(rows)"
    )


def param_array(name: str, x: object, words: bool = False) -> Array:
    """`x` as an array of parameters, or the error that says what is wrong with it.

    uint16 are bfloat16 with `words`, and in a FlatBuffer.
    """
    array, words = as_array(name, x), words or isinstance(x, FlatBuffer)
    kind = array.dtype.char if array.dtype.char in (*DTYPES, *HALVES) and array.dtype.isnative else None
    if kind is None or (kind == "H" and not words and getattr(x, "dtype", None) == array.dtype):
        raise TypeError(
            f"{name} must be float32 or float64 in native byte order, or float16 or bfloat16, got {array.dtype}"
            + ('; say dtype="bfloat16" if that is what it holds' if kind else "")
        )
    if not (array.flags.c_contiguous and array.flags.aligned and array.flags.writeable):
        refuse(name, array, kind, None, True)
    return array


def bits_of(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """A dtype as arrays have it: uint16 for bfloat16, by its name or as that of ml_dtypes."""
    if isinstance(dtype, str) and dtype == "bfloat16":
        return HALVES["H"]
    found = np.dtype(dtype)
    return HALVES["H"] if _is_bfloat16(found) else found


class _Arena:
    """Zeros cut off one after another from mappings that the system is asked to back with huge pages.

    Small pages cost a third of the time of a step on a model of a few hundred thousand parameters, whose buffers are
    smaller than one huge page: so they share some. A mapping lives as long as an array in it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.free: Array = np.empty(0, np.uint8)

    def take(self, nbytes: int) -> Array:
        nbytes = -(-nbytes // _LINE) * _LINE
        with self.lock:
            if nbytes > self.free.size:
                pages = -(-nbytes // _HUGE)
                # Private: a shared mapping, which is Python's default, would be one memory for both sides of a fork.
                memory = mmap.mmap(-1, (pages + 1) * _HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                with contextlib.suppress(AttributeError, OSError):  # another system; a kernel built without them
                    memory.madvise(mmap.MADV_HUGEPAGE)
                raw = np.frombuffer(memory, np.uint8)
                start = -raw.ctypes.data % _HUGE
                self.free = raw[start : start + pages * _HUGE]
            taken, self.free = self.free[:nbytes], self.free[nbytes:]
            return taken


_arena = _Arena()


def allocate(size: int, dtype: npt.DTypeLike) -> Array:
    """Zeros, aligned to a cache line; from 64 KiB on in huge pages, where the system has them."""
    dtype = np.dtype(dtype)
    nbytes = size * dtype.itemsize
    if nbytes >= _SMALL:
        raw = _arena.take(nbytes)
    else:
        raw = np.zeros(nbytes + _LINE, np.uint8)
        raw = raw[-raw.ctypes.data % _LINE :]
    return raw[:nbytes].view(dtype)


class FlatBuffer:
    """Named arrays in one flat allocation: a whole model as one buffer, updated by one kernel call.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Name and shape of each array, in the order of the layout. The arrays follow one another without gaps.
    dtype : dtype, default float32
        float32, float64, float16, or bfloat16: "bfloat16", that of ml_dtypes, or uint16, which its arrays are.

    Attributes
    ----------
    data : ndarray, shape (n,)
        All elements, zeros at first. Aligned to 64 bytes; in huge pages from 64 KiB on.
    names : tuple of str
    shapes : dict of str to tuple of int

    Examples
    --------
    >>> buf = FlatBuffer({"w": (2, 3), "b": (3,)})
    >>> buf["b"][:] = 1
    >>> buf.data
    array([0., 0., 0., 0., 0., 0., 1., 1., 1.], dtype=float32)
    >>> buf.slice("b")
    slice(6, 9, None)
    """

    __slots__ = ("_slices", "_views", "data", "shapes")

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: npt.DTypeLike = np.float32) -> None:
        if not isinstance(shapes, Mapping):
            raise TypeError(f"shapes must be a mapping of names to shapes, got {type(shapes).__name__}")
        dtype = bits_of(dtype)
        if dtype not in (*DTYPES.values(), *HALVES.values()):
            raise TypeError(f"dtype must be float32, float64, float16 or bfloat16, got {dtype}")
        self._set_shapes(shapes)
        self._lay(allocate(self._size(), dtype))

    def _set_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._slices: dict[str, slice] = {}
        size = 0
        for name, shape in shapes.items():
            if not isinstance(name, str):
                raise TypeError(f"shapes: names must be str, got {name!r}")
            extents = (shape,) if isinstance(shape, int) else tuple(shape)
            if any(isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0 for n in extents):
                raise ValueError(f"shapes[{name!r}] must be a tuple of integers >= 0, got {shape!r}")
            self.shapes[name] = tuple(int(n) for n in extents)
            self._slices[name] = slice(size, size + math.prod(self.shapes[name]))
            size = self._slices[name].stop

    def _size(self) -> int:
        return max((s.stop for s in self._slices.values()), default=0)

    def _lay(self, data: Array) -> None:
        self.data = data
        self._views = {n: data[s].reshape(self.shapes[n]) for n, s in self._slices.items()}

    @classmethod
    def over(cls, shapes: Mapping[str, tuple[int, ...]], data: Array) -> FlatBuffer:
        """A buffer of this layout over `data`, a 1-D array of its size: no copy."""
        data = as_array("data", data)
        buffer = cls({}, data.dtype)
        buffer._set_shapes(shapes)
        if data.shape != (buffer._size(),):
            raise ValueError(f"data must have shape ({buffer._size()},) for these shapes, got {data.shape}")
        buffer._lay(data)
        return buffer

    @classmethod
    def pack(cls, arrays: Mapping[str, npt.ArrayLike]) -> FlatBuffer:
        """A new buffer with copies of `arrays`, which share one dtype; bfloat16 ones become uint16.

        Examples
        --------
        >>> FlatBuffer.pack({"a": np.float32([1, 2]), "b": np.float32(3)}).data
        array([1., 2., 3.], dtype=float32)
        """
        given = {name: as_array(name, a if hasattr(a, "dtype") else np.asarray(a)) for name, a in arrays.items()}
        dtypes = {a.dtype for a in given.values()}
        if len(dtypes) > 1:
            raise TypeError(f"arrays must share one dtype, got {', '.join(sorted(map(str, dtypes)))}; convert them")
        buffer = cls({name: a.shape for name, a in given.items()}, dtypes.pop() if dtypes else np.float32)
        for name, a in given.items():
            buffer[name][...] = a
        return buffer

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    def like(self) -> FlatBuffer:
        """Zeros of the same layout and dtype: the place for gradients."""
        return FlatBuffer(self.shapes, self.dtype)

    def slice(self, name: str) -> slice:
        """Where `name` lies in `data`."""
        return self._slices[name]

    def __getitem__(self, name: str) -> Array:
        try:
            return self._views[name]
        except KeyError:
            raise KeyError(f"no array {name!r}; there are {', '.join(self.shapes) or 'none'}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def __contains__(self, name: object) -> bool:
        return name in self.shapes

    def __repr__(self) -> str:
        return f"FlatBuffer({self.shapes!r}, {self.dtype.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.shapes, self.data)


def _restore(shapes: dict[str, tuple[int, ...]], data: Array) -> FlatBuffer:
    buffer = FlatBuffer(shapes, data.dtype)
    buffer.data[:] = data
    return buffer
