"""Tensors as runs of memory: which can be updated in place, and state that lies as its parameter does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from fastlr.buffers import Array, allocate

DTYPES: dict[Any, np.dtype[Any]] = {  # of parameters, and what their numbers are to NumPy
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
    torch.bfloat16: np.dtype(np.uint16),
    torch.float16: np.dtype(np.float16),
    torch.complex64: np.dtype(np.float32),
    torch.complex128: np.dtype(np.float64),
}
HALVES = (torch.bfloat16, torch.float16)


def strides_of(x: Any) -> tuple[int, ...]:
    """The strides that matter: along an axis of one element there is no next."""
    return tuple(0 if n == 1 else s for n, s in zip(x.shape, x.stride(), strict=True))


def is_dense(x: Any) -> bool:
    """Whether its elements are one run of memory, in whatever order of the axes."""
    size = 1
    for stride, n in sorted((s, n) for n, s in zip(x.shape, x.stride(), strict=True) if n != 1):
        if stride != size:
            return False
        size *= n
    return True


def refuse(name: str, p: Any) -> None:
    """Raises the error that says why a parameter cannot be updated here, if it cannot."""
    if p.device.type != "cpu":
        raise TypeError(
            f"{name} must be on the CPU, got one on {p.device}; fastlr steps on CPUs, use torch.optim there"
        )
    if p.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {p.layout}; use to_dense()")
    if is_traceable_wrapper_subclass(p):
        local = "; give the optimizer its to_local()" if hasattr(p, "to_local") else ""
        raise TypeError(f"{name} must be a plain tensor, got {type(p).__name__}, which has no memory of its own{local}")
    if p.dtype not in DTYPES:
        raise TypeError(
            f"{name} must be bfloat16, float16, float32, float64, complex64 or complex128, got {p.dtype}; "
            "keep the parameters in float32 and use autocast"
        )
    if p.is_conj() or p.is_neg():
        raise ValueError(f"{name} must be stored as it is, got a conjugate or negative view; use resolve_conj()")
    if not is_dense(p):
        raise ValueError(
            f"{name} must be one run of memory, got strides {tuple(p.stride())} for shape {tuple(p.shape)}; "
            "fastlr works in place and never copies parameters - make it with .contiguous()"
        )


def run_of(x: Any) -> Array:
    """The elements of a dense tensor in the order in which they lie in memory, as an array over them."""
    x = x.detach()
    x = x.as_strided((x.numel(),), (1,))
    if x.is_complex():
        x = torch.view_as_real(x).reshape(-1)
    run: Array = (x.view(torch.uint16) if x.dtype in (torch.bfloat16, torch.int16) else x).numpy()
    return run


def empty_like(p: Any, dtype: Any, shape: tuple[int, ...] | None = None) -> Any:
    """A tensor without memory that lies as `p` does, or is contiguous in another shape."""
    if shape is not None:
        return torch.empty(shape, dtype=dtype, device="meta")
    return torch.empty_strided(p.shape, p.stride(), dtype=dtype, device="meta")


def make_like(params: Sequence[Any]) -> list[Any]:
    """Zeros like each of some tensors of one dtype, in one allocation."""
    dtype = params[0].dtype
    size = sum(p.numel() for p in params)
    flat = torch.from_numpy(allocate(size * dtype.itemsize, np.uint8)).view(dtype)
    made, start = [], 0
    for p in params:
        made.append(flat.as_strided(p.shape, p.stride(), start))
        start += p.numel()
    return made


def laid_like(x: Any, p: Any) -> Any:
    """A copy of `x` that lies in memory as `p` does."""
    return torch.empty_strided(p.shape, p.stride(), dtype=x.dtype).copy_(x)
