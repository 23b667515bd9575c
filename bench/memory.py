"""Where arrays that are timed lie: in fastlr's memory, from the begin of a line on, in huge pages if there are any."""

from __future__ import annotations

import numpy.typing as npt

from bench.cases import Array
from fastlr.buffers import allocate


def written(n: int, dtype: npt.DTypeLike) -> Array:
    """Memory that is there: what has only been read is one page of zeros, which stays in the cache."""
    array = allocate(n, dtype)
    array.fill(0)
    return array


def placed(x: Array) -> Array:
    """A copy."""
    y = allocate(x.size, x.dtype).reshape(x.shape)
    y[:] = x
    return y
