"""FTRL: kernels/rules/ftrl.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastlr.groups import Group
from fastlr.hyper import Number, nonnegative
from fastlr.optimizer import Optimizer, Options, Rate, given

if TYPE_CHECKING:
    from typing_extensions import Unpack


class FTRL(Optimizer):
    """Follow the regularized leader, proximally: sparse, with exact zeros.

        g ← g + λp
        z ← z + g − (√(n + g²) − √n)/η · p
        n ← n + g²
        p ← 0 where |z| ≤ λ₁,  else (sign(z)λ₁ − z) / ((β + √n)/η + λ₂)

    Parameters
    ----------
    params : array, list or dict of arrays, FlatBuffer, or list of groups
        Updated in place; see `Optimizer`, also for the options `groups`, `maximize` and `nonfinite`.
    lr : float or callable, default 0.1
        η ≥ 0, or a function of the 0-based step. A step with η = 0 changes nothing.
    beta : float, default 1
        β ≥ 0. Added to √n: the rate of a parameter begins near η/β.
    l1 : float, default 0
        λ₁ ≥ 0. Larger means more zeros.
    l2 : float, default 0
        λ₂ ≥ 0, a weight on p² in what is minimised: not `weight_decay`, which acts through the gradient.
    initial_accumulator_value : float, default 0
        n before the first step, ≥ 0.
    weight_decay : float, default 0
        λ ≥ 0, added to the gradient.

    Notes
    -----
    Parameters are thought to start at 0; from elsewhere, the first step takes them part of the way back, to β/(β + |g|)
    of what they were. Not in torch. Keras' Ftrl is this with λ₂ twice its `l2_regularization_strength`, λ twice its
    `l2_shrinkage_regularization_strength`, β = 0 and an initial n of 0.1 by default. State: ``z``, ``n`` (linear,
    accumulator). Moves 28 bytes a float32 parameter.

    Examples
    --------
    >>> import numpy as np
    >>> p = np.zeros(2, np.float32)
    >>> FTRL(p, lr=0.5, l1=1.0).step(np.float32([3, -0.5])).step
    1
    >>> p
    array([-0.25,  0.  ], dtype=float32)

    References
    ----------
    McMahan et al., Ad Click Prediction: a View from the Trenches, 2013, Algorithm 1.
    """

    rule = "ftrl"
    tunable = False
    by_rows = True
    states = ("z", "n")
    starting = ("initial_accumulator_value",)
    hypers = {
        "beta": nonnegative,
        "l1": nonnegative,
        "l2": nonnegative,
        "initial_accumulator_value": nonnegative,
    }

    def __init__(
        self,
        params: Any,
        lr: Rate = 0.1,
        beta: Number = 1.0,
        l1: Number = 0.0,
        l2: Number = 0.0,
        initial_accumulator_value: float = 0.0,
        weight_decay: Number = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**given(locals()))

    @staticmethod
    def kernel(group: Group) -> tuple[float, ...]:
        return group.beta, group.l1, group.l2

    @staticmethod
    def initial(key: str, group: Group) -> float:
        return float(group.initial_accumulator_value) if key == "n" else 0.0
