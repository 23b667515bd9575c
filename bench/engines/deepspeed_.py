"""DeepSpeed's CPUAdam: C++ for AVX-512 or AVX2 and OpenMP, compiled with ninja at its first use on a machine."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings

import torch

from bench.cases import Array, Case
from bench.engines.base import Engine, Step

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it warns that it chose it
with warnings.catch_warnings():  # its imports warn of their own deprecated calls
    warnings.simplefilter("ignore")
    from deepspeed.ops.adam import DeepSpeedCPUAdam
logging.getLogger("DeepSpeed").setLevel(logging.ERROR)


class DeepSpeed(Engine):
    name = "deepspeed"

    @staticmethod
    def supports(case: Case) -> bool:
        return case.spec.function in ("adam", "adamw") and case.dtype == "float32"

    def setup(self, case: Case, p: Array, g: Array) -> Step:
        torch.set_num_threads(case.threads)  # OpenMP's, which it shares with torch
        self.place(p, g)
        param = torch.nn.Parameter(torch.from_numpy(self.p))
        param.grad = torch.from_numpy(self.g)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the compiler's log
            warnings.simplefilter("ignore")
            optimizer = DeepSpeedCPUAdam([param], **case.hyper, adamw_mode=case.spec.function == "adamw")
        return optimizer.step
