"""torch's optimizers with fastlr's step.

Each class is a subclass of the torch optimizer of its name, with the same arguments, parameter groups, hooks, state and
checkpoints; what is another is the step, which updates all tensors in one fused call. CPU tensors only.

>>> import torch
>>> import fastlr.torch
>>> model = torch.nn.Linear(2, 1)
>>> opt = fastlr.torch.AdamW(model.parameters(), lr=1e-3, clip_norm=1.0)
>>> model(torch.ones(1, 2)).sum().backward()
>>> opt.step()
>>> opt.report.skipped
False
"""

from __future__ import annotations

from fastlr.torch.rules import (
    ASGD,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Muon,
    NAdam,
    RAdam,
    RMSprop,
    Rprop,
)

__all__ = [
    "ASGD",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
]
