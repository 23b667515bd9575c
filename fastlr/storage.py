"""Files: nested dicts and lists of numbers, strings and arrays as safetensors, written atomically, read strictly.

A file holds data and nothing that runs. Any reader of safetensors sees the arrays, each named by its path in the
nesting, and bfloat16 as such; the rest is JSON in the header's metadata.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlr.buffers import Array

FORMAT = "fastlr 1"

Path = str | os.PathLike[str]

_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "float16": "F16",
    "uint32": "U32",
    "int32": "I32",
    "float32": "F32",
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
}
_BFLOAT16 = "BF16"
_DTYPES = {name: np.dtype(dtype).newbyteorder("<") for dtype, name in (*_NAMES.items(), ("uint16", _BFLOAT16))}
_ALIGNMENT = 8  # of the data in the file, so that it can be mapped
_ARRAY, _FLOAT = "$array", "$float"


class Bfloat16(np.ndarray[Any, np.dtype[np.uint16]]):
    """uint16 whose elements are bfloat16, and which files hold as such: ``x.view(Bfloat16)``."""


def kind(x: Array) -> str:
    """The name of an array's dtype, or "bfloat16"."""
    return "bfloat16" if isinstance(x, Bfloat16) else str(x.dtype)


def write(path: Path, tree: Any) -> None:
    """Writes `tree` to the file `path`: the whole file is there or, with an error or a power cut, the one before.

    Parameters
    ----------
    path : path
        Replaced if it exists. A symbolic link is followed.
    tree : dict, list, array, number, string, bool or None
        Nested at will; the keys of dicts are strings. Tuples come back as lists.
    """
    arrays: dict[str, Array] = {}
    plain = _split(tree, "", arrays)
    header: dict[str, Any] = {}
    start, checksum = 0, 0
    chunks = []
    for name, array in arrays.items():
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
        end = start + little.size
        header[name] = {"dtype": _code(array), "shape": array.shape, "data_offsets": (start, end)}
        checksum = zlib.crc32(little.data, checksum)
        chunks.append(little)
        start = end
    metadata = {"format": FORMAT, "tree": json.dumps(plain, allow_nan=False), "crc32": f"{checksum:08x}"}
    text = json.dumps({"__metadata__": metadata, **header}).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    _replace(path, [len(text).to_bytes(8, "little"), text, *chunks])


def read(path: Path) -> Any:
    """What `write` wrote, with new arrays. Whatever is not wholly as `write` leaves it is refused with ValueError."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise _bad(path, "it is cut off or not a safetensors file")
        try:
            header = json.loads(file.read(length), object_pairs_hook=_no_twice)
            metadata = header.pop("__metadata__")
            if metadata["format"] != FORMAT:
                raise _bad(path, f"its format is {metadata['format']!r}, this version reads {FORMAT!r}")
            plain = json.loads(metadata["tree"], object_pairs_hook=_no_twice)
            arrays, end, checksum = {}, 0, 0
            for name, entry in header.items():
                dtype, shape, (start, stop) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
                if not all(type(n) is int and n >= 0 for n in shape):
                    raise _bad(path, f"the shape of {name!r} is {shape}")
                if start != end or stop - start != dtype.itemsize * math.prod(shape) or stop > size - 8 - length:
                    raise _bad(path, f"{name!r} does not lie where it should")
                data = np.empty(stop - start, np.uint8)
                file.readinto(data.data)
                checksum = zlib.crc32(data.data, checksum)
                array = data.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
                arrays[name] = array.view(Bfloat16) if entry["dtype"] == _BFLOAT16 else array
                end = stop
            if size != 8 + length + end:
                raise _bad(path, "its size is not that of its arrays")
            if metadata["crc32"] != f"{checksum:08x}":
                raise _bad(path, "its checksum is wrong: the data has been damaged")
            tree = _join(plain, arrays)
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise _bad(path, f"its header is not fastlr's ({type(error).__name__}: {error})") from None
    if arrays:
        raise _bad(path, f"nothing refers to {', '.join(map(repr, arrays))}")
    return tree


def expect(what: str, found: Any, wanted: Any) -> None:
    """Raises ValueError unless `found` is `wanted`."""
    if found != wanted:
        raise ValueError(f"{what} must be {wanted!r}, got {found!r}")


class Saved:
    """A mixin of objects with `state_dict` and `load_state_dict`: the same, to and from a file."""

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def save(self, path: Path) -> None:
        """Writes `state_dict()` to a safetensors file, atomically: temporary file, fsync, replace."""
        write(path, self.state_dict())

    def load(self, path: Path) -> None:
        """Takes over a file of `save`, wholly or, with an error, not at all. Nothing in a file can run."""
        self.load_state_dict(read(path))


def _code(x: Array) -> str:
    return _BFLOAT16 if isinstance(x, Bfloat16) else _NAMES[x.dtype.name]


def _split(x: Any, name: str, arrays: dict[str, Array]) -> Any:
    """`x` with references in the place of its arrays, which go to `arrays`."""
    if isinstance(x, np.ndarray):
        if x.dtype.name not in _NAMES:
            raise TypeError(f"{name or 'tree'}: arrays of {x.dtype} cannot be saved")
        if (key := name or "array") in arrays or key == "__metadata__":
            raise ValueError(f"two arrays would be named {key!r}; rename a key")
        arrays[key] = x
        return {_ARRAY: key}
    if isinstance(x, np.generic):
        x = x.item()
    if x is None or isinstance(x, bool | int | str):
        return x
    if isinstance(x, float):
        return x if math.isfinite(x) else {_FLOAT: repr(x)}
    if isinstance(x, list | tuple):
        return [_split(item, f"{name}.{k}".lstrip("."), arrays) for k, item in enumerate(x)]
    if isinstance(x, Mapping):
        for key in x:
            if not isinstance(key, str) or key.startswith("$"):
                raise TypeError(f"{name or 'tree'}: keys must be strings without a leading $, got {key!r}")
        return {key: _split(item, f"{name}.{key}".lstrip("."), arrays) for key, item in x.items()}
    kind = type(x).__name__
    raise TypeError(f"{name or 'tree'} must be made of numbers, strings, arrays, lists and dicts, got {kind}")


def _join(x: Any, arrays: dict[str, Array]) -> Any:
    if isinstance(x, list):
        return [_join(item, arrays) for item in x]
    if not isinstance(x, dict):
        return x
    if _ARRAY in x:
        return arrays.pop(x[_ARRAY])
    if _FLOAT in x:
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[x[_FLOAT]]
    return {key: _join(item, arrays) for key, item in x.items()}


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise KeyError("a key occurs twice")
    return found


def _bad(path: Path, why: str) -> ValueError:
    return ValueError(f"{os.fspath(path)} is not a checkpoint that can be loaded: {why}")


def _replace(path: Path, chunks: list[Any]) -> None:
    target = os.path.realpath(path)
    directory = os.path.dirname(target)
    temporary = os.path.join(directory, f".{os.path.basename(target)}.{os.getpid()}.{os.urandom(4).hex()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(handle, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    # The name itself is on the disk only when its directory is.
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
