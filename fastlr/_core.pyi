from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, final, overload

import numpy as np
import numpy.typing as npt
from typing_extensions import Self, disjoint_base

MAX_THREADS: Final[int]
BLOCK: Final[int]
PROPAGATE: Final[int]
SKIP: Final[int]
RAISE: Final[int]
ONE: Final[float]

def set_threads(n: int) -> None: ...
def get_threads() -> int: ...
def processors() -> int: ...
def isas() -> dict[str, bool]: ...
def isa() -> str: ...
def use_isa(name: str) -> None: ...
def rule_info(name: str) -> dict[str, int]: ...
def elementary(name: str, x: float, y: float = 0.0) -> float: ...
def logarithm_of(x: float) -> tuple[float, float]: ...
def stirling(z: float) -> float: ...
def plateau_run(options: tuple[Any, ...], state: tuple[Any, ...], metrics: Any, out: Any) -> tuple[float, ...]: ...

@final
class Custom:
    def __init__(self, function: Callable[[float], float]) -> None: ...
    @property
    def function(self) -> Callable[[float], float]: ...
    @property
    def address(self) -> tuple[int, int]: ...

@disjoint_base
class Curve:
    @overload
    def __call__(self, t: float, out: None = None) -> float: ...
    @overload
    def __call__(self, t: npt.ArrayLike, out: npt.NDArray[np.float64] | None = None) -> npt.NDArray[np.float64]: ...
    def _compile(self, table: bytes, kept: tuple[Any, ...]) -> None: ...
    def _fill(self, t: Any, out: Any) -> None: ...

def per_tensor(rule: str) -> bool: ...

@final
class Report:
    @property
    def step(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def lrs(self) -> tuple[float, ...]: ...
    @property
    def grad_norm(self) -> float | None: ...
    @property
    def skipped(self) -> bool: ...

@final
class Tensors:
    def __new__(
        cls,
        table: object,
        params: list[Any],
        slots: list[dict[str, Any]],
        keys: tuple[str, ...],
        numbers: tuple[tuple[str, int], ...],
        conform: Callable[[int, Any], Any],
    ) -> Tensors: ...
    def unchanged(self) -> bool: ...
    def collect(self) -> list[Any]: ...

@final
class Census:
    def __new__(cls, groups: list[dict[str, Any]], state: Any, waiting: list[Any]) -> Census: ...
    def holds(self, groups: list[dict[str, Any]], state: Any) -> bool: ...

@disjoint_base
class Plan:
    def __new__(
        cls,
        rule: str,
        kind: str,
        params: list[Any],
        names: list[str],
        state: Mapping[str, list[Any]],
        pieces: Sequence[tuple[int, int, int, int]],
        groups: int,
        informed: str | None = None,
        shapes: Sequence[tuple[int, ...]] | None = None,
    ) -> Plan: ...
    @property
    def step_count(self) -> int: ...
    @property
    def steps_made(self) -> list[int]: ...
    @property
    def numbers(self) -> list[list[float]]: ...
    def set_steps(self, step_count: int, made: list[int], numbers: list[list[float]]) -> None: ...
    def load(
        self,
        state: Mapping[str, list[Any]],
        step_count: int,
        made: list[int],
        numbers: list[list[float]],
        updates: Sequence[tuple[dict[str, Any], Mapping[str, Any]]],
    ) -> None: ...
    def attach(self, tensors: Tensors) -> None: ...
    def norm(self, grads: Sequence[Any]) -> float: ...
    def set_group(self, group: int, lr: float, l2: float, decay: float, rule: tuple[float, ...]) -> None: ...
    def set_lr(self, group: int, lr: float) -> None: ...
    def set_schedules(self, entries: list[tuple[Any, ...]]) -> None: ...
    def step(
        self,
        grads: Sequence[Any],
        grad_scale: float,
        maximize: bool,
        clip_norm: float,
        zero: bool,
        nonfinite: int,
        inputs: Sequence[Any] | Callable[[Sequence[Any], float], Sequence[Any]] | None = None,
        then: Callable[[], Any] | None = None,
    ) -> Report: ...
    def step_rows(
        self,
        rows: Sequence[Any],
        grads: Sequence[Any],
        grad_scale: float,
        maximize: bool,
        clip_norm: float,
        nonfinite: int,
        then: Callable[[], Any] | None = None,
    ) -> Report: ...
    def norm_rows(self, rows: Sequence[Any], grads: Sequence[Any]) -> float: ...

@final
class Factored(Plan):
    def __init__(self, *args: Any, shapes: Sequence[tuple[int, ...]], **kwargs: Any) -> None: ...

@disjoint_base
class Stepper:
    _plan: Plan
    _lock: Any
    def __new__(cls, *_: Any, **__: Any) -> Self: ...
    def step(
        self, grads: Any, *, grad_scale: float = 1.0, clip_norm: float | None = None, zero_grads: bool = False
    ) -> Report: ...
    def _step(
        self, grads: Any, inputs: Any, grad_scale: float, clip_norm: float | None, zero_grads: bool
    ) -> Report: ...
    def step_rows(
        self, rows: Any, grads: Any, *, grad_scale: float = 1.0, clip_norm: float | None = None
    ) -> Report: ...

@final
class RowStep:
    def __new__(cls, plan: Plan) -> Self: ...

class InformedStepper(Stepper):
    def step(
        self,
        grads: Any,
        *,
        hessian: Any = None,
        grad_scale: float = 1.0,
        clip_norm: float | None = None,
        zero_grads: bool = False,
    ) -> Report: ...
