"""
Linear maps along one axis: resizing, padding by what is there, choices by constant indices, and their gradients.

Resizing an image is a product with a constant matrix per axis, whatever the mode, and its gradient one with the
transpose; the matrix is what the operator itself makes of unit vectors. A choice of positions is such a map too: few
runs of neighbours are slices, else the matrix holds ones and zeros, and what would be too large stays portable.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from ..kernels import average_pool, dense
from ..registry import lowers
from ..values import Value, cat, computed, numbers, repeat, reshape, slice_axis

__all__ = ["along", "pick", "put"]

_aten = torch.ops.aten
# Elements that the matrix of a choice may have.
SELECTION = 1 << 16
_RUNS = 8


def along(x: Value, axis: int, matrix: Tensor) -> Value:
    """``matrix`` (out, in), a constant, times each line of ``axis``."""
    axis %= x.ndim
    order = [*(a for a in x.order if a != axis), axis]
    stored = x.arranged(order)
    out, size = matrix.shape
    product = dense(reshape(stored, stored.numel() // size, size), computed(lambda m: m.float(), matrix))
    return Value(reshape(product, *stored.shape[:-1], out), order)


def _runs(index: Sequence[int]) -> list[tuple[int, int]]:
    """(first, length) of each run of neighbours."""
    groups = itertools.groupby(enumerate(index), lambda pair: pair[1] - pair[0])
    return [(run[0][1], len(run)) for run in (list(group) for _, group in groups)]


def _choice(index: Sequence[int], size: int) -> Tensor:
    return computed(lambda: torch.nn.functional.one_hot(torch.tensor(list(index)), size).float())


def pick(x: Value, axis: int, index: Sequence[int]) -> Value:
    """The positions ``index`` of ``axis``: slices, a product, or the portable kernel."""
    axis %= x.ndim
    index = [i % x.shape[axis] for i in index]
    runs = _runs(index)
    size = x.shape[axis]
    stored, at = x.arranged(x.order), x.order.index(axis)
    if len(runs) <= _RUNS or (at != x.ndim - 1 and len(runs) <= 4 * _RUNS):
        return Value(cat([slice_axis(stored, at, first, length) for first, length in runs], at), x.order)
    if x.dtype == torch.float32 and size * len(index) <= SELECTION:
        return along(x, axis, _choice(index, size))
    return Value(_aten.index_select.default(x.natural(), axis, computed(lambda: torch.tensor(index))))


def put(grad: Value, axis: int, index: Sequence[int], size: int) -> Value:
    """The adjoint of :func:`pick`: positions added to where they were read, in zeros of ``size`` on ``axis``."""
    axis %= grad.ndim
    index = [i % size for i in index]
    if size * len(index) <= SELECTION:
        return along(grad, axis, computed(lambda m: m.t(), _choice(index, size)))
    order = [axis, *(a for a in range(grad.ndim) if a != axis)]
    values = grad.arranged(order)
    zeros = torch.zeros(size, *values.shape[1:])
    return Value(_aten.index_put.default(zeros, [computed(lambda: torch.tensor(index))], values, True), order)


@lowers(_aten.index_select.default)
def index_select(x: Value, axis: int, index: Value) -> Value:
    """Replaces a constant choice by slices or a product; one that changes stays with the portable kernel."""
    if index.constant is None or x.dtype != torch.float32:
        return Value(_aten.index_select.default(x.natural(), axis, index.natural()))
    return pick(x, axis, numbers(index.constant))


@lowers(_aten.flip.default)
def flip(x: Value, axes: Sequence[int]) -> Value:
    """Replaces ``flip`` by the positions in reverse."""
    if x.dtype != torch.float32:
        return Value(_aten.flip.default(x.natural(), axes))
    for axis in axes:
        x = pick(x, axis, range(x.shape[axis])[::-1])
    return x


@lowers(_aten.roll.default)
def roll(x: Value, shifts: Sequence[int], axes: Sequence[int] = ()) -> Value:
    """Replaces ``roll`` by two slices."""
    if not axes:
        flat = Value(reshape(x.natural(), math.prod(x.shape)))
        return Value(reshape(roll(flat, shifts, [0]).natural(), *x.shape))
    for shift, axis in zip(shifts, axes, strict=True):
        size = x.shape[axis]
        x = pick(x, axis, [(i - shift) % size for i in range(size)])
    return x


@lowers(_aten.cumsum.default)
def cumsum(x: Value, axis: int, *, dtype: torch.dtype | None = None) -> Value:
    """Replaces a running sum by a product with a triangle of ones."""
    size = x.shape[axis] if x.ndim else 1
    if x.dtype != torch.float32 or size * size > SELECTION or dtype not in (None, torch.float32):
        return Value(_aten.cumsum.default(x.natural(), axis, dtype=dtype))
    return along(x, axis, computed(lambda: torch.ones(size, size).tril())) if x.ndim else x


@lowers(_aten.unfold.default)
def unfold(x: Value, axis: int, size: int, step: int) -> Value:
    """Replaces sliding windows over an axis by the positions that they hold."""
    axis %= x.ndim
    count = (x.shape[axis] - size) // step + 1
    chosen = pick(x, axis, [start * step + i for start in range(count) for i in range(size)]).natural()
    split = Value(reshape(chosen, *x.shape[:axis], count, size, *x.shape[axis + 1 :]))
    return split.permuted([*(a for a in range(split.ndim) if a != axis + 1), axis + 1])


@lowers(_aten.unfold_backward.default)
def unfold_backward(grad: Value, shape: Sequence[int], axis: int, size: int, step: int) -> Value:
    """The adjoint of :func:`unfold`."""
    axis %= len(shape)
    count = grad.shape[axis]
    last = grad.ndim - 1
    turned = grad.permuted([*range(axis + 1), last, *range(axis + 1, last)]).natural()
    flat = Value(reshape(turned, *shape[:axis], count * size, *shape[axis + 1 :]))
    return put(flat, axis, [start * step + i for start in range(count) for i in range(size)], shape[axis])


@lowers(_aten.reflection_pad1d.default, _aten.reflection_pad2d.default, _aten.reflection_pad3d.default)
def reflection_pad(x: Value, widths: Sequence[int]) -> Value:
    """Replaces padding by reflection by the positions that are repeated, axis by axis."""
    for axis, index in _padded(x.shape, widths, _reflected):
        x = pick(x, axis, index)
    return x


@lowers(
    _aten.reflection_pad1d_backward.default,
    _aten.reflection_pad2d_backward.default,
    _aten.reflection_pad3d_backward.default,
)
def reflection_pad_backward(grad: Value, x: Value, widths: Sequence[int]) -> Value:
    """Adds each repeated position's gradient to where it came from."""
    for axis, index in _padded(x.shape, widths, _reflected):
        grad = put(grad, axis, index, x.shape[axis])
    return grad


@lowers(_aten.replication_pad1d.default, _aten.replication_pad2d.default, _aten.replication_pad3d.default)
def replication_pad(x: Value, widths: Sequence[int]) -> Value:
    """Replaces padding by the border by the positions that are repeated."""
    for axis, index in _padded(x.shape, widths, _clamped):
        x = pick(x, axis, index)
    return x


@lowers(
    _aten.replication_pad1d_backward.default,
    _aten.replication_pad2d_backward.default,
    _aten.replication_pad3d_backward.default,
)
def replication_pad_backward(grad: Value, x: Value, widths: Sequence[int]) -> Value:
    """As :func:`reflection_pad_backward`."""
    for axis, index in _padded(x.shape, widths, _clamped):
        grad = put(grad, axis, index, x.shape[axis])
    return grad


def _padded(
    shape: Sequence[int], widths: Sequence[int], rule: Callable[[int, int], int]
) -> list[tuple[int, list[int]]]:
    """(axis, the position of the input at each position of the output) for every padded axis, the last one first."""
    result = []
    for i in range(len(widths) // 2):
        axis = len(shape) - 1 - i
        before, after = widths[2 * i], widths[2 * i + 1]
        if before or after:
            result.append((axis, [rule(p, shape[axis]) for p in range(-before, shape[axis] + after)]))
    return result


def _reflected(position: int, size: int) -> int:
    return -position if position < 0 else 2 * (size - 1) - position if position >= size else position


def _clamped(position: int, size: int) -> int:
    return min(max(position, 0), size - 1)


# Resizing: name of the operator -> how many axes it resizes.
_RESIZING = {
    "upsample_nearest1d": 1,
    "_upsample_nearest_exact1d": 1,
    "upsample_linear1d": 1,
    "upsample_nearest2d": 2,
    "_upsample_nearest_exact2d": 2,
    "upsample_bilinear2d": 2,
    "upsample_bicubic2d": 2,
    "_upsample_bilinear2d_aa": 2,
    "_upsample_bicubic2d_aa": 2,
    "upsample_nearest3d": 3,
    "_upsample_nearest_exact3d": 3,
    "upsample_trilinear3d": 3,
}


def _matrices(name: str, sizes: Sequence[int], inputs: Sequence[int], options: Sequence[Any]) -> list[Tensor]:
    """Per resized axis the matrix (out, in): what the operator makes of unit vectors along that axis."""
    operator = getattr(_aten, name).default
    aligned = list(options[:1]) if any(a.name == "align_corners" for a in operator._schema.arguments) else []
    scales = [*options[len(aligned) :], *[None] * len(inputs)]
    result = []
    one = [1] * (len(inputs) - 1)
    for i, (size, count) in enumerate(zip(sizes, inputs, strict=True)):
        # Always along the last axis: torch 2.13 smooths images of width 1 wrongly, and all axes are alike.
        steps = [None] * len(one) + [scales[i]]

        def resize(count: int = count, size: int = size, steps: Any = steps) -> Tensor:
            units = torch.eye(count).reshape([count, 1, *one, count])
            resized: Tensor = operator(units, [*one, size], *aligned, *steps)
            return resized.reshape(count, size).t()

        result.append(computed(resize))
    return result


def _resize(name: str, x: Value, sizes: Sequence[int], *options: Any) -> Value:
    inputs = x.shape[2:]
    for axis, matrix in enumerate(_matrices(name, sizes, inputs, options), 2):
        times = sizes[axis - 2] // inputs[axis - 2]
        x = _copied(x, axis, times) if _copies(matrix, times) else along(x, axis, matrix)
    return x


def _copies(matrix: Tensor, times: int) -> bool:
    """Whether the matrix repeats every position so many times."""
    out, size = matrix.shape
    if times < 1 or out != size * times:
        return False
    with _disable_current_modes():
        return torch.equal(matrix, torch.eye(size).repeat_interleave(times, 0))


def _copied(x: Value, axis: int, times: int) -> Value:
    """Every position of ``axis`` several times: copies along an axis of their own."""
    if times == 1:
        return x
    stored, at = x.arranged(x.order), x.order.index(axis)
    before, after = stored.shape[:at], stored.shape[at + 1 :]
    split = repeat(reshape(stored, *before, stored.shape[at], 1, *after), at + 1, times)
    return Value(reshape(split, *before, stored.shape[at] * times, *after), x.order)


def _resize_backward(name: str, grad: Value, sizes: Sequence[int], shape: Sequence[int], *options: Any) -> Value:
    inputs = shape[2:]
    matrices = _matrices(name, sizes, inputs, options)
    times = [size // count for size, count in zip(sizes, inputs, strict=True)]
    if len(inputs) == 2 and all(_copies(m, t) for m, t in zip(matrices, times, strict=True)):
        if times == [1, 1]:
            return grad
        total = average_pool(grad.channels_last(), times, times) * float(times[0] * times[1])
        return Value.of_channels_last(total)
    for axis, matrix in enumerate(matrices, 2):
        grad = along(grad, axis, computed(lambda m: m.t(), matrix))
    return grad


def _register(name: str) -> None:
    @lowers(getattr(_aten, name).default)
    def resize(x: Value, sizes: Sequence[int], *options: Any) -> Value:
        """Replaces resizing by a product per axis."""
        return _resize(name, x, sizes, *options)

    @lowers(getattr(_aten, f"{name}_backward").default)
    def resize_backward(grad: Value, sizes: Sequence[int], shape: Sequence[int], *options: Any) -> Value:
        """Products with the transposes."""
        return _resize_backward(name, grad, sizes, shape, *options)


for _name in _RESIZING:
    _register(_name)
