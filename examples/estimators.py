"""Classifiers for scikit-learn's tools, trained by fastlr: ``python -m examples.estimators``.

`LinearClassifier` is multinomial logistic regression, as SGDClassifier(loss="log_loss") is one class at a time, and
`NetworkClassifier` has a hidden layer, as MLPClassifier. Constructors store what they are given, so that clone, grid
search and pipelines work.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

import fastlr


class LinearClassifier(ClassifierMixin, BaseEstimator):
    """Softmax of linear scores. `optimizer` is a class of fastlr, `alpha` its weight decay."""

    def __init__(
        self, optimizer: Any = fastlr.AdamW, lr: float = 0.01, alpha: float = 1e-4, epochs: int = 30, batch: int = 32,
        random_state: int = 0,
    ) -> None:  # fmt: skip
        self.optimizer, self.lr, self.alpha = optimizer, lr, alpha
        self.epochs, self.batch, self.random_state = epochs, batch, random_state

    def _widths(self, features: int, classes: int) -> list[int]:
        return [features, classes]

    def fit(self, X: Any, y: Any) -> LinearClassifier:
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must have two classes or more, got {len(self.classes_)} class")
        random = np.random.default_rng(self.random_state)
        widths = self._widths(X.shape[1], len(self.classes_))
        self.params_ = fastlr.FlatBuffer(
            {name: s for k, (n, m) in enumerate(itertools.pairwise(widths))
             for name, s in ((f"w{k}", (n, m)), (f"b{k}", (m,)))}
        )  # fmt: skip
        for k, n in enumerate(widths[:-1]):
            w = self.params_[f"w{k}"]
            w[:] = random.standard_normal(w.shape) / np.sqrt(n)
        grads, opt = self.params_.like(), self.optimizer(self.params_, lr=self.lr, weight_decay=self.alpha)
        for _ in range(self.epochs):
            order = random.permutation(len(X))
            for start in range(0, len(X), self.batch):
                rows = order[start : start + self.batch]
                self._backward(X[rows], labels[rows], grads)
                opt.step(grads, grad_scale=1 / len(rows))
        return self

    def _forward(self, X: Any) -> list[Any]:
        layers, depth = [X], len(self.params_.names) // 2
        for k in range(depth):
            x = layers[-1] @ self.params_[f"w{k}"] + self.params_[f"b{k}"]
            layers.append(np.maximum(x, 0) if k + 1 < depth else x)
        scores = np.exp(layers[-1] - layers[-1].max(axis=1, keepdims=True))
        return [*layers[:-1], scores / scores.sum(axis=1, keepdims=True)]

    def _backward(self, X: Any, labels: Any, grads: Any) -> None:
        layers = self._forward(X)
        d = layers[-1]
        d[np.arange(len(X)), labels] -= 1
        for k in reversed(range(len(layers) - 1)):
            grads[f"w{k}"][:] = layers[k].T @ d
            grads[f"b{k}"][:] = d.sum(axis=0)
            d = (d @ self.params_[f"w{k}"].T) * (layers[k] > 0)

    def predict_proba(self, X: Any) -> Any:
        check_is_fitted(self)
        return self._forward(validate_data(self, X, dtype=np.float32, reset=False))[-1]

    def predict(self, X: Any) -> Any:
        found = self.predict_proba(X).argmax(axis=1)
        return self.classes_[found]


class NetworkClassifier(LinearClassifier):
    """The same with a hidden layer of rectified units."""

    def __init__(
        self, hidden: int = 64, optimizer: Any = fastlr.AdamW, lr: float = 0.003, alpha: float = 1e-4, epochs: int = 30,
        batch: int = 32, random_state: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(optimizer, lr, alpha, epochs, batch, random_state)
        self.hidden = hidden

    def _widths(self, features: int, classes: int) -> list[int]:
        return [features, self.hidden, classes]


def run() -> dict[str, float]:
    """Mean accuracy on digits, of three folds."""
    x, y = load_digits(return_X_y=True)
    return {
        type(e).__name__: float(cross_val_score(make_pipeline(StandardScaler(), e), x, y, cv=3).mean())
        for e in (LinearClassifier(), NetworkClassifier())
    }


if __name__ == "__main__":
    for name, accuracy in run().items():
        print(f"{name:20} {accuracy:.1%}")
