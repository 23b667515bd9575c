"""Schedules for other libraries' training loops: torch, optax and Keras, each imported only when it is asked for."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastlr.extras import need
from fastlr.hyper import real
from fastlr.schedules import tree

if TYPE_CHECKING:
    from fastlr.schedules.schedule import Schedule

__all__ = ["to_keras", "to_optax", "to_torch", "traced"]


# ---- torch ----------------------------------------------------------------------------------------------------------


def to_torch(schedule: Schedule, optimizer: Any, key: str, scales: list[float] | None, last_epoch: int) -> Any:
    """A learning-rate scheduler of torch that sets ``group[key] = schedule(n) * scale`` in every parameter group.

    Values are absolute: the rate that the optimizer was built with does not matter, nor does the order of construction
    and ``load_state_dict``. Its state is the number of steps and nothing else: it never brings back an old plan, and
    `schedule` may be another one on resuming.

    Parameters
    ----------
    key : str
        The entry of the parameter groups: "lr", "weight_decay", "momentum", …; "betas[0]" for a part of a tuple.
    scales : list of float, optional
        A factor for each group.
    last_epoch : int
        As in torch: −1 for a new run, n − 1 for one that has made n steps.
    """
    return _torch_class()(schedule, optimizer, key, scales, last_epoch)


@functools.cache
def _torch_class() -> Any:
    base: Any = need("torch.optim.lr_scheduler", "peers", "to_torch()").LRScheduler

    class TorchSchedule(base):  # type: ignore[misc]
        last_epoch: int
        """See `fastlr.schedules.adapters.to_torch`."""

        def __init__(
            self, schedule: Schedule, optimizer: Any, key: str, scales: list[float] | None, last_epoch: int
        ) -> None:
            groups = len(optimizer.param_groups)
            if scales is not None and len(scales) != groups:
                raise ValueError(f"scales must have one factor for each of {groups} groups, got {len(scales)}")
            self.schedule, self.key = schedule, key
            self.scales = [1.0] * groups if scales is None else [real("scales", x) for x in scales]
            name, _, index = key.partition("[")
            self._place = name, int(index.rstrip("]")) if index else None
            for group in optimizer.param_groups:
                if name not in group:
                    raise KeyError(f"the optimizer's groups have no {name!r}; they have {', '.join(group)}")
                group.setdefault("initial_lr", group.get("lr"))
            super().__init__(optimizer, last_epoch)

        def get_lr(self) -> list[float]:
            return [self.schedule(max(self.last_epoch, 0)) * scale for scale in self.scales]

        def step(self, epoch: int | None = None) -> None:
            self._step_count = getattr(self, "_step_count", 0) + 1
            self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
            self._set()

        def _set(self) -> None:
            name, index = self._place
            self._last_lr = self.get_lr()
            for group, value in zip(self.optimizer.param_groups, self._last_lr, strict=True):
                if index is not None:
                    group[name] = tuple(value if k == index else x for k, x in enumerate(group[name]))
                elif hasattr(group[name], "fill_"):  # a rate that is a tensor stays one
                    group[name].fill_(value)
                else:
                    group[name] = value

        def state_dict(self) -> dict[str, Any]:
            return {"last_epoch": self.last_epoch}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.last_epoch = state_dict["last_epoch"]
            self._step_count = self.last_epoch + 1
            self._set()

    return TorchSchedule


# ---- optax and Keras: the tree of segments as operations of an array library ----------------------------------------


def to_optax(schedule: Schedule) -> Callable[[Any], Any]:
    """A function of the step count, in jax.numpy: for ``optax.adamw(learning_rate=...)``, under jit, vmap and grad.

    In JAX's own precision, float32 unless x64 is enabled: steps beyond 2^24 are not told apart, and the last digits are
    not those of ``schedule(n)``. A `custom` function or `noise` cannot be traced.
    """
    jnp = need("jax.numpy", "peers", "to_optax()")
    node = schedule.node
    _check_traceable(node)

    def values(count: Any) -> Any:
        return traced(node, jnp.asarray(count) * 1.0, jnp)

    return values


def to_keras(schedule: Schedule) -> Any:
    """A ``keras.optimizers.schedules.LearningRateSchedule``, for any backend; its config has the schedule.

    In Keras' float type, float32 by default. A `custom` function or `noise` cannot be traced.
    """
    _check_traceable(schedule.node)
    return keras_class()(schedule.to_dict())


@functools.cache
def keras_class() -> Any:
    keras = need("keras", "keras", "to_keras()")

    base: Any = keras.optimizers.schedules.LearningRateSchedule

    @keras.saving.register_keras_serializable(package="fastlr")
    class KerasSchedule(base):  # type: ignore[misc]
        """See `fastlr.schedules.adapters.to_keras`."""

        def __init__(self, schedule: dict[str, Any]) -> None:
            from fastlr.schedules.schedule import Schedule

            self.schedule = Schedule.from_dict(schedule)

        def __call__(self, step: Any) -> Any:
            return traced(self.schedule.node, keras.ops.cast(step, keras.config.floatx()), keras.ops)

        def get_config(self) -> dict[str, Any]:
            return {"schedule": self.schedule.to_dict()}

    return KerasSchedule


def _check_traceable(node: tree.Node) -> None:
    for leaf in tree.leaves(node):
        if leaf.kind in ("custom", "noise"):
            raise TypeError(f"a schedule with {leaf.kind} cannot be traced; use its values, s.table(steps)")


def traced(node: tree.Node, t: Any, xp: Any, gain: float = 1.0) -> Any:
    """The node's value at t, by operations of `xp`: numpy, jax.numpy or keras.ops. Branches are selections."""
    p, children = node.p, node.children
    a = node.first * gain
    match node.kind:
        case "constant":
            return a + 0 * t
        case "interpolate":
            return _between(node, a, t, xp)
        case "exponential":
            x = (t + p[3]) / p[2]
            return a * xp.exp((p[0] + p[1]) * (xp.floor(x) if p[4] else x))
        case "inverse_time":
            x = t / p[1]
            return a / (1 + p[0] * (xp.floor(x) if p[2] else x))
        case "time_based":
            return a * xp.exp(-_rising(t, p[0], xp))
        case "inverse_sqrt":
            return a / xp.sqrt((t + p[0]) / p[0])
        case "noam":
            return a * xp.minimum((t + 1) ** -0.5, (t + 1) * p[0])
        case "power_law":
            return xp.minimum(p[2], a * xp.exp(-p[0] * xp.log(xp.maximum(t * p[1], 1e-30))))
        case "polynomial_cycle":
            cycles = xp.maximum(xp.ceil(t / p[1]), 1.0)
            return p[0] + (a - p[0]) * (1 - t / (p[1] * cycles)) ** p[2]
        case "triangle":
            cycle = xp.floor(t / (p[3] + p[4]))
            x = t - cycle * (p[3] + p[4])
            height = xp.exp((p[5] + p[6]) * (t if p[7] else cycle))
            return a + (p[2] - a) * height * xp.where(x <= p[3], x / p[3], (p[3] + p[4] - x) / p[4])
        case "sequence":
            value = traced(children[0], t, xp, gain)
            for child in children[1:]:
                start = float(child.start)
                value = xp.where(t >= start, traced(child, xp.maximum(t - start, 0.0), xp, gain), value)
            return value
        case "repeat":
            return _repeated(node, t, xp, gain)
        case "product" | "sum":
            values = [traced(child, t, xp) for child in children]
            return functools.reduce((lambda x, y: x * y) if node.kind == "product" else (lambda x, y: x + y), values)
        case "clock":
            x = xp.maximum((t - p[0]) * p[1] / p[2] + p[3], 0.0)
            return traced(children[0], xp.floor(x) if p[4] else x, xp)
        case "clip":
            value = traced(children[0], t, xp)
            value = value if p[0] == -math.inf else xp.maximum(value, p[0])
            return value if p[1] == math.inf else xp.minimum(value, p[1])
        case "scale":
            return p[0] * traced(children[0], t, xp)
        case "end":
            value = traced(children[0], xp.minimum(t, p[0]), xp, gain)
            instead = {tree.ENDS["zero"]: 0.0, tree.ENDS["raise"]: math.nan}  # no error can come out of a trace
            return xp.where(t >= p[0], instead[p[1]], value) if p[1] in instead else value
    raise TypeError(f"{node.kind} cannot be traced")


def _between(node: tree.Node, a: Any, t: Any, xp: Any) -> Any:
    b, length, offset, *q = node.p
    x = xp.minimum(xp.maximum(t + offset, 0.0), length)
    u, w = x / length, (length - x) / length
    match tree.SHAPES[node.shape]:
        case "linear":
            done, left = u, w
        case "cosine":
            done, left = xp.sin(0.5 * math.pi * u) ** 2, xp.sin(0.5 * math.pi * w) ** 2
        case "cosine_power":
            left = xp.cos(0.5 * math.pi * u ** q[0]) ** 2
            done, left = 1 - left ** q[1], xp.where(w == 0, 0.0, left ** q[1])
        case "polynomial":
            done, left = 1 - w ** q[0], w ** q[0]
        case "polynomial_power":
            left = xp.maximum(1 - u ** q[1], 0.0) ** q[0]
            done = 1 - left
        case "power":
            done, left = u ** q[0], 1 - u ** q[0]
        case "root":
            done, left = xp.sqrt(u), 1 - xp.sqrt(u)
        case "root_left":
            done, left = 1 - xp.sqrt(w), xp.sqrt(w)
        case "rex":
            left = w / ((1 - q[0]) + q[0] * w)
            done = 1 - left
        case "tanh":
            y = xp.tanh(q[0] * w + q[1] * u)
            done, left = 0.5 * (1 + y), 0.5 * (1 - y)
        case "exponential":
            done = (1 - xp.exp(-q[0] * u)) / q[1]
            left = 1 - done
        case _:  # geometric
            return a * xp.exp((q[0] + q[1]) * u)
    return xp.where(done < 0.5, a + (b - a) * done, b - (b - a) * left)


def _repeated(node: tree.Node, t: Any, xp: Any, gain: float) -> Any:
    period, _, log, log_lo, only_start = node.p
    child, *cycles = node.children
    if cycles:
        start, stretch, factor = 0.0 * t, 0.0 * t + 1.0, 0.0 * t + 1.0
        for cycle in cycles[1:]:
            if (at := float(cycle.start)) > 1 << 53:
                break
            begun = t >= at
            start, stretch = xp.where(begun, at, start), xp.where(begun, cycle.p[0], stretch)
            factor = xp.where(begun, cycle.p[1], factor)
        local = (t - start) / stretch
    else:
        count = xp.floor(t / period)
        local, factor = t - count * period, xp.exp((log + log_lo) * count)
    if only_start:
        return traced(child, local, xp, gain * factor)
    return factor * traced(child, local, xp, gain)


def _rising(n: Any, d: float, xp: Any) -> Any:
    """Ln Π (1 + d k): kernels/curves.h, to first order."""
    x = d * n
    y = 1 + x
    small = x * x * (0.5 + x * (-1 / 6 + x * (1 / 12 + x * (-1 / 20 + x / 30))))
    bulk = xp.where(x < 0.1, small, y * xp.log(y) - x)
    if d < 0.01:
        return bulk / d - 0.5 * xp.log(y) + d / 12 * (1 / y - 1)

    def stirling(z: Any) -> Any:
        v = 1 / (z + 8)
        shift = functools.reduce(lambda total, k: total + xp.log(z + k), range(8), 0.0 * z)
        return (z + 7.5) * xp.log(z + 8) - z - 8 + v / 12 - v**3 / 360 - shift

    return n * math.log(d) + stirling(n + 1 / d) - stirling(0.0 * n + 1 / d)
