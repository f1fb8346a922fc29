"""
Group, layer and batch normalisation.

Their portable kernels are slow and their backward passes missing. Statistics are products with ones over
(n, positions, groups, channels of a group); everything else is elementwise with broadcasts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..registry import lowers
from ..values import Value, reshape
from .elementwise import elementwise
from .products import sum_dim, sum_last, sum_rows

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
    return reshape(total * (1.0 / (positions * d)), n, 1, groups, 1)


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
    centred = split - mean
    variance = _group_mean(torch.pow(centred, 2))
    rstd = torch.rsqrt(variance + eps)
    result = centred * rstd
    if w is not None:
        result = result * reshape(w.natural(), 1, 1, groups, d)
    if b is not None:
        result = result + reshape(b.natural(), 1, 1, groups, d)
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
    centred = reshape(stored, n, positions, groups, d) - reshape(mean.natural(), n, 1, groups, 1)
    h = centred * scale
    grad_x = grad_w = grad_b = None
    if mask[0]:
        gw = g if w is None else g * reshape(w.natural(), 1, 1, groups, d)
        along = h * _group_mean(gw * h)
        inner = gw - _group_mean(gw) - along
        grad_x = Value(reshape(inner * scale, *stored.shape), order)
    if mask[1]:
        grad_w = Value(reshape(sum_rows(reshape(g * h, 1, n * positions, c)), c))
    if mask[2]:
        grad_b = Value(reshape(sum_rows(reshape(g, 1, n * positions, c)), c))
    return grad_x, grad_w, grad_b


def _row_mean(x: Tensor) -> Tensor:
    """(1, rows, k) -> (1, rows, 1)."""
    return sum_last(x) * (1.0 / x.shape[2])


@lowers(_aten.native_layer_norm.default)
def layer_norm(
    x: Value, shape: Sequence[int], w: Value | None, b: Value | None, eps: float
) -> tuple[Value, Value, Value]:
    """As group normalisation, over the last axes; mean and rstd have size 1 there."""
    k = math.prod(shape)
    rows = reshape(x.natural(), 1, math.prod(x.shape) // k, k)
    mean = _row_mean(rows)
    centred = rows - mean
    rstd = torch.rsqrt(_row_mean(torch.pow(centred, 2)) + eps)
    result = centred * rstd
    if w is not None:
        result = result * reshape(w.natural(), 1, 1, k)
    if b is not None:
        result = result + reshape(b.natural(), 1, 1, k)
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
    h = (reshape(x.natural(), 1, n, k) - reshape(mean.natural(), 1, n, 1)) * scale
    grad_x = grad_w = grad_b = None
    if mask[0]:
        gw = g if w is None else g * reshape(w.natural(), 1, 1, k)
        along = h * _row_mean(gw * h)
        inner = gw - _row_mean(gw) - along
        grad_x = Value(reshape(inner * scale, *x.shape))
    if mask[1]:
        grad_w = Value(reshape(sum_rows(g * h), *shape))
    if mask[2]:
        grad_b = Value(reshape(sum_rows(g), *shape))
    return grad_x, grad_w, grad_b


def _per_channel(v: Value, x: Value) -> Value:
    return Value(reshape(v.natural(), 1, v.shape[0], *[1] * (x.ndim - 2)))


def _rstd(variance: Value, eps: float) -> Value:
    return elementwise(lambda t: torch.rsqrt(t + eps), variance)


def _batch_mean(x: Tensor) -> Tensor:
    """(1, rows, channels) -> (1, 1, channels)."""
    return sum_rows(x) * (1.0 / x.shape[1])


def _rows(x: Value) -> Tensor:
    """(n, c, ...) -> (1, n * positions, c)."""
    c = x.shape[1]
    return reshape(x.arranged(_channel_order(x)), 1, math.prod(x.shape) // c, c)


def _from_rows(rows: Tensor, like: Value) -> Value:
    order = _channel_order(like)
    return Value(reshape(rows, *[like.shape[axis] for axis in order]), order)


@lowers(_aten.native_batch_norm.default)
def batch_norm(
    x: Value,
    w: Value | None,
    b: Value | None,
    mean: Value | None,
    variance: Value | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Value, Value | None, Value | None]:
    """
    Running statistics are weights: ``x * scale + (b - mean * scale)`` with ``scale = w * rstd``.

    In training mode the statistics are the micro-batch's; running ones, frozen weights in a program, do not move.
    """
    if training:
        return _batch_norm_training(x, w, b, eps)
    assert mean is not None  # ATen demands both
    assert variance is not None
    scale = _rstd(variance, eps)
    if w is not None:
        scale = elementwise(_aten.mul.Tensor, scale, w)
    shift = elementwise(lambda m, s: m * s * -1.0, mean, scale)
    if b is not None:
        shift = elementwise(_aten.add.Tensor, shift, b)
    scaled = elementwise(_aten.mul.Tensor, x, _per_channel(scale, x))
    return elementwise(_aten.add.Tensor, scaled, _per_channel(shift, x)), None, None


def _batch_norm_training(x: Value, w: Value | None, b: Value | None, eps: float) -> tuple[Value, Value, Value]:
    rows = _rows(x)
    c = x.shape[1]
    mean = _batch_mean(rows)
    centred = rows - mean
    rstd = torch.rsqrt(_batch_mean(torch.pow(centred, 2)) + eps)
    result = centred * rstd
    if w is not None:
        result = result * reshape(w.natural(), 1, 1, c)
    if b is not None:
        result = result + reshape(b.natural(), 1, 1, c)
    return _from_rows(result, x), Value(reshape(mean, c)), Value(reshape(rstd, c))


@lowers(_aten.native_batch_norm_backward.default)
def batch_norm_backward(
    grad: Value,
    x: Value,
    w: Value | None,
    mean: Value | None,
    variance: Value | None,
    saved_mean: Value | None,
    saved_rstd: Value | None,
    training: bool,
    eps: float,
    mask: Sequence[bool],
) -> _Gradients:
    """With frozen statistics the layer is linear; else as :func:`group_norm_backward`, per channel."""
    if training:
        assert saved_mean is not None  # the forward rewrite gives both
        assert saved_rstd is not None
        return _batch_norm_training_backward(grad, x, w, saved_mean, saved_rstd, mask)
    assert mean is not None  # ATen demands both
    assert variance is not None
    rstd = _rstd(variance, eps)
    others = [axis for axis in range(x.ndim) if axis != 1]
    grad_x = grad_w = grad_b = None
    if mask[0]:
        scale = rstd if w is None else elementwise(_aten.mul.Tensor, rstd, w)
        grad_x = elementwise(_aten.mul.Tensor, grad, _per_channel(scale, x))
    if mask[1]:
        centred = elementwise(_aten.sub.Tensor, x, _per_channel(mean, x))
        grad_w = elementwise(_aten.mul.Tensor, sum_dim(elementwise(_aten.mul.Tensor, grad, centred), others), rstd)
    if mask[2]:
        grad_b = sum_dim(grad, others)
    return grad_x, grad_w, grad_b


def _batch_norm_training_backward(
    grad: Value, x: Value, w: Value | None, mean: Value, rstd: Value, mask: Sequence[bool]
) -> _Gradients:
    c = x.shape[1]
    g = _rows(grad)
    scale = reshape(rstd.natural(), 1, 1, c)
    h = (_rows(x) - reshape(mean.natural(), 1, 1, c)) * scale
    grad_x = grad_w = grad_b = None
    if mask[0]:
        inner = g - _batch_mean(g) - h * _batch_mean(g * h)
        grad_x = _from_rows(inner * (scale if w is None else scale * reshape(w.natural(), 1, 1, c)), x)
    if mask[1]:
        grad_w = Value(reshape(sum_rows(g * h), c))
    if mask[2]:
        grad_b = Value(reshape(sum_rows(g), c))
    return grad_x, grad_w, grad_b
