"""fastlr: the optimizer step for CPUs.

Update rules as compiled kernels that work in place on large flat buffers; the same bits on any machine and thread
count.
"""

from typing import TYPE_CHECKING, Any

from fastlr import functional
from fastlr._core import Report
from fastlr.buffers import FlatBuffer
from fastlr.config import get_include, get_library_dir, get_num_threads, isa, num_threads, set_num_threads
from fastlr.custom import rule
from fastlr.groups import Group
from fastlr.hutchinson import hutchinson, spatial_average, torch_hvp
from fastlr.optimizer import Optimizer
from fastlr.rules.adabelief import AdaBelief
from fastlr.rules.adadelta import Adadelta
from fastlr.rules.adafactor import Adafactor
from fastlr.rules.adagrad import Adagrad
from fastlr.rules.adam import Adam, Adamax, AdamW, AMSGrad
from fastlr.rules.adan import Adan
from fastlr.rules.ademamix import AdEMAMix
from fastlr.rules.adopt import Adopt
from fastlr.rules.asgd import ASGD
from fastlr.rules.dadapt import DAdaptAdam, DAdaptSGD
from fastlr.rules.distance import DoG, DoWG, LDoG
from fastlr.rules.ftrl import FTRL
from fastlr.rules.hypergradient import SGDHD, AdamHD
from fastlr.rules.laprop import LaProp
from fastlr.rules.layerwise import LAMB, LARS, NovoGrad, StableAdamW
from fastlr.rules.madgrad import MADGRAD
from fastlr.rules.mechanic import mechanize
from fastlr.rules.muon import Muon
from fastlr.rules.nadam import NAdam
from fastlr.rules.prodigy import Prodigy
from fastlr.rules.qh import QHM, QHAdam
from fastlr.rules.radam import RAdam
from fastlr.rules.rmsprop import RMSprop
from fastlr.rules.rows import LazyAdam, RowAdagrad, SparseAdam
from fastlr.rules.rprop import Rprop
from fastlr.rules.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from fastlr.rules.second_order import AdaHessian, Sophia
from fastlr.rules.sgd import SGD
from fastlr.rules.sign import Lion, SignSGD, Signum
from fastlr.rules.yogi import Yogi
from fastlr.scaler import LossScaler
from fastlr.sparse import rows_of
from fastlr.training import callbacks
from fastlr.training.history import History
from fastlr.training.loop import train
from fastlr.training.newton import Newton, NewtonCG
from fastlr.training.stepsize import AdGD, Armijo, BarzilaiBorwein, Polyak

if TYPE_CHECKING:
    from fastlr import schedules, tune

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
    "AdGD",
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
    "Armijo",
    "BarzilaiBorwein",
    "DAdaptAdam",
    "DAdaptSGD",
    "DoG",
    "DoWG",
    "FlatBuffer",
    "Group",
    "History",
    "LDoG",
    "LaProp",
    "LazyAdam",
    "Lion",
    "LossScaler",
    "Muon",
    "NAdam",
    "Newton",
    "NewtonCG",
    "NovoGrad",
    "Optimizer",
    "Polyak",
    "Prodigy",
    "QHAdam",
    "RAdam",
    "RMSprop",
    "Report",
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
    "callbacks",
    "functional",
    "get_include",
    "get_library_dir",
    "get_num_threads",
    "hutchinson",
    "isa",
    "mechanize",
    "num_threads",
    "rows_of",
    "rule",
    "schedules",
    "set_num_threads",
    "spatial_average",
    "torch_hvp",
    "train",
    "tune",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports `fastlr.schedules` and `fastlr.tune` when they are used: half of the time that importing would take."""
    if name in ("schedules", "tune"):
        import importlib

        return importlib.import_module(f"fastlr.{name}")
    raise AttributeError(f"module 'fastlr' has no attribute {name!r}")
