"""fastlr: the optimizer step for CPUs.

Update rules as compiled kernels that work in place on large flat buffers; the same bits on any machine and thread
count.
"""

from typing import TYPE_CHECKING, Any

from fastlr import callbacks, functional
from fastlr._core import Report
from fastlr.adabelief import AdaBelief
from fastlr.adadelta import Adadelta
from fastlr.adafactor import Adafactor
from fastlr.adagrad import Adagrad
from fastlr.adam import Adam, Adamax, AdamW, AMSGrad
from fastlr.adan import Adan
from fastlr.ademamix import AdEMAMix
from fastlr.adopt import Adopt
from fastlr.asgd import ASGD
from fastlr.buffers import FlatBuffer
from fastlr.config import get_include, get_library_dir, get_num_threads, isa, num_threads, set_num_threads
from fastlr.custom import rule
from fastlr.dadapt import DAdaptAdam, DAdaptSGD
from fastlr.distance import DoG, DoWG, LDoG
from fastlr.ftrl import FTRL
from fastlr.groups import Group
from fastlr.history import History
from fastlr.hutchinson import hutchinson, spatial_average, torch_hvp
from fastlr.hypergradient import SGDHD, AdamHD
from fastlr.laprop import LaProp
from fastlr.layerwise import LAMB, LARS, NovoGrad, StableAdamW
from fastlr.madgrad import MADGRAD
from fastlr.mechanic import mechanize
from fastlr.muon import Muon
from fastlr.nadam import NAdam
from fastlr.newton import Newton, NewtonCG
from fastlr.optimizer import Optimizer
from fastlr.prodigy import Prodigy
from fastlr.qh import QHM, QHAdam
from fastlr.radam import RAdam
from fastlr.rmsprop import RMSprop
from fastlr.rows import LazyAdam, RowAdagrad, SparseAdam
from fastlr.rprop import Rprop
from fastlr.scaler import LossScaler
from fastlr.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from fastlr.second_order import AdaHessian, Sophia
from fastlr.sgd import SGD
from fastlr.sign import Lion, SignSGD, Signum
from fastlr.sparse import rows_of
from fastlr.stepsize import AdGD, Armijo, BarzilaiBorwein, Polyak
from fastlr.training import train
from fastlr.yogi import Yogi

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
