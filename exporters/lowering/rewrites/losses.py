"""
Losses over class indices.

``nll_loss`` has no kernel in ExecuTorch, and its decomposition gathers and scatters one element at a time. Both
directions become products with a one-hot matrix, made by comparing the targets with the class numbers.
"""

from __future__ import annotations

import math

import torch

from ..registry import lowers
from ..values import Value, reshape
from .elementwise import elementwise
from .products import sum_dim

__all__: list[str] = []

_aten = torch.ops.aten
_NONE, _MEAN = 0, 1


def _one_hot(target: Value, classes: int) -> Value:
    """int64 (n,) -> float32 (n, classes); an index outside the classes gives zeros, as ``ignore_index`` asks."""
    index = reshape(target.natural(), target.shape[0], 1)
    equal = _aten.eq.Tensor(index, torch.arange(classes).reshape(1, classes))
    return Value(_aten._to_copy.default(equal, dtype=torch.float32))


def _rows(x: Value) -> Value:
    """(n, classes, ...) as rows: (n * ..., classes)."""
    if x.ndim <= 2:
        return x if x.ndim == 2 else Value(reshape(x.natural(), 1, x.shape[0]))
    order = [0, *range(2, x.ndim), 1]
    return Value(reshape(x.arranged(order), math.prod(x.shape) // x.shape[1], x.shape[1]))


def _chosen(x: Value, target: Value, weight: Value | None, ignore_index: int) -> Value:
    """The weight of each row's class in its place (n, classes): zeros elsewhere, and in rows of the ignored class."""
    rows = Value(reshape(target.natural(), math.prod(target.shape)))
    classes = x.shape[1] if x.ndim > 1 else x.shape[0]
    chosen = _one_hot(rows, classes)
    if 0 <= ignore_index < classes:
        counted = _aten._to_copy.default(_aten.ne.Scalar(rows.natural(), ignore_index), dtype=torch.float32)
        chosen = elementwise(_aten.mul.Tensor, chosen, Value(reshape(counted, rows.shape[0], 1)))
    if weight is not None:
        chosen = elementwise(_aten.mul.Tensor, chosen, Value(reshape(weight.natural(), 1, classes)))
    return chosen


@lowers(_aten.nll_loss_forward.default, _aten.nll_loss2d_forward.default)
def nll_loss(
    x: Value, target: Value, weight: Value | None, reduction: int, ignore_index: int
) -> tuple[Value, Value | None]:
    """Minus the log-probability of the target class, per sample or position, times the weight of its class."""
    chosen = _chosen(x, target, weight, ignore_index)
    picked = elementwise(_aten.neg.default, sum_dim(elementwise(_aten.mul.Tensor, _rows(x), chosen), [1]))
    if reduction == _NONE:
        return Value(reshape(picked.natural(), *target.shape)), None
    total, count = sum_dim(picked, [0]), sum_dim(chosen, [0, 1])
    return elementwise(_aten.div.Tensor, total, count) if reduction == _MEAN else total, count


@lowers(_aten.nll_loss_backward.default, _aten.nll_loss2d_backward.default)
def nll_loss_backward(
    grad: Value,
    x: Value,
    target: Value,
    weight: Value | None,
    reduction: int,
    ignore_index: int,
    total_weight: Value | None,
) -> Value:
    """Minus the gradient at the target class, zero elsewhere."""
    chosen = _chosen(x, target, weight, ignore_index)
    column = elementwise(_aten.neg.default, grad)
    if reduction == _NONE:
        column = Value(reshape(column.natural(), math.prod(grad.shape), 1))
    elif reduction == _MEAN:
        column = elementwise(_aten.div.Tensor, column, sum_dim(chosen, [0, 1]))
    rows = elementwise(_aten.mul.Tensor, chosen, column)
    if x.ndim <= 2:
        return rows if x.ndim == 2 else Value(reshape(rows.natural(), *x.shape))
    order = [0, *range(2, x.ndim), 1]
    return Value(reshape(rows.natural(), *[x.shape[a] for a in order]), order)
