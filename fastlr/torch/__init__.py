"""torch's optimizers with fastlr's step.

Each class is a subclass of the torch optimizer of its name, with the same arguments, parameter groups, hooks, state and
checkpoints; what is another is the step, which updates all tensors in one fused call. fastlr's other rules have classes
of their own. CPU tensors only.

All take torch's arguments, and more that ``help`` of a class describes. `foreach`, `fused` and `capturable` choose
among torch's implementations and change nothing here. Nor does `differentiable`: autograd does not see the step, which
raises where gradients with a graph are there to be differentiated.

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

from fastlr.torch.curvature import hutchinson
from fastlr.torch.flat import flatten
from fastlr.torch.objective import objective
from fastlr.torch.rules import (
    ASGD,
    FTRL,
    LAMB,
    LARS,
    MADGRAD,
    QHM,
    SGD,
    SGDHD,
    AdaBelief,
    Adadelta,
    Adafactor,
    Adagrad,
    AdaHessian,
    Adam,
    Adamax,
    AdamHD,
    AdamW,
    Adan,
    AdEMAMix,
    Adopt,
    AMSGrad,
    DAdaptAdam,
    DAdaptSGD,
    DoG,
    DoWG,
    LaProp,
    LazyAdam,
    LDoG,
    Lion,
    Muon,
    NAdam,
    NovoGrad,
    Prodigy,
    QHAdam,
    RAdam,
    RMSprop,
    RowAdagrad,
    Rprop,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    SignSGD,
    Signum,
    Sophia,
    SparseAdam,
    StableAdamW,
    Yogi,
    optimizer_of,
)

__all__ = [
    "ASGD",
    "FTRL",
    "LAMB",
    "LARS",
    "MADGRAD",
    "QHM",
    "SGD",
    "SGDHD",
    "AMSGrad",
    "AdEMAMix",
    "AdaBelief",
    "AdaHessian",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamHD",
    "AdamW",
    "Adamax",
    "Adan",
    "Adopt",
    "DAdaptAdam",
    "DAdaptSGD",
    "DoG",
    "DoWG",
    "LDoG",
    "LaProp",
    "LazyAdam",
    "Lion",
    "Muon",
    "NAdam",
    "NovoGrad",
    "Prodigy",
    "QHAdam",
    "RAdam",
    "RMSprop",
    "RowAdagrad",
    "Rprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "SignSGD",
    "Signum",
    "Sophia",
    "SparseAdam",
    "StableAdamW",
    "Yogi",
    "flatten",
    "hutchinson",
    "objective",
    "optimizer_of",
]
