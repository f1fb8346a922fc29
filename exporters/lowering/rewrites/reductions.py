"""
Largest and smallest values, spread and norms over axes.

A maximum over an axis is the delegate's pooling, channels last, with the axis as the window; its place in the axis is
asked of the portable kernel, where anybody asks. Variances are means of squares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import kernels
from ..registry import lowers
from ..values import Value, reshape
from .elementwise import elementwise
from .portable import argmax, argmin
from .products import mean_dim, sum_dim
from .shapes import concatenate, expand, select, slice_tensor, squeeze, unsqueeze

__all__: list[str] = []

_aten = torch.ops.aten
_Axes = Sequence[int]


def _axes(x: Value, axes: _Axes | None) -> list[int]:
    return sorted({a % x.ndim for a in axes}) if axes else list(range(x.ndim))


def _kept(x: Value, result: Value, axes: _Axes, keepdim: bool) -> Value:
    """``result``, whose reduced axes have size 1, without them unless ``keepdim``."""
    return result if keepdim else squeeze(result, list(axes))


@lowers(_aten.amax.default)
def amax(x: Value, axes: _Axes = (), keepdim: bool = False) -> Value:
    """Replaces a maximum over axes by pooling over them as one."""
    reduced = _axes(x, axes)
    count = math.prod(x.shape[a] for a in reduced)
    if x.dtype != torch.float32 or not x.ndim:
        return Value(_aten.amax.default(x.natural(), reduced, keepdim))
    kept = [a for a in range(x.ndim) if a not in reduced]
    # Images (before, count, 1, behind): what lies behind the reduced axes are the channels.
    before = [a for a in kept if a < reduced[0]]
    order = [*before, *reduced, *[a for a in kept if a not in before]]
    stored = x.arranged(order)
    rows = math.prod(x.shape[a] for a in before)
    behind = stored.numel() // (rows * count)
    image = reshape(stored, rows, count, 1, behind)
    largest = image if count == 1 else kernels.max_pool(image, [count, 1], [count, 1], [0, 0], [1, 1])
    shape = [1 if a in reduced else x.shape[a] for a in order]
    return _kept(x, Value(reshape(largest, *shape), order), reduced, keepdim)


@lowers(_aten.amin.default)
def amin(x: Value, axes: _Axes = (), keepdim: bool = False) -> Value:
    """Minus the maximum of the opposite."""
    if x.dtype != torch.float32:
        return Value(_aten.amin.default(x.natural(), _axes(x, axes), keepdim))
    return elementwise(_aten.neg.default, amax(elementwise(_aten.neg.default, x), axes, keepdim))


@lowers(_aten.max.dim)
def max_dim(x: Value, axis: int, keepdim: bool = False) -> tuple[Value, Value]:
    """The maximum and its place, each by an operator of its own."""
    return amax(x, [axis], keepdim), argmax(x, axis, keepdim)


@lowers(_aten.min.dim)
def min_dim(x: Value, axis: int, keepdim: bool = False) -> tuple[Value, Value]:
    """The minimum and its place likewise."""
    return amin(x, [axis], keepdim), argmin(x, axis, keepdim)


@lowers(_aten.max.default)
def max_all(x: Value) -> Value:
    """The maximum of all elements."""
    return amax(x)


@lowers(_aten.min.default)
def min_all(x: Value) -> Value:
    """The minimum of all elements."""
    return amin(x)


def _square(x: Value) -> Value:
    return elementwise(lambda t: torch.pow(t, 2), x)


def _spread(x: Value, axes: _Axes | None, correction: float | None, keepdim: bool) -> tuple[Value, Value]:
    reduced = _axes(x, axes)
    count = math.prod(x.shape[a] for a in reduced)
    mean = mean_dim(x, reduced, True)
    total = sum_dim(_square(elementwise(_aten.sub.Tensor, x, mean)), reduced, True)
    divisor = max(count - (1 if correction is None else correction), 0)
    variance = elementwise(_aten.mul.Tensor, total, 1.0 / divisor if divisor else math.inf)
    return _kept(x, variance, reduced, keepdim), _kept(x, mean, reduced, keepdim)


@lowers(_aten.var.correction)
def var(x: Value, axes: _Axes | None = None, *, correction: float | None = None, keepdim: bool = False) -> Value:
    """Replaces a variance by a mean of squares."""
    return _spread(x, axes, correction, keepdim)[0]


@lowers(_aten.std.correction)
def std(x: Value, axes: _Axes | None = None, *, correction: float | None = None, keepdim: bool = False) -> Value:
    """The root of the variance."""
    return elementwise(_aten.sqrt.default, var(x, axes, correction=correction, keepdim=keepdim))


@lowers(_aten.var_mean.correction)
def var_mean(
    x: Value, axes: _Axes | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Value, Value]:
    """Variance and mean."""
    return _spread(x, axes, correction, keepdim)


@lowers(_aten.std_mean.correction)
def std_mean(
    x: Value, axes: _Axes | None = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Value, Value]:
    """Standard deviation and mean."""
    variance, mean = _spread(x, axes, correction, keepdim)
    return elementwise(_aten.sqrt.default, variance), mean


@lowers(_aten.linalg_vector_norm.default)
def vector_norm(
    x: Value, order: float = 2, axes: _Axes | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Value:
    """Replaces a norm by sums of powers, or by the largest or smallest absolute value."""
    size = elementwise(_aten.abs.default, x)
    if order == math.inf:
        return amax(size, axes or (), keepdim)
    if order == -math.inf:
        return amin(size, axes or (), keepdim)
    reduced = _axes(x, axes)
    if order == 1:
        return sum_dim(size, reduced, keepdim)
    if order == 2:
        return elementwise(_aten.sqrt.default, sum_dim(_square(x), reduced, keepdim))
    if order == 0:
        return sum_dim(elementwise(lambda t: torch.clamp(t * 1e38, 0.0, 1.0), size), reduced, keepdim)
    total = sum_dim(elementwise(lambda t: _aten.pow.Tensor_Scalar(t, order), size), reduced, keepdim)
    return elementwise(lambda t: _aten.pow.Tensor_Scalar(t, 1.0 / order), total)


@lowers(_aten.prod.dim_int)
def prod(x: Value, axis: int, keepdim: bool = False, *, dtype: torch.dtype | None = None) -> Value:
    """Replaces a product over an axis by products of halves."""
    while x.shape[axis] > 1:
        half = x.shape[axis] // 2
        halves = [slice_tensor(x, axis, 0, half), slice_tensor(x, axis, half, 2 * half)]
        product = elementwise(_aten.mul.Tensor, *halves)
        rest = slice_tensor(x, axis, 2 * half, x.shape[axis])
        x = concatenate([product, rest], axis) if rest.shape[axis] else product
    return x if keepdim else squeeze(x, axis)


@lowers(_aten.prod.default)
def prod_all(x: Value, *, dtype: torch.dtype | None = None) -> Value:
    """The product of all elements."""
    return prod(Value(reshape(x.natural(), math.prod(x.shape))), 0)


@lowers(_aten.cumprod.default)
def cumprod(x: Value, axis: int, *, dtype: torch.dtype | None = None) -> Value:
    """Replaces running products by one multiplication per position."""
    parts = [slice_tensor(x, axis, 0, 1)]
    for i in range(1, x.shape[axis]):
        parts.append(elementwise(_aten.mul.Tensor, parts[-1], slice_tensor(x, axis, i, i + 1)))
    return concatenate(parts, axis)


@lowers(_aten.cummax.default)
def cummax(x: Value, axis: int) -> tuple[Value, Value]:
    """Replaces running maxima by one comparison per position; the last of equal ones counts, as in torch."""
    return _running(x, axis, _aten.ge.Tensor)


@lowers(_aten.cummin.default)
def cummin(x: Value, axis: int) -> tuple[Value, Value]:
    """Running minima likewise."""
    return _running(x, axis, _aten.le.Tensor)


def _running(x: Value, axis: int, better: Any) -> tuple[Value, Value]:
    best = slice_tensor(x, axis, 0, 1)
    place = expand(Value(torch.zeros([1] * x.ndim, dtype=torch.int64)), best.shape)
    values, places = [best], [place]
    for i in range(1, x.shape[axis]):
        here = slice_tensor(x, axis, i, i + 1)
        taken = elementwise(better, here, best)
        best = elementwise(_aten.where.self, taken, here, best)
        number = Value(torch.full([1] * x.ndim, i, dtype=torch.int64))
        place = elementwise(_aten.where.self, taken, number, place)
        values.append(best)
        places.append(place)
    return concatenate(values, axis), concatenate(places, axis)


@lowers(_aten.sort.default)
def sort(x: Value, axis: int = -1, descending: bool = False) -> tuple[Value, Value]:
    """Replaces sorting, which the runtime lacks, by its ``topk`` of everything."""
    return topk(x, x.shape[axis], axis, descending)


@lowers(_aten.sort.stable)
def sort_stable(x: Value, *, stable: bool | None, dim: int = -1, descending: bool = False) -> tuple[Value, Value]:
    """As :func:`sort`."""
    return sort(x, dim, descending)


@lowers(_aten.topk.default)
def topk(x: Value, k: int, axis: int = -1, largest: bool = True, ordered: bool = True) -> tuple[Value, Value]:
    """The portable kernel."""
    values, places = _aten.topk.default(x.natural(), k, axis % max(1, x.ndim), largest, True)
    return Value(values), Value(places)


@lowers(_aten.median.dim)
def median(x: Value, axis: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    """Replaces the lower median by the last of the smaller half."""
    return kthvalue(x, (x.shape[axis] - 1) // 2 + 1, axis, keepdim)


@lowers(_aten.kthvalue.default)
def kthvalue(x: Value, k: int, axis: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    """Replaces it by the last of the k smallest."""
    values, places = topk(x, k, axis, False)
    values, places = select(values, axis, k - 1), select(places, axis, k - 1)
    return (unsqueeze(values, axis), unsqueeze(places, axis)) if keepdim else (values, places)


@lowers(_aten._weight_norm_interface.default)
def weight_norm(v: Value, g: Value, axis: int = 0) -> tuple[Value, Value]:
    """``v * g / |v|``, the norm over all axes but one."""
    others = [a for a in range(v.ndim) if a != axis]
    norm = elementwise(_aten.sqrt.default, sum_dim(_square(v), others, True))
    return elementwise(_aten.mul.Tensor, v, elementwise(_aten.div.Tensor, g, norm)), norm


@lowers(_aten._weight_norm_interface_backward.default)
def weight_norm_backward(grad: Value, v: Value, g: Value, norm: Value, axis: int) -> tuple[Value, Value]:
    """Along ``v`` the length's gradient, across it the direction's."""
    others = [a for a in range(v.ndim) if a != axis]
    along = sum_dim(elementwise(_aten.mul.Tensor, grad, v), others, True)
    grad_g = elementwise(_aten.div.Tensor, along, norm)
    part = elementwise(_aten.div.Tensor, along, _square(norm))
    across = elementwise(_aten.sub.Tensor, grad, elementwise(_aten.mul.Tensor, v, part))
    return elementwise(_aten.mul.Tensor, across, elementwise(_aten.div.Tensor, g, norm)), grad_g


@lowers(_aten._cdist_forward.default)
def cdist(a: Value, b: Value, p: float, mode: int | None) -> Value:
    """Replaces distances between all rows by the norm of their differences."""
    return vector_norm(_differences(a, b), p, [-1])


@lowers(_aten._cdist_backward.default)
def cdist_backward(grad: Value, a: Value, b: Value, p: float, distance: Value) -> Value:
    """The gradient of ``a``: along the differences, nothing between equal rows."""
    difference = _differences(a, b)

    def slope(d: Tensor, total: Tensor) -> Tensor:
        unit = d / torch.clamp(total, 1e-30, None)
        if p == 2:
            return unit
        if p == 1:
            return torch.clamp(d * 1e38, -1.0, 1.0)
        size: Tensor = _aten.pow.Tensor_Scalar(torch.abs(unit), p - 1.0)
        return torch.clamp(d * 1e38, -1.0, 1.0) * size

    column = unsqueeze(distance, distance.ndim)
    slopes = elementwise(slope, difference, column)
    return sum_dim(elementwise(_aten.mul.Tensor, slopes, unsqueeze(grad, grad.ndim)), [-2])


def _differences(a: Value, b: Value) -> Value:
    """(..., n, k) and (..., m, k) -> (..., n, m, k)."""
    return elementwise(_aten.sub.Tensor, unsqueeze(a, a.ndim - 1), unsqueeze(b, b.ndim - 2))
