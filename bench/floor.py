"""The floor: fastlr's own loop on the same threads with the case's reads and writes, and one addition a buffer.

What the rule must read before it can begin, for sums over the tensor, is read before, a buffer at a time, by the pass
that takes the norm for clipping. No kernel that makes these passes can be expected below it, so time(floor) /
time(engine) says what an engine's arithmetic, calls and extra passes cost. It is a measurement, not a bound: an engine
may come out above 1.
"""

from __future__ import annotations

import fastlr
from bench.cases import Array, Case
from bench.engines.base import Engine, Step
from bench.memory import written
from fastlr import _core
from fastlr.buffers import allocate


class Floor(Engine):
    name = "floor"

    @staticmethod
    def supports(case: Case) -> bool:
        return True

    def setup(self, case: Case, p: Array, g: Array) -> Step:
        fastlr.set_num_threads(case.threads)
        self.place(p, g)
        only_read = case.spec.origin or case.spec.informed
        count = case.spec.states + only_read
        states = {f"s{k}": [allocate(p.size, p.dtype)] for k in range(count)}
        piece = (0, 0, p.size, 0)
        plan = _core.Plan(
            f"floor_{case.spec.states}" + "_origin" * only_read, p.dtype.char, [self.p], [""], states, [piece], 1
        )
        plan.set_group(0, Case("sgd", 1).hyper["lr"], 0.0, 0.0, ())
        step, grads = plan.step, (self.g,)
        before = [grads, *((written(p.size, p.dtype),) for _ in range(case.spec.survey))][: case.spec.survey]

        def floor() -> None:
            for buffer in before:
                plan.norm(buffer)
            step(grads, 1.0, False, -1.0, False, _core.PROPAGATE)

        return floor

    def checked_as(self, case: Case) -> Case:
        """Its parameters move as in gradient descent."""
        return Case("sgd", case.size, case.dtype, case.threads)
