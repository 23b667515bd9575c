"""The authors' own packages, on torch: for-loops of unfused operations, as they come."""

from __future__ import annotations

import importlib
from typing import ClassVar

import torch

from bench.cases import Array, Case
from bench.engines.base import Engine, Step


class _Authors(Engine):
    classes: ClassVar[dict[str, str]]
    """The name of the class for each rule."""

    def setup(self, case: Case, p: Array, g: Array) -> Step:
        torch.set_num_threads(case.threads)
        self.place(p, g)
        param = torch.nn.Parameter(torch.from_numpy(self.p))
        param.grad = torch.from_numpy(self.g)
        cls = getattr(importlib.import_module(self.name), self.classes[case.spec.function])
        return cls([param], **case.hyper).step  # type: ignore[no-any-return]


class DAdaptation(_Authors):
    name = "dadaptation"
    classes: ClassVar = {"dadapt_sgd": "DAdaptSGD", "dadapt_adam": "DAdaptAdam"}

    @staticmethod
    def supports(case: Case) -> bool:
        return case.spec.function in DAdaptation.classes


class ProdigyOpt(_Authors):
    name = "prodigyopt"
    classes: ClassVar = {"prodigy": "Prodigy"}

    @staticmethod
    def supports(case: Case) -> bool:
        return case.spec.function in ProdigyOpt.classes
