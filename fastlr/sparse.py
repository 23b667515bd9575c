"""Sparse gradients of other libraries as what `Optimizer.step_rows` takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlr.buffers import Array


def rows_of(gradient: Any) -> tuple[Array, Array]:
    """The rows and gradients of a sparse torch tensor or SciPy matrix: ``opt.step_rows(*rows_of(table.grad))``.

    Neither library is imported here.

    Parameters
    ----------
    gradient : torch sparse COO tensor, or SciPy CSR, CSC or COO matrix or array
        Two dimensions, on the CPU. The gradient of ``torch.nn.Embedding(sparse=True)`` and ``EmbeddingBag`` is a
        tensor whose values are rows: coalesced or not, it is taken as it is, without a copy where its memory is
        contiguous. Where single elements are stored instead, as SciPy does, the rows in which there are any are
        filled with zeros, and elements stored more than once are added in float64, in their order.

    Returns
    -------
    rows : int32 or int64 array, shape (n,)
    grads : array, shape (n, width)

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.sparse import csr_array
    >>> rows_of(csr_array(np.float32([[0, 0], [1, 2], [0, 3]])))
    (array([1, 2]), array([[1., 2.],
           [0., 3.]], dtype=float32))
    """
    library = type(gradient).__module__.partition(".")[0]
    shape = getattr(gradient, "shape", None)
    if library not in ("torch", "scipy") or shape is None:
        raise TypeError(
            f"gradient must be a sparse torch tensor or SciPy matrix, got {type(gradient).__name__}; "
            "step_rows takes arrays of rows and gradients as they are"
        )
    if len(shape) != 2:
        raise ValueError(f"gradient must have 2 dimensions, a table's, got shape {tuple(shape)}")
    return _of_torch(gradient) if library == "torch" else _of_scipy(gradient)


def _of_torch(gradient: Any) -> tuple[Array, Array]:
    if str(gradient.layout) != "torch.sparse_coo":
        raise TypeError(
            f"gradient must be a sparse COO tensor, got layout {gradient.layout}; "
            "use torch.nn.Embedding(sparse=True), to_sparse(1), or step for a dense one"
        )
    if gradient.device.type != "cpu":
        raise TypeError(f"gradient must be on the CPU, got {gradient.device}; pass gradient.cpu()")
    # Not indices() and values(): those exist only of a coalesced tensor.
    index = gradient.detach()._indices()
    values = gradient.detach()._values().contiguous().numpy()
    if gradient.dense_dim() == 1:
        return index[0].contiguous().numpy(), values
    return _filled(index[0].numpy(), index[1].numpy(), values, gradient.shape[1])


def _of_scipy(gradient: Any) -> tuple[Array, Array]:
    if not hasattr(gradient, "tocoo"):
        raise TypeError(f"gradient must be a SciPy matrix or array, got {type(gradient).__name__}")
    coo = gradient.tocoo(copy=False)
    return _filled(coo.row, coo.col, coo.data, coo.shape[1])


def _filled(row: Array, column: Array, values: Array, width: int) -> tuple[Array, Array]:
    """The rows that occur, ascending, and each as a whole."""
    rows, which = np.unique(row, return_inverse=True)
    places = which.astype(np.int64) * width + column
    summed = np.bincount(places, values, rows.size * width).astype(values.dtype)
    return rows.astype(np.int64), summed.reshape(rows.size, width)
