"""Choosing, watching and adapting the learning rate, for any ``objective(params, step) -> (loss, grads)``."""

from fastlr.tune.curvature import Curvature, curvature, stable_rate
from fastlr.tune.diagnose import Diagnose, Diagnosis, Finding, diagnose
from fastlr.tune.range_test import RangeTest, range_test
from fastlr.tune.search import STORAGE, SearchResult, Trial, search

__all__ = [
    "STORAGE",
    "Curvature",
    "Diagnose",
    "Diagnosis",
    "Finding",
    "RangeTest",
    "SearchResult",
    "Trial",
    "curvature",
    "diagnose",
    "range_test",
    "search",
    "stable_rate",
]
