"""A torch module, a loss and batches as an objective of fastlr's: see `fastlr.training.objective`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from fastlr.buffers import Array
from fastlr.torch.layout import refuse


class TorchObjective:
    """What `objective` returns.

    Attributes
    ----------
    params : dict of str to ndarray
        The module's parameters by name, over its own memory: what trains them trains the module.
    """

    def __init__(self, module: Any, loss: Callable[..., Any], loader: Any, seed: int) -> None:
        if not callable(loss):
            raise TypeError(f"loss must be callable as loss(module, batch), got {loss!r}")
        if not hasattr(loader, "__iter__"):
            raise TypeError(f"loader must be a list of batches or a DataLoader, got {type(loader).__name__}")
        self.module, self.loss, self.loader, self.seed = module, loss, loader, seed
        self._named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        for name, p in self._named.items():
            refuse(f"params[{name!r}]", p)
            if not p.is_contiguous() or p.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"params[{name!r}] must be float32 or float64 and contiguous, got {p.dtype} of strides {p.stride()}"
                )
        self.params: dict[str, Array] = {name: p.detach().numpy() for name, p in self._named.items()}
        self._batches: Iterator[Any] = iter(())
        self._drawn: tuple[int, Any] = (-1, None)  # the step that the last batch is of

    def __call__(self, params: Mapping[str, Array], step: int) -> tuple[float, dict[str, Array | None]]:
        for name, p in self.params.items():
            if params[name] is not p:
                np.copyto(p, params[name])
        batch = self._batch(step)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + step)
            self.module.zero_grad()
            with torch.enable_grad():
                loss = self.loss(self.module, batch)
                loss.backward()
        grads = {name: None if p.grad is None else p.grad.contiguous().numpy() for name, p in self._named.items()}
        return float(loss.detach()), grads

    def _batch(self, step: int) -> Any:
        """That of a step, also after a jump: epochs are drawn from the seed and their number."""
        if isinstance(self.loader, list | tuple):
            return self.loader[step % len(self.loader)]
        if step == self._drawn[0]:
            return self._drawn[1]
        at, size = step % len(self.loader), len(self.loader)
        if at == 0 or step != self._drawn[0] + 1:
            self._batches = self._epoch(step // size)
            for _ in range(at):
                next(self._batches)
        self._drawn = step, next(self._batches)
        return self._drawn[1]

    def _epoch(self, number: int) -> Iterator[Any]:
        generator = getattr(self.loader, "generator", None)
        if generator is not None:
            generator.manual_seed(self.seed + number)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + number)
            batches = iter(self.loader)
            first = next(batches)  # the order is drawn here
        yield first
        yield from batches

    def state_dict(self) -> dict[str, Array]:
        """What else the module changes as it learns: its buffers, such as the averages of batch norm."""
        return {name: x.detach().numpy().copy() for name, x in self.module.named_buffers()}

    def load_state_dict(self, saved: Mapping[str, Array]) -> None:
        for name, x in self.module.named_buffers():
            x.copy_(torch.from_numpy(np.array(saved[name])))


def objective(module: Any, loss: Callable[..., Any], loader: Any, seed: int = 0) -> TorchObjective:
    """A module, a loss and its batches as ``objective(params, step) -> (loss, grads)``, for `fastlr.train` and `tune`.

    Batch and dropout depend on the step and the seed alone, so that runs can be repeated, resumed and replayed.

    Parameters
    ----------
    module : torch.nn.Module
        On the CPU; its parameters that need gradients are trained in place.
    loss : callable
        ``loss(module, batch)``, a scalar tensor.
    loader : DataLoader, list or tuple
        Batches; step k takes that of number k, and begins again after the last.
    seed : int, default 0
        Of the order of a DataLoader that shuffles, and of dropout.

    Examples
    --------
    >>> import torch, fastlr, fastlr.torch
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(64, 3)
    >>> batches = list(zip(x.split(16), x.sum(1, keepdim=True).split(16)))
    >>> model = torch.nn.Linear(3, 1)
    >>> f = fastlr.torch.objective(model, lambda model, batch: (model(batch[0]) - batch[1]).square().mean(), batches)
    >>> history = fastlr.train(f, f.params, fastlr.Adam(f.params, lr=0.1), steps=200, progress=False)
    >>> model.weight.detach().round(decimals=2)
    tensor([[1., 1., 1.]])
    """
    return TorchObjective(module, loss, loader, seed)
