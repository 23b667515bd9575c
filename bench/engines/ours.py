"""fastlr: one optimizer over one array."""

from __future__ import annotations

import functools

import fastlr
from bench.cases import Array, Case
from bench.engines.base import Engine, Step
from fastlr.buffers import allocate

CLASSES = {
    "sgd": fastlr.SGD,
    "adagrad": fastlr.Adagrad,
    "rmsprop": fastlr.RMSprop,
    "adam": fastlr.Adam,
    "adamw": fastlr.AdamW,
    "amsgrad": fastlr.AMSGrad,
    "adadelta": fastlr.Adadelta,
    "adamax": fastlr.Adamax,
    "radam": fastlr.RAdam,
    "adabelief": fastlr.AdaBelief,
    "asgd": fastlr.ASGD,
    "ftrl": fastlr.FTRL,
    "schedule_free_sgd": fastlr.ScheduleFreeSGD,
    "schedule_free_adamw": fastlr.ScheduleFreeAdamW,
    "adahessian": fastlr.AdaHessian,
    "sophia": fastlr.Sophia,
    "adan": fastlr.Adan,
    "ademamix": fastlr.AdEMAMix,
    "adopt": fastlr.Adopt,
    "laprop": fastlr.LaProp,
    "madgrad": fastlr.MADGRAD,
    "nadam": fastlr.NAdam,
    "qhm": fastlr.QHM,
    "rprop": fastlr.Rprop,
    "qhadam": fastlr.QHAdam,
    "yogi": fastlr.Yogi,
    "dadapt_sgd": fastlr.DAdaptSGD,
    "dadapt_adam": fastlr.DAdaptAdam,
    "prodigy": fastlr.Prodigy,
    "adafactor": fastlr.Adafactor,
    "sign_sgd": fastlr.SignSGD,
    "signum": fastlr.Signum,
    "lion": fastlr.Lion,
    "adamw_cautious": functools.partial(fastlr.AdamW, cautious=True),
    "lars": fastlr.LARS,
    "lamb": fastlr.LAMB,
    "novograd": fastlr.NovoGrad,
    "stable_adamw": fastlr.StableAdamW,
    "dog": fastlr.DoG,
    "dowg": fastlr.DoWG,
    "sgd_hd": fastlr.SGDHD,
    "adam_hd": fastlr.AdamHD,
}


class Fastlr(Engine):
    name = "fastlr"

    @staticmethod
    def supports(case: Case) -> bool:
        return case.spec.function in CLASSES

    def setup(self, case: Case, p: Array, g: Array) -> Step:
        fastlr.set_num_threads(case.threads)
        self.place(p, g)
        p, gradient = self.p.reshape(case.shape), self.g.reshape(case.shape)
        step = CLASSES[case.spec.function](p, **case.hyper).step
        if case.spec.informed:
            diagonal = allocate(g.size, g.dtype)
            diagonal[:] = g
            return lambda: step(gradient, hessian=diagonal.reshape(case.shape))
        return lambda: step(gradient)
