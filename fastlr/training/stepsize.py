"""Rates computed from the objective itself: Armijo's line search, Barzilai & Borwein, Polyak, AdGD.

For objectives that are the same at every step: the whole data, or a batch that stays. They take p ← p − ηg with the
kernel of `SGD`; what differs is η. Weight decay belongs into the objective here.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastlr import functional
from fastlr.buffers import Array
from fastlr.hyper import choice, count, inside, nonnegative, positive, real
from fastlr.storage import Saved, expect
from fastlr.structure import structure_of
from fastlr.training.objective import entries, joined, norm

Evaluate = Callable[[], tuple[float, Any]]

FORMAT = 1


class StepReport(NamedTuple):
    """What one step did: updates made so far, the rate used, ‖g‖₂, and whether it was skipped."""

    step: int
    lr: float
    grad_norm: float
    skipped: bool


class StepRule(Saved):
    """What the rules of this module share.

    Parameters
    ----------
    params : array, list or dict of arrays, or FlatBuffer
        Updated in place.

    Attributes
    ----------
    lr : float
        The rate of the last step.
    step_count : int
        Updates made.
    """

    _remembers: tuple[str, ...] = ()  # numbers that a checkpoint has, beside lr and step_count
    _keeps = False  # whether the parameters and gradients of the last step are needed

    def __init__(self, params: Any, lr: float) -> None:
        self._structure = structure_of(params)
        if not self._structure.arrays:
            raise ValueError("params must hold at least one array, got none")
        self.lr, self.step_count = lr, 0
        self._before: list[Array] = []
        self._gradient: list[Array] = []
        self.groups = ()

    def step(
        self, grads: Any, *, loss: float | None = None, evaluate: Evaluate | None = None, clip_norm: float | None = None
    ) -> StepReport:
        """Updates the parameters in place.

        Parameters
        ----------
        grads
            Gradients at the parameters, in their structure.
        loss : float, optional
            The loss there, for the rules that use it.
        evaluate : callable, optional
            ``evaluate() -> (loss, grads)`` at the parameters as they are when it is called, for line searches.
            `fastlr.train` passes all three.
        clip_norm : None
            Not for these: a clipped gradient is not the slope that the rate is computed from.
        """
        if clip_norm is not None:
            raise ValueError(
                f"clip_norm must be None for {type(self).__name__}, whose rate is computed from the gradient"
            )
        arrays = self._structure.arrays
        # A copy: evaluate() may write to the same buffers.
        given = zip(entries(self._structure, grads), arrays, strict=True)
        g = [np.zeros_like(p) if entry is None else entry.copy() for entry, p in given]
        size = norm(g)
        if not math.isfinite(size):
            raise FloatingPointError("the gradients are not finite")
        before = [p.copy() for p in arrays]
        lr = self._rate(g, size, loss, evaluate, before)
        self._move(before, g, lr)
        if self._keeps:
            self._before, self._gradient = before, g
        self.lr = lr
        self.step_count += 1
        return StepReport(self.step_count, lr, size, skipped=False)

    @abstractmethod
    def _rate(
        self, g: list[Array], size: float, loss: float | None, evaluate: Evaluate | None, before: list[Array]
    ) -> float:
        """η. The parameters may be moved to try; `before` has where they were."""

    def _move(self, before: Sequence[Array], direction: Sequence[Array], lr: float) -> None:
        """P ← before − lr · direction."""
        for p, start, d in zip(self._structure.arrays, before, direction, strict=True):
            np.copyto(p, start)
            functional.sgd(p.reshape(-1), d.reshape(-1), step=1, lr=lr)

    def _needs(self, what: str) -> ValueError:
        return ValueError(f"{type(self).__name__}.step needs {what}; pass it, or use fastlr.train, which does")

    def state_dict(self) -> dict[str, Any]:
        named = self._structure.named
        return {
            "format": FORMAT,
            "rule": type(self).__name__,
            "step": self.step_count,
            "lr": self.lr,
            "numbers": {name: getattr(self, "_" + name) for name in self._remembers},
            "before": {k: a.copy() for k, a in named(self._before).items()} if self._before else {},
            "gradient": {k: a.copy() for k, a in named(self._gradient).items()} if self._gradient else {},
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        expect("state_dict", set(saved), {"format", "rule", "step", "lr", "numbers", "before", "gradient"})
        expect("state_dict['format']", saved["format"], FORMAT)
        expect("state_dict['rule']", saved["rule"], type(self).__name__)
        expect("state_dict['numbers']", set(saved["numbers"]), set(self._remembers))
        kept = [self._collect(key, saved[key]) for key in ("before", "gradient")]
        self._before, self._gradient = kept
        self.step_count, self.lr = saved["step"], saved["lr"]
        for name, x in saved["numbers"].items():
            setattr(self, "_" + name, x)

    def _collect(self, key: str, saved: Mapping[str, Array]) -> list[Array]:
        if not saved:
            return []
        entries = [np.empty_like(a) for a in self._structure.arrays]
        places = self._structure.named(entries)
        expect(f"state_dict[{key!r}]", set(saved), set(places))
        for name, place in places.items():
            array = np.asarray(saved[name])
            expect(f"state_dict[{key!r}][{name!r}]", (array.dtype, array.shape), (place.dtype, place.shape))
            place[...] = array
        return entries

    def __repr__(self) -> str:
        return f"{type(self).__name__}(lr={self.lr!r}, step_count={self.step_count})"


class Armijo(StepRule):
    """Gradient descent with Armijo's backtracking.

        η ← min(grow · η, max_lr), then η ← shrink · η  until  f(p − ηg) ≤ f(p) − c η ‖g‖²

    Parameters
    ----------
    params : array, list or dict of arrays, or FlatBuffer
        Updated in place.
    max_lr : float, default 1
        The first rate that is tried, and the largest, > 0.
    c : float, default 1e-4
        Share of the linear decrease asked for, in (0, 1); 0.5 for noisy losses.
    shrink, grow : float, default 0.8 and 1.5
        In (0, 1), and ≥ 1.
    max_backtracks : int, default 60
        Where they do not suffice, the step is taken with η = 0.

    Notes
    -----
    optax's ``scale_by_backtracking_linesearch`` has the same defaults but for 15 backtracks.

    Examples
    --------
    >>> import fastlr, numpy as np
    >>> w = np.array([5.0])
    >>> run = fastlr.train(lambda w, step: (float(50 * w[0] ** 2), 100 * w), w, Armijo(w, c=0.5), 25, progress=False)
    >>> bool(abs(w[0]) < 1e-3)
    True

    References
    ----------
    Armijo, Minimization of functions having Lipschitz continuous first partial derivatives, 1966.
    """

    def __init__(
        self,
        params: Any,
        max_lr: float = 1.0,
        c: float = 1e-4,
        shrink: float = 0.8,
        grow: float = 1.5,
        max_backtracks: int = 60,
    ) -> None:
        self.max_lr = positive("max_lr", max_lr)
        self.c, self.shrink = inside("c", c), inside("shrink", shrink)
        self.grow = real("grow", grow)
        if self.grow < 1:
            raise ValueError(f"grow must be >= 1, got {grow!r}")
        self.max_backtracks = count("max_backtracks", max_backtracks)
        super().__init__(params, self.max_lr)

    def _rate(
        self, g: list[Array], size: float, loss: float | None, evaluate: Evaluate | None, before: list[Array]
    ) -> float:
        if loss is None or evaluate is None:
            raise self._needs("loss= and evaluate=")
        lr = min(self.grow * self.lr, self.max_lr) if self.lr > 0 else self.max_lr
        return backtrack(self, before, g, size**2, loss, evaluate, lr, self.c, self.shrink, self.max_backtracks)


def backtrack(
    rule: StepRule,
    before: list[Array],
    direction: list[Array],
    slope: float,
    loss: float,
    evaluate: Evaluate,
    lr: float,
    c: float,
    shrink: float,
    tries: int,
) -> float:
    """The first of lr, shrink · lr, ... at which p − lr · direction is Armijo's decrease below; 0 if none is.

    `slope` is gᵀdirection. An error of `evaluate` leaves the parameters as they were.
    """
    try:
        for _ in range(tries + 1):
            rule._move(before, direction, lr)
            with np.errstate(all="ignore"):
                found = float(evaluate()[0])
            if found <= loss - c * lr * slope:
                return lr
            lr *= shrink
    except BaseException:
        rule._move(before, direction, 0.0)
        raise
    return 0.0


class BarzilaiBorwein(StepRule):
    """Gradient descent with the rates of Barzilai and Borwein.

        s = p − p′, y = g − g′        η = sᵀs / sᵀy  (long)    or    sᵀy / yᵀy  (short)

    where p′ and g′ are those of the step before. Where sᵀy ≤ 0 the rate stays.

    Parameters
    ----------
    params : array, list or dict of arrays, or FlatBuffer
        Updated in place.
    lr : float, default 1e-3
        Of the first step, > 0.
    kind : {"alternate", "long", "short"}, default "alternate"
        Which; in turns.
    max_lr : float, default 1e10
        The largest.

    Notes
    -----
    Not monotone: the loss rises now and then, and on strictly convex quadratics still converges. On other functions it
    may diverge; then use `Armijo` or `AdGD`.

    References
    ----------
    Barzilai & Borwein, Two-point step size gradient methods, 1988.
    """

    _keeps = True

    def __init__(self, params: Any, lr: float = 1e-3, kind: str = "alternate", max_lr: float = 1e10) -> None:
        self.kind = choice("alternate", "long", "short")("kind", kind)
        self.max_lr = positive("max_lr", max_lr)
        super().__init__(params, positive("lr", lr))

    def _rate(
        self, g: list[Array], size: float, loss: float | None, evaluate: Evaluate | None, before: list[Array]
    ) -> float:
        if not self._before:
            return self.lr
        s, y = _differences(before, self._before), _differences(g, self._gradient)
        sy = _dot(s, y)
        if sy <= 0:
            return self.lr
        long = self.kind == "long" or (self.kind == "alternate" and self.step_count % 2 == 1)
        return min(_dot(s, s) / sy if long else sy / _dot(y, y), self.max_lr)


class Polyak(StepRule):
    """Gradient descent with Polyak's rate.

        η = min((f(p) − f*)₊ / (‖g‖² + ε), max_lr)

    Parameters
    ----------
    params : array, list or dict of arrays, or FlatBuffer
        Updated in place.
    f_star : float, default 0
        f*, the smallest loss; too small a guess makes the steps too large, and max_lr is what holds them.
    max_lr : float, default 1e10
        The largest.
    eps : float, default 1e-30
        ε ≥ 0.

    Notes
    -----
    optax's ``polyak_sgd`` with scaling 1; the stochastic form (SPS) where the loss is that of a batch.

    References
    ----------
    Polyak, Introduction to optimization, 1987. Loizou et al., Stochastic Polyak step-size for SGD, 2021.
    """

    def __init__(self, params: Any, f_star: float = 0.0, max_lr: float = 1e10, eps: float = 1e-30) -> None:
        self.f_star, self.max_lr, self.eps = real("f_star", f_star), positive("max_lr", max_lr), nonnegative("eps", eps)
        super().__init__(params, 0.0)

    def _rate(
        self, g: list[Array], size: float, loss: float | None, evaluate: Evaluate | None, before: list[Array]
    ) -> float:
        if loss is None:
            raise self._needs("loss=")
        return min(max(loss - self.f_star, 0.0) / (size**2 + self.eps), self.max_lr) if size else 0.0


class AdGD(StepRule):
    """Gradient descent with the rate of Malitsky and Mishchenko: no parameter, and convergence on convex functions.

        η ← min(√(1 + θ) η′, ‖p − p′‖ / 2‖g − g′‖)        θ = η / η′

    where primes are the step before.

    Parameters
    ----------
    params : array, list or dict of arrays, or FlatBuffer
        Updated in place.
    lr : float, default 1e-6
        Of the first step alone, small and > 0.

    References
    ----------
    Malitsky & Mishchenko, Adaptive gradient descent without descent, 2020.
    """

    _keeps = True
    _remembers = ("theta",)

    def __init__(self, params: Any, lr: float = 1e-6) -> None:
        super().__init__(params, positive("lr", lr))
        self._theta = math.inf

    def _rate(
        self, g: list[Array], size: float, loss: float | None, evaluate: Evaluate | None, before: list[Array]
    ) -> float:
        if not self._before:
            return self.lr
        moved, turned = (norm(_differences(*pair)) for pair in ((before, self._before), (g, self._gradient)))
        local = moved / (2 * turned) if turned > 0 else math.inf
        lr = min(math.sqrt(1 + self._theta) * self.lr, local)
        if not math.isfinite(lr):  # the first two gradients are equal: the function is linear so far
            lr = 2 * self.lr
        self._theta = lr / self.lr if self.lr else 0.0
        return lr


def _differences(a: Sequence[Array], b: Sequence[Array]) -> list[Array]:
    return [x - y for x, y in zip(a, b, strict=True)]


def _dot(a: Sequence[Array], b: Sequence[Array]) -> float:
    """In double: the differences of float32 are small."""
    return float(joined(a) @ joined(b))
