"""Muon: orthogonal steps for matrices. The products are BLAS's, through NumPy; the rest is kernels/rules/muon.h."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastlr.buffers import Array, as_array
from fastlr.groups import Group
from fastlr.hyper import Number, choice, flag, fraction, positive, real
from fastlr.optimizer import Derived, Optimizer, Options, Rate, State, given
from fastlr.precision import converted
from fastlr.structure import Structure, tensors_of

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _coefficients(name: str, x: object) -> tuple[float, float, float]:
    if not isinstance(x, tuple | list) or len(x) != 3:
        raise TypeError(f"{name} must be three numbers, got {x!r}")
    a, b, c = (real(f"{name}[{k}]", y) for k, y in enumerate(x))
    return a, b, c


def _iterations(name: str, x: object) -> int:
    if isinstance(x, bool) or not isinstance(x, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {x!r} ({type(x).__name__})")
    if not 1 <= x < 100:
        raise ValueError(f"{name} must be in [1, 99], got {x!r}")
    return int(x)


def _adjustment(name: str, x: object) -> str | None:
    return None if x is None else str(choice("original", "match_rms_adamw")(name, x))


class Muon(Optimizer):
    """Steps along the orthogonal matrix nearest to the momentum: all its directions are moved by as much.

        b ← μb + (1−μ)g
        u = (1−μ)g + μb with Nesterov, else b
        p ← p − ηλp − η ratio orthogonal(u)
        orthogonal(u):  X = u / max(‖u‖, ε), then `ns_steps` times  A = XXᵀ,  X ← a₁X + (a₂A + a₃A²)X

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Matrices, those in a FlatBuffer too. Updated in place; see `Optimizer`, also for the options `groups`,
        `maximize` and `nonfinite`. What has another number of dimensions is refused: give biases, gains, embeddings
        and the last layer to an AdamW of its own (see the example), and tensors of convolutions as views of
        ``x.reshape(len(x), -1)``.
    lr : float or callable, default 1e-3
        η ≥ 0, or a function of the 0-based step.
    weight_decay : float, default 0.1
        λ ≥ 0, times η (not times the ratio), taken off the parameters.
    momentum : float, default 0.95
        μ in [0, 1).
    nesterov : bool, default True
        Whether the newest gradient counts once more.
    ns_coefficients : (float, float, float), default (3.4445, -4.775, 2.0315)
        a₁, a₂, a₃ of the Newton-Schulz iteration. These do not converge: they bring singular values to between 0.7 and
        1.2 soonest.
    eps : float, default 1e-7
        ε > 0, the least norm by which u is divided.
    ns_steps : int, default 5
        Iterations, in [1, 99].
    adjust_lr_fn : {None, "original", "match_rms_adamw"}, default None
        The ratio, of a matrix of R rows and C columns: √max(1, R/C), or 0.2 √max(R, C), with which AdamW's rates and
        decays can be kept. None is "original".
    precision : {"float32", "float64", "bfloat16"}, default "float32"
        Of the iteration. "bfloat16" rounds where torch does, slowly: for comparisons.

    Notes
    -----
    torch's code, not its documentation, whose momentum is μb + g. Up to rounding the same update as
    ``torch.optim.Muon`` with "bfloat16", which torch always takes: with "float32" singular values differ by a percent.
    optax' is of p transposed, corrects b and g for their start each by itself (of no effect without Nesterov), and has
    other ε. State: ``b`` (momentum_buffer). A step needs as much memory again while it is made; 3 `ns_steps` products
    of matrices are nearly all of its time, and once these are made it moves 24 bytes a float32 parameter.

    The products are those of NumPy's BLAS, on its threads (set them with threadpoolctl or OPENBLAS_NUM_THREADS). It
    promises neither the same bits on another machine, nor for another number of threads, nor for arrays that lie
    elsewhere; nor does this rule.

    Examples
    --------
    >>> import numpy as np
    >>> from fastlr import AdamW
    >>> model = {"hidden": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
    >>> matrices, others = Muon([model["hidden"]], lr=0.02), AdamW([model["bias"]], lr=3e-4)
    >>> matrices.step([np.float32([[3, 0], [0, 3]])]).step, others.step([np.float32([1, 2])]).step
    (1, 1)
    >>> model["hidden"].round(3)
    array([[-0.022,  0.   ],
           [ 0.   , -0.022]], dtype=float32)

    References
    ----------
    Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024, kellerjordan.github.io/posts/muon;
    Liu et al., Muon is Scalable for LLM Training, 2025 (match_rms_adamw).
    """

    rule = "muon"
    narrows = False
    states = ("b",)
    hypers = {
        "momentum": fraction,
        "nesterov": flag,
        "ns_coefficients": _coefficients,
        "eps": positive,
        "ns_steps": _iterations,
        "adjust_lr_fn": _adjustment,
        "precision": choice("float32", "float64", "bfloat16"),
    }
    decoupled = True
    per_tensor = True
    informed = "muon"

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        weight_decay: Number = 0.1,
        momentum: Number = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[Number, Number, Number] = (3.4445, -4.775, 2.0315),
        eps: Number = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        precision: str = "float32",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return (group.momentum,)

    @classmethod
    def derived(
        cls,
        structure: Structure,
        state: State,
        pieces: Sequence[tuple[int, int, int, int]],
        groups: Sequence[Group],
    ) -> Derived:
        for label, tensors in zip(structure.names, structure.tensors(), strict=True):
            for name, shape in tensors:
                if len(shape) != 2:
                    raise ValueError(
                        f"params{label if name is None or label else [name]} must have 2 dimensions for Muon, "
                        f"got shape {shape}; give it to an AdamW of its own, or pass a convolution's as "
                        "x.reshape(len(x), -1)"
                    )
        matrices = list(zip(pieces, tensors_of(structure, pieces), strict=True))
        momenta = [as_array("state", b).reshape(-1) for b in state["b"]]
        shapes = [a.shape for a in structure.arrays]
        wide = structure.arrays[0].dtype

        def widened(g: Array) -> Array:
            return g if g.dtype == wide else converted(g, wide)

        def directions(grads: Sequence[Any], scale: float) -> list[Array | None]:
            given = [None if g is None else widened(as_array("grads", g)).reshape(-1) for g in grads]
            made = [None if g is None else np.empty_like(g) for g in given]
            for (entry, offset, size, group), (_, shape) in matrices:
                part, g, out = slice(offset, offset + size), given[entry], made[entry]
                if size and g is not None and out is not None:
                    b = momenta[entry][part].reshape(shape)
                    out[part] = direction(g[part].reshape(shape), b, scale, groups[group]).reshape(-1)
            return [None if x is None else x.reshape(shape) for x, shape in zip(made, shapes, strict=True)]

        return directions


def direction(g: Array, b: Array, scale: float, group: Group) -> Array:
    """What a matrix moves along, times the ratio: of its gradient, to be scaled, and the momentum as it was."""
    a = g.dtype.type(1 - group.momentum)
    with np.errstate(all="ignore"):
        g = g * g.dtype.type(scale)
        u = average(b, g, a)  # the kernel's operations: the same bits as the b that it leaves
        if group.nesterov:
            u = average(u, g, a)
        x = orthogonal(u, group.ns_coefficients, group.ns_steps, group.eps, group.precision)
        rows, cols = g.shape
        matched = group.adjust_lr_fn == "match_rms_adamw"
        x *= 0.2 * math.sqrt(max(rows, cols)) if matched else math.sqrt(max(1, rows / cols))
    return np.ascontiguousarray(x, g.dtype)


def average(old: Array, new: Array, a: Any) -> Array:
    x: Array = a * old
    np.subtract(old, x, out=x)
    x += a * new
    return x


def orthogonal(
    u: Array, coefficients: tuple[float, float, float], steps: int, eps: float, precision: str = "float32"
) -> Array:
    """A matrix with the singular vectors of `u`, its singular values near 1: Newton-Schulz' iteration, of order five.

    Examples
    --------
    >>> x = orthogonal(np.float32([[3, 0], [4, 5]]), (3.4445, -4.775, 2.0315), 5, 1e-7)
    >>> np.linalg.svd(x)[1].round(1)
    array([1.1, 0.8], dtype=float32)
    """
    emulated = precision == "bfloat16"
    dtype = np.dtype(np.float64 if precision == "float64" else np.float32)

    def stored(x: Array) -> Array:
        return bfloat16(x) if emulated else x

    tall = u.shape[0] > u.shape[1]
    x = stored(np.array(u.T if tall else u, dtype, order="C"))
    size = float(stored(np.array(norm(x), dtype))) if emulated else norm(x)
    x = stored(np.divide(x, dtype.type(max(size, eps)), out=x))
    a1, a2, a3 = map(dtype.type, coefficients)
    for _ in range(steps):
        x = nearer(x, (a1, a2, a3), stored)
    return np.ascontiguousarray(x.T) if tall else x


def nearer(x: Array, coefficients: tuple[Any, Any, Any], stored: Callable[[Array], Array]) -> Array:
    """One step of the iteration, a₁ X + (a₂ A + a₃ A²) X with A = X Xᵀ; `x` is overwritten."""
    a1, a2, a3 = coefficients
    gram = stored(x @ x.T)
    square = gram @ gram
    square *= a3
    gram *= a2
    square += gram
    move = stored(square) @ x
    x *= a1
    move += x
    return stored(move)


def norm(x: Array) -> float:
    """‖x‖, also where its square overflows."""
    largest = float(np.max(np.abs(x)))
    if not 0 < largest < math.inf:
        return largest
    parts = np.divide(x, largest, dtype=np.float64).reshape(-1)
    return largest * math.sqrt(np.vdot(parts, parts))


def bfloat16(x: Array) -> Array:
    """float32 rounded to the nearest bfloat16, ties to even."""
    bits = x.view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1)))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), x, rounded.view(np.float32))
