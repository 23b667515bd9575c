"""Optimizers whose step is given a diagonal of the Hessian."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fastlr.torch.layout import laid_like, run_of, strides_of
from fastlr.torch.optimizer import Step


class Informed(Step):
    """Optimizers whose step is given a diagonal of the Hessian beside the gradients."""

    def step(self, closure: Callable[[], Any] | None = None, *, hessian: Sequence[Any] | None = None) -> Any:
        """As `Step.step`, with a diagonal of the Hessian: see `fastlr.torch.hutchinson`.

        Parameters
        ----------
        closure : callable, optional
            Evaluates the model again and returns the loss.
        hessian : list of tensors or arrays, optional
            One like each parameter in all groups, or None for one that has no gradient.
        """
        if hessian is None:
            return super().step(closure)
        if self.in_backward:
            raise ValueError("hessian must be None with in_backward: the steps were made before")
        self._diagonal = self._checked(hessian)
        try:
            return super().step(closure)
        finally:
            self._diagonal = None

    step.hooked = True  # type: ignore[attr-defined]  # or torch wraps it, and hooks run twice

    def _checked(self, hessian: Sequence[Any]) -> dict[Any, Any]:
        """For each parameter an array that lies as it does."""
        params = [p for group in self.param_groups for p in group["params"]]
        if not isinstance(hessian, list | tuple) or len(hessian) != len(params):
            raise ValueError(
                f"hessian must be a list of {len(params)} tensors like the parameters, got {hessian!r:.80}"
            )
        found: dict[Any, Any] = {}
        for k, (p, given) in enumerate(zip(params, hessian, strict=True)):
            d = None if given is None else torch.as_tensor(given).detach()
            if d is not None and (d.shape != p.shape or d.dtype != p.dtype or d.layout is not torch.strided):
                raise ValueError(
                    f"hessian[{k}] must be dense, {p.dtype} and of shape {tuple(p.shape)} like its parameter, got "
                    f"{d.dtype} of shape {tuple(d.shape)}"
                )
            found[p] = None if d is None else run_of(d if strides_of(d) == strides_of(p) else laid_like(d, p))
        return found
