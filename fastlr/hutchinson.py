"""The diagonal of a Hessian from products with it: for `AdaHessian` and `Sophia`, and from any library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastlr.buffers import Array, FlatBuffer, as_array
from fastlr.extras import need
from fastlr.structure import Structure, structure_of

Product = Callable[[Any, Any, int], Any]


def hutchinson(hvp: Product, params: Any, *, step: int = 0, samples: int = 1, seed: int = 0) -> Any:
    """An unbiased estimate of the diagonal of the Hessian H: the mean of z ⊙ Hz over random signs z.

    Parameters
    ----------
    hvp : callable
        ``hvp(params, vector, step) -> product``, H times the vector, both in the structure of the parameters: as for
        `fastlr.tune.curvature`. `torch_hvp` makes one of torch's gradients.
    params : array, list or dict of arrays, or FlatBuffer
        As the optimizer has them. Not written.
    step : int, default 0
        What the product is called with, and with `seed` what the signs depend on: others in each step.
    samples : int, default 1
        How many z, > 0. The variance of the mean is that of one over this; for a diagonal H one is exact.
    seed : int, default 0
        ≥ 0. The same seed and step give the same signs on every machine.

    Returns
    -------
    array, list or dict of arrays, or FlatBuffer
        In the structure of the parameters and of their dtype: what ``opt.step(grads, hessian=...)`` takes.

    Notes
    -----
    The error of an element is the sum over the rest of its row of H, with random signs. `spatial_average` trades it for
    resolution.

    Examples
    --------
    >>> import numpy as np
    >>> H = np.array([[2.0, 0.5], [0.5, -3.0]])
    >>> hutchinson(lambda p, z, step: H @ z, np.zeros(2), samples=4)
    array([ 2., -3.])

    References
    ----------
    Bekas, Kokiopoulou & Saad, An Estimator for the Diagonal of a Matrix, 2007.
    """
    if not callable(hvp):
        raise TypeError(f"hvp must be callable as hvp(params, vector, step), got {hvp!r}")
    for name, x, least in (("step", step, 0), ("samples", samples, 1), ("seed", seed, 0)):
        if isinstance(x, bool) or not isinstance(x, int | np.integer) or x < least:
            raise ValueError(f"{name} must be an integer >= {least}, got {x!r}")
    structure = structure_of(params)
    total = [np.zeros(a.shape, a.dtype) for a in structure.arrays]
    # The stream of bits itself: NumPy promises that it stays, which it does not of the methods of a Generator.
    bits = np.random.PCG64([int(seed), int(step)])
    for _ in range(int(samples)):
        signs = [_signs(bits, a) for a in structure.arrays]
        product = structure.take(hvp(params, structure.build([z.copy() for z in signs]), step), "hvp")
        for sum_, z, name, y in zip(total, signs, structure.names, product, strict=True):
            sum_ += z * _product(name, y, z)
    for sum_ in total:
        sum_ /= samples
    return structure.build(total)


def _signs(bits: np.random.PCG64, like: Array) -> Array:
    """1 or −1 by a bit each."""
    words = np.asarray(bits.random_raw(-(-like.size // 64)), "<u8")
    some = np.unpackbits(words.view(np.uint8), bitorder="little")[: like.size]
    return (1 - 2 * some.astype(np.int8)).astype(like.dtype).reshape(like.shape)


def _product(name: str, y: Any, z: Array) -> Array:
    array = as_array("hvp" + name, y)
    if array.shape != z.shape or array.dtype != z.dtype:
        raise ValueError(
            f"hvp{name}: expected {z.dtype} of shape {z.shape} like the parameter, got {array.dtype} of {array.shape}"
        )
    return array


def spatial_average(diagonal: Any, axes: dict[int, Sequence[int]] | None = None) -> Any:
    """The mean of |D| over some axes of each array, in every place that it is the mean of: AdaHessian's, section 3.2.

    Parameters
    ----------
    diagonal : array, list or dict of arrays, or FlatBuffer
        As `hutchinson` returns it. Not written.
    axes : dict of int to sequence of int, optional
        For each number of dimensions the axes; others stay as they are, but for the sign. By default those of the
        authors' code for images, ``{4: (2, 3)}``: the kernel of a convolution. Theirs for text has
        ``{2: (1,), 3: (2,), 4: (2, 3)}``: also a row of a matrix.

    Returns
    -------
    array, list or dict of arrays, or FlatBuffer
        New arrays in the same structure.

    Examples
    --------
    >>> import numpy as np
    >>> spatial_average(np.array([[1.0, -3.0], [0.0, 4.0]]), {2: (1,)})
    array([[2., 2.],
           [2., 2.]])
    """
    over = {4: (2, 3)} if axes is None else axes

    def mean(x: Array) -> Array:
        size = np.abs(x)
        chosen = over.get(x.ndim)
        return size if chosen is None else np.broadcast_to(size.mean(tuple(chosen), keepdims=True), x.shape).copy()

    structure: Structure = structure_of(diagonal)
    if isinstance(diagonal, FlatBuffer):
        return FlatBuffer.pack({name: mean(diagonal[name]) for name in diagonal})
    return structure.build([mean(a) for a in structure.arrays])


def torch_hvp(grads: Any, tensors: Sequence[Any]) -> Product:
    """Products with the Hessian by torch's autograd, for `hutchinson`.

    Parameters
    ----------
    grads : sequence of torch tensors
        ``torch.autograd.grad(loss, tensors, create_graph=True)``. Detached, they serve the optimizer too; contiguous,
        since autograd repeats a number by a stride of 0 where it can.
    tensors : sequence of torch tensors
        What they are gradients of, as the optimizer has them: in a list, on the CPU.

    Returns
    -------
    callable
        ``hvp(params, vector, step)``, whose params and step play no part: the graph has them.

    Examples
    --------
    ::

        grads = torch.autograd.grad(loss, tensors, create_graph=True)
        D = fastlr.hutchinson(fastlr.torch_hvp(grads, tensors), tensors, step=t)
        opt.step([g.detach().contiguous() for g in grads], hessian=D)
    """
    torch = need("torch", "peers", "fastlr.torch_hvp")
    grads, tensors = tuple(grads), tuple(tensors)
    if len(grads) != len(tensors):
        raise ValueError(f"grads must be one for each of {len(tensors)} tensors, got {len(grads)}")
    # A gradient that does not depend on the parameters, as that of a linear loss, has no graph and a Hessian of zeros.
    rows = [k for k, g in enumerate(grads) if g is not None and g.requires_grad]
    if not rows:
        raise ValueError("grads must have a graph; make them with torch.autograd.grad(..., create_graph=True)")

    def product(params: Any, vector: Any, step: int) -> list[Any]:
        found = torch.autograd.grad(
            [grads[k] for k in rows],
            tensors,
            grad_outputs=[torch.from_numpy(vector[k]) for k in rows],
            retain_graph=True,
            allow_unused=True,
        )
        return [np.zeros_like(v) if x is None else x.numpy() for x, v in zip(found, vector, strict=True)]

    return product
