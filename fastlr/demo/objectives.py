"""Objectives in NumPy for examples, comparisons and tests: least squares, logistic regression, a network on batches.

Each is called as ``objective(params, step) -> (loss, grads)`` and holds the parameters to start from in ``params``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlr.buffers import Array, FlatBuffer
from fastlr.demo.network import Network


class LeastSquares:
    """‖Xw − y‖² / 2n + λ‖w‖² / 2, in float64.

    Attributes
    ----------
    params : array
        w, zeros.
    lipschitz : float
        The largest eigenvalue of the Hessian, σ² / n + λ with σ the largest singular value of X.
    """

    def __init__(self, x: Array, y: Array, decay: float = 0.0) -> None:
        self.x, self.y, self.decay = np.asarray(x, np.float64), np.asarray(y, np.float64), decay
        self.params = np.zeros(self.x.shape[1])
        self.lipschitz = float(np.linalg.norm(self.x, 2)) ** 2 / len(self.x) + decay

    def __call__(self, w: Array, step: int) -> tuple[float, Array]:
        error = self.x @ w - self.y
        loss = 0.5 * error @ error / len(self.x) + 0.5 * self.decay * w @ w
        return float(loss), self.x.T @ error / len(self.x) + self.decay * w

    def solution(self) -> Array:
        n, k = self.x.shape
        return np.linalg.solve(self.x.T @ self.x / n + self.decay * np.eye(k), self.x.T @ self.y / n)


class Logistic:
    """The mean of log(1 + exp(−y xᵀw)) for labels y = ±1, + λ‖w‖² / 2, in float64.

    Attributes
    ----------
    params : array
        w, zeros.
    lipschitz : float
        σ² / 4n + λ, which no eigenvalue of the Hessian exceeds.
    """

    def __init__(self, x: Array, y: Array, decay: float = 0.0) -> None:
        self.x, self.y, self.decay = np.asarray(x, np.float64), np.asarray(y, np.float64), decay
        self.params = np.zeros(self.x.shape[1])
        self.lipschitz = float(np.linalg.norm(self.x, 2)) ** 2 / (4 * len(self.x)) + decay

    def __call__(self, w: Array, step: int) -> tuple[float, Array]:
        margin = self.y * (self.x @ w)
        loss = np.mean(np.logaddexp(0, -margin)) + 0.5 * self.decay * w @ w
        weights = -self.y * _sigmoid(-margin) / len(self.x)
        return float(loss), self.x.T @ weights + self.decay * w

    def hvp(self, w: Array, v: Array, step: int = 0) -> Array:
        """The Hessian at w times v."""
        s = _sigmoid(self.x @ w)
        return self.x.T @ (s * (1 - s) * (self.x @ v)) / len(self.x) + self.decay * v  # type: ignore[no-any-return]


class Batches:
    """A network's mean loss on batches of labelled samples: a new order each epoch, given by the step alone.

    Parameters
    ----------
    network : Network
        Its parameters are the ones that are trained.
    x, labels : array
        The samples, one a row, and their classes.
    batch : int or None
        Samples a batch; a last, smaller one is left out. None: all of them each time.
    seed : int
        Of the orders.
    """

    def __init__(self, network: Network, x: Array, labels: Array, batch: int | None = 64, seed: int = 0) -> None:
        self.network, self.x, self.labels, self.seed = network, x, labels, seed
        self.params = network.params
        self.batch = len(x) if batch is None else batch
        self.steps_an_epoch = len(x) // self.batch
        self._epoch, self._order = -1, np.arange(len(x))

    def __call__(self, params: FlatBuffer, step: int) -> tuple[float, FlatBuffer]:
        x, labels = self.x, self.labels
        if self.batch < len(x):
            epoch, k = divmod(step, self.steps_an_epoch)
            if epoch != self._epoch:
                self._epoch = epoch
                self._order = np.random.default_rng((self.seed, epoch)).permutation(len(x))
            rows = self._order[k * self.batch : (k + 1) * self.batch]
            x, labels = x[rows], labels[rows]
        return self.network.gradients(x, labels), self.network.grads


def _sigmoid(x: Any) -> Array:
    with np.errstate(over="ignore"):  # exp(−x) = ∞ is the right 0
        return 1 / (1 + np.exp(-x))  # type: ignore[no-any-return]
