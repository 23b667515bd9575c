"""fastlr: one optimizer over one array."""

from __future__ import annotations

import fastlr
from bench.cases import Array, Case
from bench.engines.base import Engine, Step

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
    "sign_sgd": fastlr.SignSGD,
    "signum": fastlr.Signum,
    "lion": fastlr.Lion,
}


class Fastlr(Engine):
    name = "fastlr"

    @staticmethod
    def supports(case: Case) -> bool:
        return case.spec.function in CLASSES

    def setup(self, case: Case, p: Array, g: Array) -> Step:
        fastlr.set_num_threads(case.threads)
        self.place(p, g)
        step, gradient = CLASSES[case.spec.function](self.p, **case.hyper).step, self.g
        return lambda: step(gradient)
