"""A linear classifier of tumours by squared hinge loss: what c/, cython/ and numba/ train in their languages.

All use +, −, × and max only, in one order, so that all end with the same bits.
"""

from __future__ import annotations

import importlib.resources
from typing import Any

import numpy as np

import fastlr

Array = np.ndarray[Any, np.dtype[np.float32]]

HYPER = {"lr": 0.05, "weight_decay": 0.01}
CLIP = 1.0


def path() -> str:
    """scikit-learn's file of breast cancer measurements."""
    return str(importlib.resources.files("sklearn.datasets") / "data" / "breast_cancer.csv")


def load(csv: str) -> tuple[Array, Array]:
    """Measurements, each column divided by its largest, and the class as 1 or −1."""
    table = np.loadtxt(csv, np.float32, delimiter=",", skiprows=1)
    x = np.ascontiguousarray(table[:, :-1])
    return x / np.abs(x).max(axis=0), np.where(table[:, -1] != 0, np.float32(1), np.float32(-1))


def gradient(x: Array, y: Array, w: Array, b: Array, gw: Array, gb: Array) -> float:
    """Σ max(0, 1 − y (w·x + b))², and its gradient into gw and gb: sums from the first to the last."""
    score = np.full_like(y, b[0])
    for j in range(len(w)):
        score += w[j] * x[:, j]
    slack = np.maximum(1 - y * score, np.float32(0))
    r = -2 * y * slack
    gw[:] = np.add.accumulate(r[:, None] * x)[-1]
    gb[:] = np.add.accumulate(r)[-1]
    return float(np.add.accumulate(slack * slack)[-1])


def train(csv: str, steps: int, clip_norm: float | None = CLIP) -> tuple[Array, Array]:
    x, y = load(csv)
    w, b = np.zeros(x.shape[1], np.float32), np.zeros(1, np.float32)
    gw, gb = np.zeros_like(w), np.zeros_like(b)
    opt = fastlr.AdamW([w, b], **HYPER)
    for step in range(1, steps + 1):
        loss = gradient(x, y, w, b, gw, gb)
        opt.step([gw, gb], grad_scale=1 / len(x), clip_norm=clip_norm)
        if step == 1 or step % 50 == 0:
            print(f"step {step:4}  loss {loss / len(x):.4f}")
    return w, b


if __name__ == "__main__":
    train(path(), 200)
