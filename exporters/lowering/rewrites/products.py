"""
Matrix products and sums.

ExecuTorch's portable ``addmm`` and ``mm`` are two orders of magnitude slower than XNNPACK's batched product
(430 ms against 1.4 ms for 256x512x512), and its ``sum`` walks one element at a time. So every product is one
``bmm``, entered and left by reshapes (``unsqueeze`` would split the delegate), and a sum is a product with ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..kernels import mean_pixel
from ..registry import lowers
from ..values import Value, reshape
from .elementwise import elementwise

__all__ = ["matmul", "sum_last", "sum_rows"]

_aten = torch.ops.aten


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b``: (m, k) times (k, n) -> (m, n)."""
    product = torch.bmm(reshape(a, 1, *a.shape), reshape(b, 1, *b.shape))
    return reshape(product, a.shape[0], b.shape[1])


def sum_rows(x: Tensor) -> Tensor:
    """
    (b, n, k) -> (b, 1, k): the sum over n, as n times the mean.

    A product with ones would pack all of x first, which is a copy of it in the delegate's workspace.
    """
    b, n, k = x.shape
    return x if n == 1 else reshape(mean_pixel(reshape(x, b, n, 1, k)), b, 1, k) * float(n)


def sum_last(x: Tensor) -> Tensor:
    """(b, n, k) -> (b, n, 1): the sum over k."""
    b, n, k = x.shape
    return x if k == 1 else reshape(matmul(reshape(x, b * n, k), torch.ones(k, 1)), b, n, 1)


@lowers(_aten.mm.default)
def mm(a: Value, b: Value) -> Value:
    """
    Replaces ``mm`` by one batched product, of the operands or of their transposes.

    The delegate packs the second operand on every call, and a transposed one is copied first. A linear layer's weights
    are both large and transposed, so ``(w @ x.t()).t()`` spares two copies of them in every step.
    """
    if _copied(b.permuted((1, 0)), a.permuted((1, 0))) < _copied(a, b):
        return Value(matmul(b.permuted((1, 0)).natural(), a.permuted((1, 0)).natural()), (1, 0))
    return Value(matmul(a.natural(), b.natural()))


def _copied(a: Value, b: Value) -> int:
    """Elements that are copied to multiply ``a`` by ``b``."""
    turned = sum(math.prod(v.shape) for v in (a, b) if v.order != (0, 1))
    return turned + math.prod(b.shape)


@lowers(_aten.bmm.default)
def bmm(a: Value, b: Value) -> Value:
    """The delegate's own batched product."""
    return Value(torch.bmm(a.natural(), b.natural()))


@lowers(_aten.addmm.default)
def addmm(bias: Value, a: Value, b: Value, *, beta: float = 1, alpha: float = 1) -> Value:
    """Replaces ``beta * bias + alpha * a @ b`` by a batched product and a broadcast sum."""
    product = mm(a, b)
    if alpha != 1:
        product = elementwise(_aten.mul.Tensor, product, alpha)
    if beta != 1:
        bias = elementwise(_aten.mul.Tensor, bias, beta)
    return elementwise(_aten.add.Tensor, product, bias)


@lowers(_aten.sum.dim_IntList)
def sum_dim(
    x: Value, dims: Sequence[int] | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Value:
    """Replaces ``sum`` over any axes by a product with ones, on the side where those axes already lie."""
    reduced = sorted({d % x.ndim for d in dims}) if dims else list(range(x.ndim))
    if x.dtype != torch.float32:
        return Value(_aten.sum.dim_IntList(x.natural(), reduced, keepdim, dtype=dtype))
    # An axis that is broadcast sums to a multiple of itself.
    factor = 1
    for axis in reduced:
        if x.tensor.shape[x.order.index(axis)] != x.shape[axis]:
            factor *= x.shape[axis]
    stored = Value(x.tensor, x.order)
    kept = [axis for axis in stored.order if axis not in reduced]
    live = [axis for axis in stored.order if stored.shape[axis] != 1]
    leading = live[: len(live) - len([a for a in live if a in kept])]
    if all(axis in reduced for axis in leading):
        rows = stored.unexpanded([*reduced, *kept])
        count = math.prod(stored.shape[a] for a in reduced)
        total = sum_rows(reshape(rows, 1, count, rows.numel() // count))
    else:
        rows = stored.unexpanded([*kept, *reduced])
        count = math.prod(stored.shape[a] for a in reduced)
        total = sum_last(reshape(rows, 1, rows.numel() // count, count))
    order = [*reduced, *kept]
    shape = [1 if axis in reduced else x.shape[axis] for axis in range(x.ndim)]
    result = Value(reshape(total, *[1 if a in reduced else stored.shape[a] for a in order]), order, shape)
    if factor != 1:
        result = elementwise(_aten.mul.Tensor, result, factor)
    if keepdim:
        return result
    kept_shape = [x.shape[axis] for axis in range(x.ndim) if axis not in reduced]
    return Value(reshape(result.natural(), *kept_shape))


@lowers(_aten.sum.default)
def sum_all(x: Value, *, dtype: torch.dtype | None = None) -> Value:
    """Replaces the sum of all elements likewise."""
    return sum_dim(x, None, dtype=dtype)


@lowers(_aten.mean.dim)
def mean_dim(
    x: Value, dims: Sequence[int] | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Value:
    """Replaces a mean by a sum and a division: the delegate averages images in its own axis order only."""
    count = math.prod(x.shape[d] for d in (dims or range(x.ndim)))
    return elementwise(_aten.mul.Tensor, sum_dim(x, dims, keepdim, dtype=dtype), 1.0 / count)


@lowers(_aten.mean.default)
def mean_all(x: Value, *, dtype: torch.dtype | None = None) -> Value:
    """Replaces the mean of all elements likewise."""
    return mean_dim(x, None, dtype=dtype)
