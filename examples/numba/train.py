"""The classifier of examples/hinge.py, its whole loop compiled by Numba: ``python -m examples.numba.train``."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

import fastlr
import fastlr.jit
from examples import hinge

STEPS = 200

step = fastlr.jit.update(fastlr.AdamW, weight_decay=hinge.HYPER["weight_decay"])


@numba.njit(error_model="numpy")  # type: ignore[untyped-decorator]
def train(x: Any, y: Any, steps: int, lr: float) -> Any:
    """Weights and bias, the last one, in one array."""
    width = x.shape[1]
    buffers = np.zeros((4, width + 1), np.float32)
    p, g, m, v = buffers[0], buffers[1], buffers[2], buffers[3]
    for t in range(1, steps + 1):
        g[:] = 0
        for i in range(len(x)):
            score = p[width]
            for j in range(width):
                score += p[j] * x[i, j]
            slack = np.float32(1) - y[i] * score
            if slack > 0:
                r = np.float32(-2) * y[i] * slack
                for j in range(width):
                    g[j] += r * x[i, j]
                g[width] += r
        step(p, g, (m, v), t, lr, 1 / len(x))
    return p


def run() -> dict[str, Any]:
    x, y = hinge.load(hinge.path())
    p = train(x, y, STEPS, hinge.HYPER["lr"])
    return {"params": p, "right": float(np.mean((x @ p[:-1] + p[-1]) * y > 0))}


if __name__ == "__main__":
    print(f"{run()['right']:.1%} right")
