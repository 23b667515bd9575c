"""The authors' own packages, on torch: for-loops of operations that are not fused, as they come."""

from __future__ import annotations

import importlib
from typing import ClassVar

import torch

from bench.cases import Array, Case
from bench.engines.base import Engine, Step


class _Authors(Engine):
    classes: ClassVar[dict[str, str]]
    """The name of the class for each rule."""

    @classmethod
    def supports(cls, case: Case) -> bool:
        return case.spec.function in cls.classes

    def setup(self, case: Case, p: Array, g: Array) -> Step:
        torch.set_num_threads(case.threads)
        self.place(p, g)
        param = torch.nn.Parameter(torch.from_numpy(self.p))
        param.grad = torch.from_numpy(self.g)
        cls = getattr(importlib.import_module(self.name), self.classes[case.spec.function])
        optimizer = cls([param], **case.hyper)
        if hasattr(optimizer, "train"):  # schedulefree's refuses to step before
            optimizer.train()
        return optimizer.step


class DAdaptation(_Authors):
    name = "dadaptation"
    classes: ClassVar = {"dadapt_sgd": "DAdaptSGD", "dadapt_adam": "DAdaptAdam"}


class Madgrad(_Authors):
    name = "madgrad"
    classes: ClassVar = {"madgrad": "MADGRAD"}


class ProdigyOpt(_Authors):
    name = "prodigyopt"
    classes: ClassVar = {"prodigy": "Prodigy"}


class ScheduleFree(_Authors):
    name = "schedulefree"
    classes: ClassVar = {"schedule_free_sgd": "SGDScheduleFree", "schedule_free_adamw": "AdamWScheduleFree"}
