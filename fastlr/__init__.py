"""fastlr: the optimizer step for CPUs.

Update rules as compiled kernels that work in place on large flat buffers; the same bits on any machine and thread
count.
"""

from fastlr import functional
from fastlr._core import Report
from fastlr.adadelta import Adadelta
from fastlr.adagrad import Adagrad
from fastlr.adam import Adam, Adamax, AdamW, AMSGrad
from fastlr.buffers import FlatBuffer
from fastlr.config import get_num_threads, isa, num_threads, set_num_threads
from fastlr.groups import Group
from fastlr.optimizer import Optimizer
from fastlr.radam import RAdam
from fastlr.rmsprop import RMSprop
from fastlr.sgd import SGD
from fastlr.sign import Lion, SignSGD, Signum

__all__ = [
    "SGD",
    "AMSGrad",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "FlatBuffer",
    "Group",
    "Lion",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Report",
    "SignSGD",
    "Signum",
    "functional",
    "get_num_threads",
    "isa",
    "num_threads",
    "set_num_threads",
]

__version__ = "0.1.0"
