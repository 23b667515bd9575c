"""A model's tensors in flat buffers: one for the parameters, one for the gradients, of each dtype."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from fastlr.torch.layout import make_like, refuse


class FlatParameter(torch.nn.Parameter):
    """Parameters of one dtype as one, whose gradient is theirs."""

    def __new__(cls, params: list[Any]) -> Any:
        views = make_like(params)
        flat = torch.Tensor._make_subclass(cls, whole(views), True)
        flat._params, flat._views = params, views
        flat._grad_views = make_like(params)
        flat._grads = whole(flat._grad_views)
        with torch.no_grad():
            for p, view, g in zip(params, views, flat._grad_views, strict=True):
                view.copy_(p)
                if p.grad is not None:
                    g.copy_(p.grad)
                p.data, p.grad = view, g
        return flat

    def __init__(self, params: list[Any]) -> None:
        pass

    @property
    def grad(self) -> Any:
        """All gradients; None if no parameter has one. Those that are not in the buffer are brought there."""
        moved = [k for k, (p, g) in enumerate(zip(self._params, self._grad_views, strict=True)) if p.grad is not g]
        if len(moved) == len(self._params) and all(p.grad is None for p in self._params):
            return None
        for k in moved:
            p, g = self._params[k], self._grad_views[k]
            if p.grad is None:
                g.zero_()
            else:
                g.copy_(p.grad)
            p.grad = g
        for p, view in zip(self._params, self._views, strict=True):
            if p.data_ptr() != view.data_ptr():
                raise ValueError("a parameter has left the flat buffer, by .data or .to(): call flatten again")
        return self._grads

    @grad.setter
    def grad(self, value: Any) -> None:
        """None sets the gradients to zero: they stay in the buffer."""
        if value is None:
            self._grads.zero_()
        else:
            self._grads.copy_(value)
        for p, g in zip(self._params, self._grad_views, strict=True):
            p.grad = g

    def split(self, x: Any) -> dict[Any, Any]:
        """For each parameter what of `x`, which is like all, is its own."""
        pairs = zip(self._params, self._views, strict=True)
        return {p: x.as_strided(v.shape, v.stride(), v.storage_offset() - self.storage_offset()) for p, v in pairs}

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("flat parameters cannot be copied; copy the model, and flatten the copy")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("flat parameters cannot be pickled; save the model's state_dict, and flatten after loading")


def whole(views: list[Any]) -> Any:
    """What the views of one allocation are views of."""
    return views[0].as_strided((sum(x.numel() for x in views),), (1,), views[0].storage_offset())


def flatten(params: torch.nn.Module | Iterable[Any]) -> list[Any]:
    """Moves parameters and gradients into flat buffers, and returns those, one parameter a dtype, for an optimizer.

    For it the model is one tensor: no time is lost on many small ones. The model itself goes on as before: its tensors
    are views of the buffers, in the order of ``parameters()``, each once, with its strides. Gradients are summed in
    place; ``zero_grad`` sets them to zero, and a parameter without a gradient has one of zeros. All belong to one
    group, and the state of the optimizer is that of the flat tensors.

    Parameters
    ----------
    params : Module or iterable of tensors
        Those that need gradients are taken.

    Examples
    --------
    >>> import torch, fastlr.torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    >>> opt = fastlr.torch.AdamW(fastlr.torch.flatten(model), lr=0.1)
    >>> model(torch.ones(1, 3)).sum().backward()
    >>> opt.step()
    >>> opt.zero_grad()
    >>> opt.param_groups[0]["params"][0].shape, model[1].bias.grad
    (torch.Size([11]), tensor([0.]))
    """
    given = params.parameters() if isinstance(params, torch.nn.Module) else params
    buckets: dict[Any, list[Any]] = {}
    for k, p in enumerate(dict.fromkeys(given)):
        if p.requires_grad:
            refuse(f"params[{k}]", p)
            buckets.setdefault(p.dtype, []).append(p)
    if not buckets:
        raise ValueError("params must have at least one that requires a gradient, got none")
    return [FlatParameter(some) for some in buckets.values()]
