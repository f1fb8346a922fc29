"""
Group and layer normalisation, and batch normalisation with frozen statistics.

Their portable kernels are slow and their backward passes missing. Statistics are products with ones over
(n, positions, groups, channels of a group); everything else is elementwise with broadcasts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .elementwise import elementwise
from .products import sum_last, sum_rows
from .registry import lowers
from .values import Value, reshape

__all__: list[str] = []

_aten = torch.ops.aten
_Gradients = tuple[Value | None, Value | None, Value | None]


def _channel_order(x: Value) -> tuple[int, ...]:
    """Channels last, for any number of axes."""
    return (0, *range(2, x.ndim), 1)


def _group_mean(x: Tensor) -> Tensor:
    """(n, positions, groups, d) -> (n, 1, groups, 1)."""
    n, positions, groups, d = x.shape
    rows = sum_rows(reshape(x, n, positions, groups * d))
    total = sum_last(reshape(rows, n, groups, d))
    return reshape(torch.mul(total, 1.0 / (positions * d)), n, 1, groups, 1)


@lowers(_aten.native_group_norm.default)
def group_norm(
    x: Value, w: Value | None, b: Value | None, n: int, c: int, positions: int, groups: int, eps: float
) -> tuple[Value, Value, Value]:
    """``(x - mean) * rstd * w + b``; also mean and rstd, shape (n, groups)."""
    d = c // groups
    order = _channel_order(x)
    stored = x.arranged(order)
    split = reshape(stored, n, positions, groups, d)
    mean = _group_mean(split)
    centred = torch.sub(split, mean)
    variance = _group_mean(torch.mul(centred, centred))
    rstd = torch.rsqrt(torch.add(variance, eps))
    result = torch.mul(centred, rstd)
    if w is not None:
        result = torch.mul(result, reshape(w.natural(), 1, 1, groups, d))
    if b is not None:
        result = torch.add(result, reshape(b.natural(), 1, 1, groups, d))
    return (
        Value(reshape(result, *stored.shape), order),
        Value(reshape(mean, n, groups)),
        Value(reshape(rstd, n, groups)),
    )


@lowers(_aten.native_group_norm_backward.default)
def group_norm_backward(
    grad: Value,
    x: Value,
    mean: Value,
    rstd: Value,
    w: Value | None,
    n: int,
    c: int,
    positions: int,
    groups: int,
    mask: Sequence[bool],
) -> _Gradients:
    """With ``h`` the normalised input and ``g = grad * w``: ``rstd * (g - mean(g) - h * mean(g * h))``."""
    d = c // groups
    order = _channel_order(x)
    stored = x.arranged(order)
    g = reshape(grad.arranged(order), n, positions, groups, d)
    scale = reshape(rstd.natural(), n, 1, groups, 1)
    centred = torch.sub(reshape(stored, n, positions, groups, d), reshape(mean.natural(), n, 1, groups, 1))
    h = torch.mul(centred, scale)
    grad_x = grad_w = grad_b = None
    if mask[0]:
        gw = g if w is None else torch.mul(g, reshape(w.natural(), 1, 1, groups, d))
        along = torch.mul(h, _group_mean(torch.mul(gw, h)))
        inner = torch.sub(torch.sub(gw, _group_mean(gw)), along)
        grad_x = Value(reshape(torch.mul(inner, scale), *stored.shape), order)
    if mask[1]:
        grad_w = Value(reshape(sum_rows(reshape(torch.mul(g, h), 1, n * positions, c)), c))
    if mask[2]:
        grad_b = Value(reshape(sum_rows(reshape(g, 1, n * positions, c)), c))
    return grad_x, grad_w, grad_b


def _row_mean(x: Tensor) -> Tensor:
    """(1, rows, k) -> (1, rows, 1)."""
    return torch.mul(sum_last(x), 1.0 / x.shape[2])


@lowers(_aten.native_layer_norm.default)
def layer_norm(
    x: Value, shape: Sequence[int], w: Value | None, b: Value | None, eps: float
) -> tuple[Value, Value, Value]:
    """As group normalisation, over the last axes; mean and rstd have size 1 there."""
    k = math.prod(shape)
    rows = reshape(x.natural(), 1, math.prod(x.shape) // k, k)
    mean = _row_mean(rows)
    centred = torch.sub(rows, mean)
    rstd = torch.rsqrt(torch.add(_row_mean(torch.mul(centred, centred)), eps))
    result = torch.mul(centred, rstd)
    if w is not None:
        result = torch.mul(result, reshape(w.natural(), 1, 1, k))
    if b is not None:
        result = torch.add(result, reshape(b.natural(), 1, 1, k))
    outer = [*x.shape[: x.ndim - len(shape)], *[1] * len(shape)]
    return Value(reshape(result, *x.shape)), Value(reshape(mean, *outer)), Value(reshape(rstd, *outer))


@lowers(_aten.native_layer_norm_backward.default)
def layer_norm_backward(
    grad: Value,
    x: Value,
    shape: Sequence[int],
    mean: Value,
    rstd: Value,
    w: Value | None,
    b: Value | None,
    mask: Sequence[bool],
) -> _Gradients:
    """As :func:`group_norm_backward`, per row."""
    k = math.prod(shape)
    n = math.prod(x.shape) // k
    g = reshape(grad.natural(), 1, n, k)
    scale = reshape(rstd.natural(), 1, n, 1)
    h = torch.mul(torch.sub(reshape(x.natural(), 1, n, k), reshape(mean.natural(), 1, n, 1)), scale)
    grad_x = grad_w = grad_b = None
    if mask[0]:
        gw = g if w is None else torch.mul(g, reshape(w.natural(), 1, 1, k))
        along = torch.mul(h, _row_mean(torch.mul(gw, h)))
        inner = torch.sub(torch.sub(gw, _row_mean(gw)), along)
        grad_x = Value(reshape(torch.mul(inner, scale), *x.shape))
    if mask[1]:
        grad_w = Value(reshape(sum_rows(torch.mul(g, h)), *shape))
    if mask[2]:
        grad_b = Value(reshape(sum_rows(g), *shape))
    return grad_x, grad_w, grad_b


def _per_channel(v: Value, x: Value) -> Value:
    return Value(reshape(v.natural(), 1, v.shape[0], *[1] * (x.ndim - 2)))


def _frozen(var: Value, eps: float) -> Value:
    return elementwise(lambda t: torch.rsqrt(torch.add(t, eps)), var)


@lowers(_aten._native_batch_norm_legit_no_training.default)
def batch_norm(
    x: Value, w: Value | None, b: Value | None, mean: Value, var: Value, momentum: float, eps: float
) -> tuple[Value, None, None]:
    """Running statistics are weights: ``x * scale + (b - mean * scale)``."""
    scale = _frozen(var, eps)
    if w is not None:
        scale = elementwise(_aten.mul.Tensor, scale, w)
    shift = elementwise(_aten.neg.default, elementwise(_aten.mul.Tensor, mean, scale))
    if b is not None:
        shift = elementwise(_aten.add.Tensor, shift, b)
    scaled = elementwise(_aten.mul.Tensor, x, _per_channel(scale, x))
    return elementwise(_aten.add.Tensor, scaled, _per_channel(shift, x)), None, None
