"""
Embedding tables: rows by index, and their gradients.

The lookup is the portable kernel, which copies whole rows. Its backward pass decomposes into masks over the full
gradient; only the accumulation of rows is needed.
"""

from __future__ import annotations

import math

import torch

from ..errors import Unsupported
from ..registry import lowers
from ..values import Value, reshape

__all__: list[str] = []

_aten = torch.ops.aten


@lowers(_aten.embedding.default)
def embedding(
    w: Value, indices: Value, padding_index: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Value:
    """Kept: rows are copied as they are."""
    return Value(_aten.embedding.default(w.natural(), indices.natural()))


@lowers(_aten.embedding_dense_backward.default)
def embedding_backward(grad: Value, indices: Value, rows: int, padding_index: int, scale_grad_by_freq: bool) -> Value:
    """
    Adds each position's gradient to its row of zeros; the row of padding gets none.

    Raises:
        Unsupported: if gradients are to be scaled by frequency.

    """
    if scale_grad_by_freq:
        raise Unsupported("an embedding with scale_grad_by_freq", "scale_grad_by_freq=False")
    count, width = math.prod(indices.shape), grad.shape[-1]
    index = reshape(indices.natural(), count)
    added = reshape(grad.natural(), count, width)
    if padding_index >= 0:
        kept = _aten._to_copy.default(_aten.ne.Scalar(index, padding_index), dtype=torch.float32)
        added = added * reshape(kept, count, 1)
    return Value(_aten.index_put.default(torch.zeros(rows, width), [index], added, True))
