"""The diagonal of the Hessian by torch's autograd, for `fastlr.torch.AdaHessian` and `Sophia`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from fastlr.hutchinson import hutchinson as estimate
from fastlr.hutchinson import torch_hvp


def hutchinson(loss: Any, params: Iterable[Any], *, step: int = 0, samples: int = 1, seed: int = 0) -> list[Any]:
    """``loss.backward()``, and an unbiased estimate of the diagonal of the Hessian: see `fastlr.hutchinson`.

    Parameters
    ----------
    loss : tensor
        A scalar. Its graph is kept until the products with the Hessian are made, one a sample.
    params : iterable of tensors
        As the optimizer has them: ``model.parameters()``. The gradients are added to their ``.grad``.
    step, samples, seed : int
        As of `fastlr.hutchinson`: other signs in each step, the mean over how many, and their seed.

    Returns
    -------
    A list of tensors like the parameters, for ``opt.step(hessian=...)``; None where there is no gradient.

    Examples
    --------
    >>> import torch, fastlr.torch
    >>> p = torch.nn.Parameter(torch.tensor([3.0, 1.0]))
    >>> opt = fastlr.torch.AdaHessian([p], lr=1.0, eps=1e-8)
    >>> loss = (torch.tensor([1.0, 10.0]) * p**2).sum()
    >>> D = fastlr.torch.hutchinson(loss, [p])
    >>> D
    [tensor([ 2., 20.])]
    >>> opt.step(hessian=D)
    >>> p.detach().abs() < 1e-6    # Newton's step
    tensor([True, True])
    """
    tensors = list(params)
    for k, p in enumerate(tensors):
        if p.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"params[{k}] must be float32 or float64 for hutchinson, got {p.dtype}")
    needed = [p for p in tensors if p.requires_grad]
    grads = torch.autograd.grad(loss, needed, create_graph=True, allow_unused=True)
    used = [(p, g) for p, g in zip(needed, grads, strict=True) if g is not None]
    hvp = torch_hvp([g for _, g in used], [p for p, _ in used])
    diagonal = estimate(hvp, [p.detach().contiguous() for p, _ in used], step=step, samples=samples, seed=seed)
    found = {p: torch.from_numpy(d) for (p, _), d in zip(used, diagonal, strict=True)}
    for p, g in used:
        p.grad = g.detach().clone() if p.grad is None else p.grad + g.detach()
    return [found.get(p) for p in tensors]
