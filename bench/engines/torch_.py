"""torch.optim in its four ways on the CPU: the default for-loop, foreach, fused, and compiled by Inductor."""

from __future__ import annotations

import logging
import warnings
from typing import Any, ClassVar

import torch

from bench.cases import Array, Case
from bench.engines.base import Engine, Step

CLASSES: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "amsgrad": torch.optim.Adam,
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "radam": torch.optim.RAdam,
    "adafactor": torch.optim.Adafactor,
    "nadam": torch.optim.NAdam,
    "rprop": torch.optim.Rprop,
    "asgd": torch.optim.ASGD,
}
FUSED = ("sgd", "adagrad", "adam", "adamw", "amsgrad")


def _norm(x: Array) -> float:
    """As Adafactor has it; in float32 it adds the squares up one after the other, in a few lanes."""
    return torch.from_numpy(x).norm(2).item()


class _Torch(Engine):
    how: ClassVar[dict[str, bool]]
    norm: ClassVar = staticmethod(_norm)

    @staticmethod
    def supports(case: Case) -> bool:
        return case.spec.function in CLASSES

    def optimizer(self, case: Case, p: Array, g: Array) -> torch.optim.Optimizer:
        torch.set_num_threads(case.threads)
        self.place(p, g)
        param = torch.nn.Parameter(torch.from_numpy(self.p.reshape(case.shape)))
        param.grad = torch.from_numpy(self.g.reshape(case.shape))
        extra = {"amsgrad": True} if case.spec.function == "amsgrad" else {}
        return CLASSES[case.spec.function]([param], **case.hyper, **extra, **self.how)

    def setup(self, case: Case, p: Array, g: Array) -> Step:
        return self.optimizer(case, p, g).step


class ForLoop(_Torch):
    name = "torch for-loop"
    how: ClassVar = {"foreach": False}


class Foreach(_Torch):
    name = "torch foreach"
    how: ClassVar = {"foreach": True}


class Fused(_Torch):
    name = "torch fused"
    how: ClassVar = {"fused": True}

    @staticmethod
    def supports(case: Case) -> bool:
        return case.spec.function in FUSED


class Compile(_Torch):
    """`torch.compile` of a function that calls the for-loop's step: Inductor fuses it into one loop of C++."""

    name = "torch compile"
    how: ClassVar = {"foreach": False}

    def setup(self, case: Case, p: Array, g: Array) -> Step:
        torch._dynamo.reset()  # what an earlier case compiled counts towards the limit of recompilations
        torch._logging.set_logs(dynamo=logging.ERROR)
        optimizer = self.optimizer(case, p, g)

        def eager() -> None:
            optimizer.step()

        with warnings.catch_warnings():  # Inductor imports modules that warn of their own deprecation
            warnings.simplefilter("ignore")
            torch.compile(lambda x: x + 1)(torch.zeros(1))
        return torch.compile(eager)
