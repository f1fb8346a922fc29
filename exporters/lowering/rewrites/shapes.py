"""
Views, permutations, broadcasts, slices.

A permutation costs nothing here (the value notes its new axis order); a view needs the elements in their
natural order and is a reshape, which XNNPACK takes into its region for nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from ..registry import lowers
from ..values import Value, cat, computed, reshape, slice_axis
from .windows import Window, dilate, fit, tap

__all__: list[str] = []

_aten = torch.ops.aten


@lowers(_aten.view.default, _aten._unsafe_view.default, _aten.reshape.default)
def view(x: Value, shape: Sequence[int]) -> Value:
    """Replaces a view by a reshape of the natural order."""
    if -1 in shape:
        known = 1
        for d in shape:
            known *= d if d != -1 else 1
        count = 1
        for d in x.shape:
            count *= d
        shape = [count // known if d == -1 else d for d in shape]
    if tuple(shape) == x.shape:
        return x
    return Value(reshape(x.natural(), *shape))


@lowers(_aten.permute.default)
def permute(x: Value, axes: Sequence[int]) -> Value:
    """Notes another axis order."""
    return x.permuted([a % x.ndim for a in axes])


@lowers(_aten.t.default)
def t(x: Value) -> Value:
    """Notes another axis order."""
    return x.permuted(range(x.ndim)[::-1])


@lowers(_aten.transpose.int, _aten.transpose_.default)
def transpose(x: Value, a: int, b: int) -> Value:
    """Notes another axis order."""
    axes = list(range(x.ndim))
    axes[a], axes[b] = axes[b], axes[a]
    return x.permuted(axes)


@lowers(_aten.unsqueeze.default, _aten.unsqueeze_.default)
def unsqueeze(x: Value, axis: int) -> Value:
    """Replaces ``unsqueeze`` by an axis of size 1 in the value's own order."""
    axis %= x.ndim + 1
    order = [axis, *(a + (a >= axis) for a in x.order)]
    shape = [*x.shape[:axis], 1, *x.shape[axis:]]
    result = Value(reshape(x.tensor, 1, *x.tensor.shape), order, shape)
    if x.constant is not None:
        result.constant = computed(lambda t: t.unsqueeze(axis), x.constant)
    return result


@lowers(_aten.squeeze.dim, _aten.squeeze.dims)
def squeeze(x: Value, axes: int | Sequence[int]) -> Value:
    """Replaces ``squeeze`` by a reshape."""
    gone = {a % x.ndim for a in ([axes] if isinstance(axes, int) else axes)}
    gone = {a for a in gone if x.shape[a] == 1}
    left = [a for a in range(x.ndim) if a not in gone]
    order = [left.index(a) for a in x.order if a not in gone]
    stored = [s for a, s in zip(x.order, x.tensor.shape, strict=True) if a not in gone]
    return Value(reshape(x.tensor, *stored), order, [x.shape[a] for a in left])


@lowers(_aten.expand.default)
def expand(x: Value, shape: Sequence[int], *, implicit: bool = False) -> Value:
    """Leaves the broadcast open: most of the time the next operator broadcasts by itself."""
    while x.ndim < len(shape):
        x = unsqueeze(x, 0)
    return Value(x.tensor, x.order, [have if want == -1 else want for want, have in zip(shape, x.shape, strict=True)])


@lowers(_aten.slice.Tensor)
def slice_tensor(x: Value, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value:
    """Replaces a slice by one in the value's own axis order, and a step by splitting the axis into phases."""
    begin, stop, _ = slice(start, end).indices(x.shape[axis])
    at = x.order.index(axis % x.ndim)
    stored = x.tensor if x.tensor.shape[at] == x.shape[axis] else x.arranged(x.order)
    if step != 1:
        count = len(range(begin, stop, step))
        cut = fit(stored, at, -begin, count * step)
        return Value(tap(cut, at, Window(count * step, count, 1, step), 0), x.order)
    shape = [stop - begin if a == axis % x.ndim else s for a, s in enumerate(x.shape)]
    return Value(slice_axis(stored, at, begin, stop - begin), x.order, shape)


@lowers(_aten.select.int)
def select(x: Value, axis: int, index: int) -> Value:
    """Replaces ``select`` by a slice of length 1 and a reshape."""
    index %= x.shape[axis]
    return squeeze(slice_tensor(x, axis, index, index + 1), axis)


@lowers(_aten.split_with_sizes.default)
def split_with_sizes(x: Value, sizes: Sequence[int], axis: int = 0) -> tuple[Value, ...]:
    """Replaces a split by slices."""
    ends = list(itertools.accumulate(sizes))
    return tuple(slice_tensor(x, axis, end - size, end) for size, end in zip(sizes, ends, strict=True))


@lowers(_aten.split.Tensor)
def split(x: Value, size: int, axis: int = 0) -> tuple[Value, ...]:
    """Replaces a split into equal parts by slices."""
    length = x.shape[axis]
    return split_with_sizes(x, [min(size, length - start) for start in range(0, length, size)], axis)


@lowers(_aten.unbind.int)
def unbind(x: Value, axis: int = 0) -> tuple[Value, ...]:
    """Replaces ``unbind`` by slices."""
    return tuple(select(x, axis, index) for index in range(x.shape[axis]))


@lowers(_aten.stack.default)
def stack(values: Sequence[Value], axis: int = 0) -> Value:
    """Replaces ``stack`` by a concatenation along a new axis."""
    return concatenate([unsqueeze(v, axis) for v in values], axis)


@lowers(_aten.slice_backward.default)
def slice_backward(grad: Value, shape: Sequence[int], axis: int, start: int, end: int, step: int) -> Value:
    """Replaces a copy into zeros by padding, between the positions too where the slice had a step."""
    axis %= len(shape)
    begin, stop, _ = slice(start, end).indices(shape[axis])
    if step != 1:
        at = grad.order.index(axis)
        spaced = dilate(grad.arranged(grad.order), at, step)
        return Value(fit(spaced, at, begin, shape[axis]), grad.order)
    return constant_pad(grad, [0, 0] * (len(shape) - 1 - axis) + [begin, shape[axis] - stop])


@lowers(_aten.select_backward.default)
def select_backward(grad: Value, shape: Sequence[int], axis: int, index: int) -> Value:
    """Replaces a copy into zeros by padding."""
    axis, index = axis % len(shape), index % shape[axis]
    return slice_backward(unsqueeze(grad, axis), shape, axis, index, index + 1, 1)


@lowers(_aten.cat.default)
def concatenate(values: Sequence[Value], axis: int = 0) -> Value:
    """Replaces a concatenation by smaller ones, in the first value's axis order."""
    order = values[0].order
    return Value(cat([v.arranged(order) for v in values], order.index(axis % values[0].ndim)), order)


@lowers(_aten.constant_pad_nd.default)
def constant_pad(x: Value, padding: Sequence[int], value: float = 0.0) -> Value:
    """Replaces padding that crops (negative widths, which no backend takes) by slices and padding."""
    stored = x.arranged(x.order)
    pairs = [(0, 0)] * x.ndim
    for i in range(len(padding) // 2):
        pairs[x.ndim - 1 - i] = (padding[2 * i], padding[2 * i + 1])
    for i, axis in enumerate(x.order):
        before, after = (max(0, -p) for p in pairs[axis])
        stored = slice_axis(stored, i, before, stored.shape[i] - before - after)
    widths = [max(0, p) for axis in reversed(x.order) for p in pairs[axis]]
    return Value(torch.constant_pad_nd(stored, widths, value) if any(widths) else stored, x.order)


@lowers(
    _aten.detach.default, _aten.alias.default, _aten.clone.default, _aten.lift_fresh_copy.default, _aten.lift.default
)
def identity(x: Value, **options: Any) -> Value:
    """Leaves out copies: nothing in a program is written to twice."""
    return x
