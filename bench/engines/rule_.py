"""`fastlr.rule`: AdamW as a user writes it, compiled by Numba, run by fastlr's threads."""

from __future__ import annotations

from typing import Any

import fastlr
from bench.cases import Array, Case
from bench.engines.base import Engine, Step
from fastlr.custom import average, complement, root, square


@fastlr.rule(states=("m", "v"), squares=("v",), betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, decoupled=True)
def AdamW(g: Any, m: Any, v: Any, a1: Any, a2: Any, eps: Any) -> Any:
    m = average(m, g, a1)
    v = average(v, square(g), a2)
    return m / (root(v) + eps), m, v


@AdamW.prepare
def scalars(t: Any, lr: Any, betas: Any, eps: Any) -> Any:
    c1, c2 = complement(betas[0], t), complement(betas[1], t)
    return lr * (root(c2) / c1), 1 - betas[0], 1 - betas[1], eps * root(c2)


class Rule(Engine):
    name = "fastlr.rule"

    @staticmethod
    def supports(case: Case) -> bool:
        return case.rule == "adamw"

    def setup(self, case: Case, p: Array, g: Array) -> Step:
        fastlr.set_num_threads(case.threads)
        self.place(p, g)
        step, gradient = AdamW(self.p, **case.hyper).step, self.g
        return lambda: step(gradient)
