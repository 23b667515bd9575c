"""Adafactor: kernels/rules/adafactor.h and factored.h."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastlr import _core
from fastlr.groups import Group
from fastlr.hyper import Number, choice, flag, nonnegative, positive, real
from fastlr.optimizer import Optimizer, Options, Rate, State, Variant, given
from fastlr.structure import Structure, tensors_of

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _exponent(name: str, x: object) -> float:
    value = real(name, x)
    if value > 0:
        raise ValueError(f"{name} must be finite and <= 0, got {x!r}")
    return value


def _threshold(name: str, x: object) -> float:
    value = real(name, x)
    if value < 1:
        raise ValueError(f"{name} must be finite and >= 1, got {x!r}")
    return value


def _pair_of_eps(name: str, x: object) -> tuple[float | None, float]:
    if not isinstance(x, tuple | list) or len(x) != 2:
        raise TypeError(f"{name} must be a pair of a number > 0 or None and a number >= 0, got {x!r}")
    return None if x[0] is None else positive(f"{name}[0]", x[0]), nonnegative(f"{name}[1]", x[1])


class Adafactor(Optimizer):
    """Adam's step without a mean of gradients, v kept as means of rows and columns: almost no state.

        w = tᵝ
        r ← (1−w)r + w mean of g² over columns,  c ← (1−w)c + w mean of g² over rows
        V = r c / mean(r)                                or v ← (1−w)v + w g², V = v, where there are no columns
        u = g / max(√V, ε₁)
        α = max(ε₂, rms(p)) min(η, 1/√t)
        p ← p − ηλp − (α / max(1, rms(u)/d)) u           t = 1, 2, …

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`. Each tensor is
        treated by itself, those in a FlatBuffer too; of more than two dimensions, the last two are rows and columns.
    lr : float or callable, default 1e-2
        η ≥ 0, or a function of the 0-based step. Relative to the size of the tensor, and after 1/η² steps 1/√t.
    beta2_decay : float, default -0.8
        β ≤ 0. Means over the last tᵝ of the steps' weight: 1 − tᵝ is Adam's β₂.
    eps : (float or None, float), default (None, 1e-3)
        ε₁ > 0 bounds the root of V; None is the type's: 2⁻²³ or 2⁻⁵². ε₂ ≥ 0 is the least size of a tensor, so that
        zeros move.
    d : float, default 1
        d ≥ 1: longer steps, in the root mean square, are shortened to it.
    weight_decay : float, default 0
        λ ≥ 0, times η, taken off the parameters.
    form : {"torch", "fairseq"}, default "torch"
        "fairseq": as there, in Transformers and in T5: ε₁, by default 1e-30, is added to g² and bounds nothing, and the
        decay is αλ.
    relative_step : bool, default True
        Whether 1/√t bounds the rate; False takes η at all steps.
    scale_parameter : bool, default True
        Whether the rate is times max(ε₂, rms(p)).

    Notes
    -----
    The same update as ``torch.optim.Adafactor`` up to rounding, except that NaN in a gradient spreads through the
    tensor; torch accepts ε₁ = 0. ``optax.adafactor`` is the form "fairseq" without `relative_step`, but for a decay
    without the rate. fairseq's optional first moment is left out: it would bring back Adam's state. State: ``r``, ``c``
    (row_var, col_var), ``v`` (variance), each empty where it is not used. Three passes over a matrix (those over small
    ones stay in the cache), of which the last alone writes parameters; they move 24 bytes a float32 parameter. Two over
    what has no columns, with `v`: 32.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.ones((2, 3), np.float32)
    >>> opt = Adafactor(p, lr=0.5)
    >>> opt.step(np.float32([[1, 2, 4], [2, 4, 8]])).step
    1
    >>> p
    array([[0.5, 0.5, 0.5],
           [0.5, 0.5, 0.5]], dtype=float32)
    >>> opt.nbytes, p.nbytes
    (20, 24)

    References
    ----------
    Shazeer & Stern, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost, 2018, Algorithms 4 to 6.
    """

    rule = "adafactor"
    narrows = False
    states = ()
    optional_states = ("r", "c", "v")
    hypers = {
        "beta2_decay": _exponent,
        "eps": _pair_of_eps,
        "d": _threshold,
        "form": choice("torch", "fairseq"),
        "relative_step": flag,
        "scale_parameter": flag,
    }
    decoupled = True

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        beta2_decay: Number = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: Number = 1.0,
        weight_decay: Number = 0.0,
        form: str = "torch",
        relative_step: bool = True,
        scale_parameter: bool = True,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        eps1, eps2 = group.eps
        fairseq = float(group.form == "fairseq")
        flags = float(group.relative_step), float(group.scale_parameter)
        return group.beta2_decay, eps1 or 0.0, eps2, group.d, fairseq, *flags

    @staticmethod
    def layout(key: str, structure: Structure) -> Structure:
        return structure.shaped(lambda shape: state_shape(key, shape))

    @classmethod
    def variant(cls, groups: Sequence[Group]) -> Variant:
        return cls.rule, cls.optional_states  # each, for the tensors that have it

    @classmethod
    def plan(
        cls,
        rule: str,
        structure: Structure,
        state: State,
        pieces: Sequence[tuple[int, int, int, int]],
        groups: int,
        beside: Mapping[str, list[Any]] | None = None,
    ) -> _core.Plan:
        kind, arrays, names = structure.arrays[0].dtype.char, structure.arrays, structure.names
        shapes = [tensor.shape for tensor in tensors_of(structure, pieces)]
        return _core.Factored(rule, kind, arrays, names, state, pieces, groups, shapes=shapes, beside=beside)


def state_shape(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a tensor of `shape`: (…, rows, 1), (…, 1, columns), or the same; empty where it has no such state."""
    factored = len(shape) > 1
    if math.prod(shape) == 0 or factored == (key == "v"):
        return (0,)
    return {"r": (*shape[:-1], 1), "c": (*shape[:-2], 1, *shape[-1:]), "v": shape}[key]
