"""A multilayer perceptron in NumPy, whose parameters are one `FlatBuffer` and whose gradients are another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fastlr import FlatBuffer
from fastlr.buffers import Array


class Network:
    """Fully connected layers with ReLU between them, for classification.

    Parameters
    ----------
    sizes : sequence of int
        Width of the input, of each hidden layer, and of the output.
    seed : int
        Of the initial weights.
    dtype : dtype, default float32
        float32 or float64.

    Attributes
    ----------
    params : FlatBuffer
        Weights "w1", "w2", ... and biases "b1", "b2", ...; what the optimizer updates.
    grads : FlatBuffer
        The same layout; what `gradients` writes.
    """

    def __init__(self, sizes: Sequence[int], seed: int, dtype: npt.DTypeLike = np.float32) -> None:
        self.layers = range(1, len(sizes))
        shapes: dict[str, tuple[int, ...]] = {}
        for k in self.layers:
            shapes[f"w{k}"] = (sizes[k - 1], sizes[k])
            shapes[f"b{k}"] = (sizes[k],)
        self.params = FlatBuffer(shapes, dtype)
        self.grads = self.params.like()

        # He et al. (2015): this variance keeps the size of the activations from layer to layer under ReLU.
        random = np.random.default_rng(seed)
        for k in self.layers:
            self.params[f"w{k}"][:] = random.normal(0, np.sqrt(2 / sizes[k - 1]), shapes[f"w{k}"])

    def forward(self, x: Array) -> list[Array]:
        """The input and the output of every layer for a batch, one row a sample; the last are the logits."""
        outputs = [x]
        for k in self.layers:
            x = x @ self.params[f"w{k}"]
            x += self.params[f"b{k}"]
            if k < len(self.layers):
                np.maximum(x, 0, out=x)
            outputs.append(x)
        return outputs

    def gradients(self, x: Array, labels: Array) -> float:
        """Writes the gradients of the mean loss over a batch to `grads`, and returns the loss."""
        outputs = self.forward(x)
        loss, delta = cross_entropy(outputs[-1], labels)
        for k in reversed(self.layers):
            # delta is the gradient of what layer k returned before ReLU. The products land in the flat buffer directly.
            np.matmul(outputs[k - 1].T, delta, out=self.grads[f"w{k}"])
            np.sum(delta, axis=0, out=self.grads[f"b{k}"])
            if k > 1:
                delta = delta @ self.params[f"w{k}"].T
                delta *= outputs[k - 1] > 0
        return loss

    def evaluate(self, x: Array, labels: Array) -> tuple[float, float]:
        """Mean loss and accuracy."""
        logits = self.forward(x)[-1]
        return cross_entropy(logits, labels)[0], float(np.mean(logits.argmax(axis=1) == labels))


def cross_entropy(logits: Array, labels: Array) -> tuple[float, Array]:
    """Mean cross-entropy of the softmax of `logits`, and its gradient."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)  # exp cannot overflow then
    exps = np.exp(shifted)
    sums = exps.sum(axis=1, keepdims=True)
    loss = np.mean(np.log(sums[:, 0]) - shifted[rows, labels])
    exps /= sums
    exps[rows, labels] -= 1
    exps /= len(labels)
    return float(loss), exps
