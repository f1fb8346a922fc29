"""
Reading and writing by index, and writes into a part of a tensor.

Indices that are constants of the program (lists, ranges, the positions of a triangle) become choices along one axis, of
the indexed axes taken together. Indices that change stay with the portable kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..registry import lowers
from ..values import Value, computed, reshape
from .elementwise import elementwise, to_copy
from .linear_maps import pick, put
from .shapes import concatenate, expand, slice_backward, slice_tensor, unsqueeze

__all__: list[str] = []

_aten = torch.ops.aten
_Indices = Sequence[Value | None]


class _Place:
    """
    Constant indices: axes that are indexed, brought together, and the places in them.

    ``shape`` is that of the indices, broadcast; ``front`` says that it stands before all other axes.
    """

    def __init__(self, shape: Sequence[int], axes: Sequence[int], indices: Sequence[torch.Tensor]) -> None:
        self.axes = list(axes)
        self.front = self.axes != list(range(self.axes[0], self.axes[-1] + 1))
        self.sizes = [shape[a] for a in self.axes]
        self.others = [a for a in range(len(shape)) if a not in self.axes]
        self.at = 0 if self.front else self.axes[0]
        self.whole = list(shape)
        wrapped = [i % size for i, size in zip(indices, self.sizes, strict=True)]
        wrapped = list(torch.broadcast_tensors(*wrapped))  # type: ignore[no-untyped-call]
        flat = torch.zeros_like(wrapped[0])
        for index, size in zip(wrapped, self.sizes, strict=True):
            flat = flat * size + index
        self.shape = list(flat.shape)
        self.flat = [int(i) for i in flat.flatten().tolist()]

    @property
    def together(self) -> list[int]:
        """The order of axes in which the indexed ones are neighbours."""
        return [*self.others[: self.at], *self.axes, *self.others[self.at :]]

    def merged(self, x: Value) -> Value:
        """``x`` with the indexed axes as one."""
        turned = x.permuted(self.together).natural()
        rest = [self.whole[a] for a in self.others]
        return Value(reshape(turned, *rest[: self.at], math.prod(self.sizes), *rest[self.at :]))

    def parted(self, x: Value) -> Value:
        """The reverse of :meth:`merged`."""
        split = Value(reshape(x.natural(), *[self.whole[a] for a in self.together]))
        return split.permuted([self.together.index(a) for a in range(len(self.whole))])

    @property
    def picked(self) -> list[int]:
        """The shape of what the indices give."""
        rest = [self.whole[a] for a in self.others]
        return [*rest[: self.at], *self.shape, *rest[self.at :]]

    def values(self, values: Value) -> Value:
        """What is to be written, as :func:`~exporters.lowering.rewrites.linear_maps.put` takes it."""
        rest = [self.whole[a] for a in self.others]
        full = expand(values, self.picked).natural()
        return Value(reshape(full, *rest[: self.at], len(self.flat), *rest[self.at :]))


def _place(x: Value, indices: _Indices) -> _Place | None:
    """The places that constant indices name; :obj:`None` if they change."""
    axes: list[int] = []
    found: list[torch.Tensor] = []
    axis = 0
    for index in indices:
        if index is None:
            axis += 1
            continue
        if index.constant is None:
            return None
        if index.dtype == torch.bool:
            count = index.constant.dim()
            places = computed(lambda m: m.nonzero(), index.constant)
            found += [computed(lambda p, i=i: p[:, i], places) for i in range(count)]
            axes += range(axis, axis + count)
            axis += count
        else:
            found.append(index.constant)
            axes.append(axis)
            axis += 1
    made: list[_Place] = []
    computed(lambda *f: made.append(_Place(x.shape, axes, f)) or torch.zeros(()), *found)  # type: ignore[func-returns-value]
    return made[0]


def _moving(indices: _Indices) -> list[torch.Tensor | None]:
    """Indices that a portable kernel takes: int64."""
    return [None if i is None else to_copy(i, dtype=torch.int64).natural() if i.dtype != torch.bool else i.natural()
            for i in indices]  # fmt: skip


@lowers(_aten.index.Tensor, _aten._unsafe_index.Tensor)
def index(x: Value, indices: _Indices) -> Value:
    """A choice along the indexed axes; one that changes stays with the portable kernel."""
    place = _place(x, indices)
    if place is None:
        return Value(_aten.index.Tensor(x.natural(), _moving(indices)))
    chosen = pick(place.merged(x), place.at, place.flat)
    return Value(reshape(chosen.natural(), *place.picked))


@lowers(_aten.index_put.default, _aten._unsafe_index_put.default)
def index_put(x: Value, indices: _Indices, values: Value, accumulate: bool = False) -> Value:
    """Writes by constant indices are sums with zeros elsewhere; by a mask, a choice; others stay portable."""
    mask = indices[0]
    if len(indices) == 1 and mask is not None and mask.dtype == torch.bool and math.prod(values.shape) == 1:
        while mask.ndim < x.ndim:
            mask = unsqueeze(mask, mask.ndim)
        number = Value(reshape(values.natural(), *[1] * x.ndim))
        written = elementwise(_aten.add.Tensor, x, number) if accumulate else number
        return elementwise(_aten.where.self, mask, written, x)
    place = _place(x, indices)
    if place is None or x.dtype != torch.float32:
        return Value(_aten.index_put.default(x.natural(), _moving(indices), values.natural(), accumulate))
    given, flat = place.values(values), place.flat
    merged = place.merged(x)
    size = merged.shape[place.at]
    if accumulate:
        return place.parted(elementwise(_aten.add.Tensor, merged, put(given, place.at, flat, size)))
    last = {position: i for i, position in enumerate(flat)}  # the last one written stays
    if len(last) < len(flat):
        given, flat = pick(given, place.at, list(last.values())), list(last)
    return place.parted(_over(merged, put(given, place.at, flat, size), place.at, flat))


def _over(x: Value, written: Value, axis: int, places: Sequence[int]) -> Value:
    """``x`` with ``written``, zero elsewhere, in ``places`` of ``axis``."""
    kept = [1.0] * x.shape[axis]
    for place in places:
        kept[place] = 0.0
    mask = Value(computed(lambda: torch.tensor(kept).reshape([-1 if a == axis else 1 for a in range(x.ndim)])))
    return elementwise(_aten.add.Tensor, elementwise(_aten.mul.Tensor, x, mask), written)


@lowers(_aten.slice_scatter.default)
def slice_scatter(
    x: Value, source: Value, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Value:
    """Replaces a write into a slice by what lies before, what is written, and what lies behind."""
    axis %= x.ndim
    size = x.shape[axis]
    begin, stop, _ = slice(start, end).indices(size)
    if step != 1:
        if x.dtype != torch.float32:
            return Value(_aten.slice_scatter.default(x.natural(), source.natural(), axis, start, end, step))
        written = slice_backward(source, x.shape, axis, begin, stop, step)
        return _over(x, written, axis, range(begin, stop, step))
    parts = [slice_tensor(x, axis, 0, begin)] if begin else []
    parts.append(source)
    if stop < size:
        parts.append(slice_tensor(x, axis, stop, size))
    return concatenate(parts, axis)


@lowers(_aten.select_scatter.default)
def select_scatter(x: Value, source: Value, axis: int, index: int) -> Value:
    """Replaces a write into one position likewise."""
    index %= x.shape[axis]
    return slice_scatter(x, unsqueeze(source, axis % x.ndim), axis, index, index + 1)


def _diagonal(shape: Sequence[int], offset: int, a: int, b: int) -> _Place:
    a, b = a % len(shape), b % len(shape)
    length = min(shape[a] + min(offset, 0), shape[b] - max(offset, 0))
    rows = torch.arange(length) - min(offset, 0)
    made = _Place.__new__(_Place)
    axes = sorted((a, b))
    pair = (rows, rows + offset) if a < b else (rows + offset, rows)
    made.__init__(shape, axes, pair)  # type: ignore[misc]
    if not made.front:  # a diagonal is the last axis of the result
        made.at, made.front = len(made.others), True
    else:
        made.at = len(made.others)
    return made


@lowers(_aten.diagonal.default)
def diagonal(x: Value, offset: int = 0, a: int = 0, b: int = 1) -> Value:
    """Replaces a diagonal by the choice of its places."""
    place = _constant_place(x.shape, offset, a, b)
    return Value(reshape(pick(place.merged(x), place.at, place.flat).natural(), *place.picked))


@lowers(_aten.diagonal_backward.default)
def diagonal_backward(grad: Value, shape: Sequence[int], offset: int, a: int, b: int) -> Value:
    """The gradient in the places of the diagonal, zero elsewhere."""
    place = _constant_place(shape, offset, a, b)
    return place.parted(put(place.values(grad), place.at, place.flat, math.prod(place.sizes)))


@lowers(_aten.diagonal_scatter.default)
def diagonal_scatter(x: Value, source: Value, offset: int = 0, a: int = 0, b: int = 1) -> Value:
    """Replaces a write into a diagonal by a sum with zeros elsewhere."""
    place = _constant_place(x.shape, offset, a, b)
    written = put(place.values(source), place.at, place.flat, math.prod(place.sizes))
    return place.parted(_over(place.merged(x), written, place.at, place.flat))


def _constant_place(shape: Sequence[int], offset: int, a: int, b: int) -> _Place:
    made: list[_Place] = []
    computed(lambda: made.append(_diagonal(shape, offset, a, b)) or torch.zeros(()))  # type: ignore[func-returns-value]
    return made[0]


@lowers(_aten.copy.default)
def copy(x: Value, source: Value, non_blocking: bool = False) -> Value:
    """Replaces a write into all of a tensor by what is written."""
    return expand(to_copy(source, dtype=x.dtype), x.shape)


@lowers(_aten.fill.Scalar)
def fill(x: Value, number: float) -> Value:
    """Replaces a tensor by a number, its broadcast left open."""
    return Value(torch.full([1] * x.ndim, number, dtype=x.dtype), None, x.shape)


@lowers(_aten.fill.Tensor)
def fill_tensor(x: Value, number: Value) -> Value:
    """Replaces a tensor by a tensor of one number."""
    return expand(to_copy(number, dtype=x.dtype), x.shape)


@lowers(_aten.as_strided.default)
def as_strided(x: Value, shape: Sequence[int], stride: Sequence[int], offset: int | None = None) -> Value:
    """Replaces a view of memory by the choice of its places."""
    places = [offset or 0]
    for size, step in zip(shape, stride, strict=True):
        places = [p + i * step for p in places for i in range(size)]
    flat = Value(reshape(x.natural(), math.prod(x.shape)))
    return Value(reshape(pick(flat, 0, places).natural(), *shape))


@lowers(_aten.as_strided_scatter.default)
def as_strided_scatter(
    x: Value, source: Value, shape: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> Value:
    """Replaces a write into a view of memory likewise."""
    places = [offset or 0]
    for size, step in zip(shape, stride, strict=True):
        places = [p + i * step for p in places for i in range(size)]
    flat = Value(reshape(x.natural(), math.prod(x.shape)))
    given = Value(reshape(expand(source, shape).natural(), len(places)))
    return Value(reshape(_over(flat, put(given, 0, places, flat.shape[0]), 0, places).natural(), *x.shape))


@lowers(_aten.repeat.default)
def repeat_axes(x: Value, times: Sequence[int]) -> Value:
    """Replaces ``repeat`` by broadcasts along axes of their own."""
    while x.ndim < len(times):
        x = unsqueeze(x, 0)
    for axis, count in enumerate(times):
        if count != 1:
            x = expand(unsqueeze(x, axis), [*x.shape[:axis], count, *x.shape[axis:]])
            shape = [*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :]]
            x = Value(reshape(x.natural(), *shape))
    return x
