"""
Tensors that know how they lie in memory.

Mobile kernels want channels last, models speak of channels first. Instead of permuting around every
operator and cancelling the pairs afterwards, a lowered value carries its own axis order: elementwise
operators keep whatever order they find, convolutions ask for channels last, and a permutation is emitted only
where two orders really meet. Broadcasts are kept open the same way until something needs the elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

__all__ = ["Value", "cat", "computed", "numbers", "repeat", "reshape", "slice_axis"]

_aten = torch.ops.aten
# XNNPACK concatenates two to five tensors at a time.
_CAT_LIMIT = 5


def reshape(x: Tensor, *shape: int) -> Tensor:
    """``x`` with another shape; nothing is emitted where it has it already."""
    return x if tuple(x.shape) == shape else torch.view_copy(x, list(shape))


def slice_axis(x: Tensor, axis: int, start: int, length: int) -> Tensor:
    """
    ``length`` consecutive positions of ``axis``: with step 1, the only slices that XNNPACK takes.

    Args:
        x: any shape.
        axis: the axis to slice.
        start: its first position.
        length: number of positions; the size of the result on ``axis``.

    """
    if start == 0 and length == x.shape[axis]:
        return x
    return torch.slice_copy(x, axis, start, start + length)


def cat(parts: Sequence[Tensor], axis: int) -> Tensor:
    """
    Concatenate any number of tensors, a few at a time.

    Args:
        parts: of one shape but for their sizes on ``axis``.
        axis: the axis that they are joined on.

    """
    while len(parts) > 1:
        groups = math.ceil(len(parts) / _CAT_LIMIT)
        size = math.ceil(len(parts) / groups)
        chunks = [parts[i : i + size] for i in range(0, len(parts), size)]
        parts = [torch.cat(list(c), axis) if len(c) > 1 else c[0] for c in chunks]
    return parts[0]


def repeat(x: Tensor, axis: int, times: int) -> Tensor:
    """
    ``x``, of size 1 on ``axis``, ``times`` times.

    Args:
        x: any shape with size 1 on ``axis``.
        axis: the axis to repeat.
        times: the size of the result on ``axis``.

    """
    return cat([x] * times, axis)


def computed(function: Callable[..., Tensor], *constants: Tensor) -> Tensor:
    """``function(*constants)`` now, instead of in every step."""
    with _disable_current_modes():
        return function(*constants).contiguous()


def numbers(constant: Tensor) -> list[int]:
    """
    The elements of a constant of one axis.

    Args:
        constant: whole numbers, shape ``(n,)``.

    """
    with _disable_current_modes():
        return [int(i) for i in constant.tolist()]


class Value:
    """
    A tensor of logical ``shape``, stored with its axes in another order, and with open broadcasts.

    Args:
        tensor: the stored tensor, contiguous; its axis ``i`` holds the logical axis ``order[i]``.
        order: a permutation of the axes; :obj:`None` for the natural one.
        shape: the logical shape where it is larger than the stored one (size 1 there).

    """

    def __init__(self, tensor: Tensor, order: Sequence[int] | None = None, shape: Sequence[int] | None = None) -> None:
        self.tensor = tensor
        self.order = tuple(range(tensor.dim())) if order is None else tuple(order)
        if shape is None:
            stored = [0] * tensor.dim()
            for axis, size in zip(self.order, tensor.shape, strict=True):
                stored[axis] = size
            shape = stored
        self.shape = tuple(shape)
        # The numbers, where they are part of the program.
        self.constant: Tensor | None = None
        self._arranged: dict[tuple[int, ...], Tensor] = {}

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Element type."""
        return self.tensor.dtype

    def permuted(self, axes: Sequence[int]) -> Value:
        """The logical permutation, for free: only the order is noted."""
        inverse = {axis: i for i, axis in enumerate(axes)}
        return Value(self.tensor, [inverse[a] for a in self.order], [self.shape[a] for a in axes])

    def unexpanded(self, order: Sequence[int]) -> Tensor:
        """The stored tensor in ``order``, broadcasts still open; a reshape where only axes of size 1 move."""
        source = [self.order.index(axis) for axis in order]
        moving = [i for i in source if self.tensor.shape[i] != 1]
        if moving == sorted(moving):
            return reshape(self.tensor, *[self.tensor.shape[i] for i in source])
        return torch.permute_copy(self.tensor, source)

    def arranged(self, order: Sequence[int]) -> Tensor:
        """All elements, with the axes in ``order``; made once, however often it is asked for."""
        key = tuple(order)
        if key not in self._arranged:
            x = self.unexpanded(order)
            for i, axis in enumerate(order):
                if x.shape[i] != self.shape[axis]:
                    x = repeat(x, i, self.shape[axis])
            self._arranged[key] = x
        return self._arranged[key]

    def natural(self) -> Tensor:
        """All elements in the natural order."""
        return self.arranged(range(self.ndim))

    def channels_last(self) -> Tensor:
        """An image batch (n, c, h, w) as a tensor (n, h, w, c)."""
        return self.arranged((0, 2, 3, 1))

    @classmethod
    def of_channels_last(cls, tensor: Tensor) -> Value:
        """The image batch that a tensor (n, h, w, c) holds."""
        return cls(tensor, (0, 2, 3, 1))
