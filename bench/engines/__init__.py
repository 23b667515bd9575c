"""The engines, one file a library. Only those whose library is installed load; none is needed but fastlr."""

from __future__ import annotations

import importlib
import importlib.util
import os

from bench.engines.base import Engine

# name: (library, module, class)
ENGINES = {
    "fastlr": ("fastlr", "bench.engines.ours", "Fastlr"),
    "fastlr.rule": ("numba", "bench.engines.rule_", "Rule"),
    "floor": ("fastlr", "bench.floor", "Floor"),
    "numpy": ("numpy", "bench.engines.numpy_", "Numpy"),
    "numba": ("numba", "bench.engines.numba_", "Numba"),
    "torch for-loop": ("torch", "bench.engines.torch_", "ForLoop"),
    "torch foreach": ("torch", "bench.engines.torch_", "Foreach"),
    "torch fused": ("torch", "bench.engines.torch_", "Fused"),
    "torch compile": ("torch", "bench.engines.torch_", "Compile"),
    "deepspeed": ("deepspeed", "bench.engines.deepspeed_", "DeepSpeed"),
    "optax jit": ("optax", "bench.engines.optax_", "Optax"),
    "dadaptation": ("dadaptation", "bench.engines.authors", "DAdaptation"),
    "madgrad": ("madgrad", "bench.engines.authors", "Madgrad"),
    "prodigyopt": ("prodigyopt", "bench.engines.authors", "ProdigyOpt"),
    "schedulefree": ("schedulefree", "bench.engines.authors", "ScheduleFree"),
}

AUTHORS = ("dadaptation", "madgrad", "prodigyopt", "schedulefree")  # engines that are the rule's own authors' package
LIBRARIES = ("fastlr", "numpy", "numba", "torch", "deepspeed", "optax", "jax", *AUTHORS)


def limit_threads(threads: int) -> None:
    """Sets what libraries read once, when they load: call it before `load`. The rest is set by each engine."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ["PJRT_NPROC"] = str(threads)  # XLA's pool


def load(names: list[str] | None = None) -> tuple[dict[str, type[Engine]], dict[str, str]]:
    """({name: engine}, {name: why it cannot run}); `names` defaults to all."""
    for name in names or ():
        if name not in ENGINES:
            raise ValueError(f"engines must be among {', '.join(ENGINES)}, got {name!r}")
    engines, missing = {}, {}
    for name in names or ENGINES:
        library, module, attribute = ENGINES[name]
        if importlib.util.find_spec(library) is None:
            missing[name] = f"{library} is not installed"
            continue
        try:
            engines[name] = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # a library that is installed but broken must not stop the others
            missing[name] = f"{type(error).__name__}: {first_line(error)}"
    return engines, missing


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:160]
