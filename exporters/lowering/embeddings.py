"""
The gradient of an embedding table.

Replaces ``embedding_dense_backward``, which ATen takes apart into an accumulating ``index_put`` that no backend of a
device has, by a product: rows of ones at the indices, times the gradient. The look-up itself stays a portable kernel.
"""

from __future__ import annotations

import math

import torch

from .errors import Unsupported
from .products import matmul
from .registry import lowers
from .values import Value, reshape

__all__: list[str] = []

_aten = torch.ops.aten


@lowers(_aten.embedding_dense_backward.default)
def embedding_backward(grad: Value, indices: Value, rows: int, padding_index: int, by_frequency: bool) -> Value:
    """(..., d) at indices (...) -> (rows, d)."""
    if by_frequency:
        raise Unsupported("an embedding with scale_grad_by_freq", "scale_grad_by_freq=False")
    count, width = math.prod(indices.shape), grad.shape[-1]
    table = torch.arange(rows, dtype=indices.dtype).reshape(rows, 1)
    hits = _aten._to_copy.default(torch.eq(table, reshape(indices.natural(), 1, count)), dtype=torch.float32)
    if 0 <= padding_index < rows:
        hits = hits * _aten._to_copy.default(torch.ne(table, padding_index), dtype=torch.float32)
    return Value(matmul(hits, reshape(grad.natural(), count, width)))
