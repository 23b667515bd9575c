"""`LossScaler`: a factor on the loss that keeps float16 gradients in range, found while training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastlr import _core
from fastlr.hyper import positive, real
from fastlr.optimizer import Optimizer
from fastlr.storage import Saved, expect


class LossScaler(Saved):
    """Multiply the loss by `scale` before its gradients are taken; `step` divides these by it, in the same pass.

    A step whose gradients are not finite is left out, and the scale shrinks by `backoff`; after `interval` steps in a
    row that were made it grows by `growth`.

    Parameters
    ----------
    scale : float, default 65536
        To begin with. > 0.
    growth : float, default 2
        > 1.
    backoff : float, default 0.5
        In (0, 1).
    interval : int, default 2000
        >= 1.

    Attributes
    ----------
    scale : float
        The present factor.
    good_steps : int
        Steps made since it last changed.

    Notes
    -----
    As ``torch.amp.GradScaler``, whose ``unscale_`` and ``update`` are part of `step` here.

    Examples
    --------
    >>> import fastlr, numpy as np
    >>> p = np.ones(2, np.float32)
    >>> opt, scaler = fastlr.SGD(p, lr=0.5, nonfinite="skip"), LossScaler(scale=1024.0)
    >>> scaler.step(opt, np.float32([np.inf, 0])).skipped, scaler.scale
    (True, 512.0)
    >>> scaler.step(opt, 512 * np.float32([1, 2])).skipped, p
    (False, array([0.5, 0. ], dtype=float32))
    """

    def __init__(self, scale: float = 65536.0, growth: float = 2.0, backoff: float = 0.5, interval: int = 2000) -> None:
        self.scale = positive("scale", scale)
        self.growth, self.backoff = positive("growth", growth), positive("backoff", backoff)
        if self.growth <= 1:
            raise ValueError(f"growth must be > 1, got {growth!r}")
        if self.backoff >= 1:
            raise ValueError(f"backoff must be in (0, 1), got {backoff!r}")
        if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
            raise ValueError(f"interval must be an integer >= 1, got {interval!r}")
        self.interval = interval
        self.good_steps = 0

    def step(self, opt: Optimizer, *args: Any, grad_scale: float = 1.0, **options: Any) -> _core.Report:
        """`opt.step` with the gradients of a loss that was multiplied by `scale`; then changes the scale.

        Parameters
        ----------
        opt : Optimizer
            Built with ``nonfinite="skip"``.
        args, grad_scale, options
            As `Optimizer.step` takes them.
        """
        if opt._nonfinite != _core.SKIP:
            raise ValueError("the optimizer must be built with nonfinite='skip', which is what finds a scale too large")
        report = opt.step(*args, grad_scale=positive("grad_scale", grad_scale) / self.scale, **options)
        self.update(report.skipped)
        return report

    def update(self, skipped: bool) -> None:
        """Changes the scale as a step made or left out says."""
        least, most = 2.0**-126, 2.0**127
        if skipped:
            self.scale, self.good_steps = max(self.scale * self.backoff, least), 0
            return
        self.good_steps += 1
        if self.good_steps == self.interval:
            self.scale, self.good_steps = min(self.scale * self.growth, most), 0

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        expect("state_dict", set(saved), {"scale", "good_steps"})
        scale, good = (
            positive("state_dict['scale']", saved["scale"]),
            real("state_dict['good_steps']", saved["good_steps"]),
        )
        if good != int(good) or not 0 <= good < self.interval:
            raise ValueError(f"state_dict['good_steps'] must be an integer in [0, {self.interval}), got {good!r}")
        self.scale, self.good_steps = scale, int(good)

    def __repr__(self) -> str:
        return f"LossScaler(scale={self.scale!r}, good_steps={self.good_steps})"
