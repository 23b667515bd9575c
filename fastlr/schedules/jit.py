"""Users' functions compiled by Numba into what a schedule's table calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastlr.extras import need


def compiled(fn: Callable[[float], float]) -> tuple[int, int, Any]:
    """Address, context and the object that keeps the code alive."""
    numba = need("numba", "jit", "jit=True")
    t = numba.types
    inner = numba.njit(fn, error_model="numpy") if not hasattr(fn, "py_func") else fn
    signature = t.boolean(t.voidptr, t.uintp, t.CPointer(t.float64), t.CPointer(t.float64))

    @numba.cfunc(signature, error_model="numpy")  # type: ignore[untyped-decorator]
    def values(context: Any, n: Any, steps: Any, out: Any) -> bool:
        for i in range(n):
            out[i] = inner(steps[i])
        return True

    return values.address, 0, values
