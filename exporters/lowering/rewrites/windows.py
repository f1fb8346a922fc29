"""
The windows of a convolution or a pooling, as slices of channels-last tensors.

Slices with step 1, reshapes and padding are all that XNNPACK offers, so strides are made by splitting an axis into
(position, phase). ``Taps`` and ``columns`` are the forward direction, ``spread`` the adjoint of one tap along one axis.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from ..kernels import crop
from ..values import cat, reshape, slice_axis

__all__ = ["Taps", "Window", "columns", "dilate", "fit", "frame", "spaced", "spread", "strips", "tap"]

_aten = torch.ops.aten


@dataclasses.dataclass(frozen=True)
class Window:
    """Geometry along one axis: how ``inputs`` positions become ``outputs``."""

    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    @property
    def reach(self) -> int:
        """Distance of the last tap from the first."""
        return self.dilation * (self.kernel - 1)

    @property
    def span(self) -> int:
        """Positions of the padded axis that the taps read, rounded up to whole strides."""
        return (self.outputs + self.reach // self.stride) * self.stride

    def backward(self) -> Window:
        """The stride-1 window that maps dilated output gradients to the input's; taps in reverse order."""
        return Window(self.outputs * self.stride, self.inputs, self.kernel, 1, self.reach - self.padding, self.dilation)


def fit(x: Tensor, axis: int, before: int, total: int, value: float = 0.0) -> Tensor:
    """
    Pad ``before`` positions in front (crop where negative), and pad or crop the end to ``total`` positions.

    Args:
        x: any shape.
        axis: the axis to fit.
        before: positions in front.
        total: positions of the result on ``axis``.
        value: what is padded with.

    Returns:
        The shape of ``x``, but for ``total`` on ``axis``.

    """
    if before < 0:
        x = slice_axis(x, axis, -before, x.shape[axis] + before)
        before = 0
    after = total - before - x.shape[axis]
    if after < 0:
        x = slice_axis(x, axis, 0, x.shape[axis] + after)
        after = 0
    if before == after == 0:
        return x
    widths = [0, 0] * (x.dim() - 1 - axis) + [before, after]
    return torch.constant_pad_nd(x, widths, value)


def frame(x: Tensor, rows: Window, cols: Window, fill: float = 0.0) -> Tensor:
    """
    Images (n, h, w, c) fitted to the windows' spans on both axes: padded in one copy, where they are not cropped.

    Args:
        x: images, shape ``(n, h, w, c)``.
        rows: the window along the height.
        cols: the window along the width.
        fill: what is padded with.

    Returns:
        Shape ``(n, rows.span, cols.span, c)``.

    """
    windows = (rows, cols)
    missing = [w.span - w.padding - x.shape[axis] for axis, w in enumerate(windows, 1)]
    if min(rows.padding, cols.padding, *missing) < 0:
        return fit(fit(x, 1, rows.padding, rows.span, fill), 2, cols.padding, cols.span, fill)
    if rows.padding == cols.padding == max(missing) == 0:
        return x
    return torch.constant_pad_nd(x, [0, 0, cols.padding, missing[1], rows.padding, missing[0]], fill)


def tap(x: Tensor, axis: int, window: Window, k: int) -> Tensor:
    """
    What tap ``k`` of the window reads of ``x``, fitted to ``window.span`` on ``axis``.

    Args:
        x: ``window.span`` positions on ``axis``.
        axis: the axis that the window moves along.
        window: its geometry.
        k: the tap, from 0 to ``window.kernel - 1``.

    Returns:
        The shape of ``x``, but for ``window.outputs`` on ``axis``.

    """
    start = k * window.dilation
    if window.stride == 1:
        return slice_axis(x, axis, start, window.outputs)
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    split = reshape(x, *before, window.span // window.stride, window.stride, *after)
    row = slice_axis(split, axis, start // window.stride, window.outputs)
    return reshape(slice_axis(row, axis + 1, start % window.stride, 1), *before, window.outputs, *after)


class Taps:
    """
    What the taps of a kernel read of images (n, h, w, c), each cut out of the padded images in one copy.

    With strides, positions are split into (position, phase) once, for all taps.
    """

    def __init__(self, x: Tensor, rows: Window, cols: Window, fill: float = 0.0) -> None:
        self._windows = rows, cols
        x = frame(x, rows, cols, fill)
        split = [[w.span] if w.stride == 1 else [w.span // w.stride, w.stride] for w in self._windows]
        self._images = reshape(x, x.shape[0], *split[0], *split[1], x.shape[3])

    def __call__(self, i: int, j: int) -> Tensor:
        """(n, h', w', c): what the tap in row ``i`` and column ``j`` of the kernel reads."""
        n, c = self._images.shape[0], self._images.shape[-1]
        starts, sizes = [0], [n]
        for window, k in zip(self._windows, (i, j), strict=True):
            position, phase = divmod(k * window.dilation, window.stride)
            starts += [position] if window.stride == 1 else [position, phase]
            sizes += [window.outputs] if window.stride == 1 else [window.outputs, 1]
        part = crop(self._images, [*starts, 0], [*sizes, c])
        return reshape(part, n, *(window.outputs for window in self._windows), c)


def columns(x: Tensor, rows: Window, cols: Window, reverse: bool = False) -> Tensor:
    """
    (n, h, w, c) -> (n, h', w', kernel height * kernel width * c): all windows, taps outermost.

    Args:
        x: images, shape ``(n, h, w, c)``.
        rows: the window along the height.
        cols: the window along the width.
        reverse: take the taps in reverse order.

    """
    return cat(list(strips(x, rows, cols, reverse)), 3)


def strips(x: Tensor, rows: Window, cols: Window, reverse: bool = False) -> Iterator[Tensor]:
    """
    The same, (n, h', w', kernel width * c) per row of the kernel, each made when it is asked for.

    One axis after the other, so that the wide copies are of whole rows.

    Args:
        x: images, shape ``(n, h, w, c)``.
        rows: the window along the height.
        cols: the window along the width.
        reverse: take the taps in reverse order.

    """
    step = -1 if reverse else 1
    across = Taps(x, Window(x.shape[1], x.shape[1], 1), cols)
    wide = cat([across(0, j) for j in range(cols.kernel)[::step]], 3)
    down = Taps(wide, rows, Window(cols.outputs, cols.outputs, 1))
    for i in range(rows.kernel)[::step]:
        yield down(i, 0)


def dilate(x: Tensor, axis: int, stride: int) -> Tensor:
    """
    Put ``stride - 1`` zeros behind every position of ``axis``.

    Args:
        x: any shape.
        axis: the axis to spread.
        stride: distance of the positions afterwards.

    Returns:
        The shape of ``x``, but for ``stride`` times as many positions on ``axis``.

    """
    if stride == 1:
        return x
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    split = reshape(x, *before, x.shape[axis], 1, *after)
    return reshape(fit(split, axis + 1, 0, stride), *before, x.shape[axis] * stride, *after)


def spaced(x: Tensor, rows: Window, cols: Window) -> Tensor:
    """
    Images (n, h', w', c) of outputs with zeros between them, as far apart as the windows are: in one copy.

    Args:
        x: outputs, shape ``(n, h, w, c)``.
        rows: the window along the height.
        cols: the window along the width.

    Returns:
        Shape ``(n, h * rows.stride, w * cols.stride, c)``.

    """
    if rows.stride == cols.stride == 1:
        return x
    n, h, w, c = x.shape
    apart = torch.constant_pad_nd(reshape(x, n, h, 1, w, 1, c), [0, 0, 0, cols.stride - 1, 0, 0, 0, rows.stride - 1])
    return reshape(apart, n, h * rows.stride, w * cols.stride, c)


def spread(x: Tensor, axis: int, window: Window, k: int) -> Tensor:
    """
    The adjoint of :func:`tap`: put outputs back where tap ``k`` read them, cropped to the inputs.

    Args:
        x: ``window.outputs`` positions on ``axis``.
        axis: the axis that the window moves along.
        window: its geometry.
        k: the tap.

    Returns:
        The shape of ``x``, but for ``window.inputs`` on ``axis``.

    """
    return fit(dilate(x, axis, window.stride), axis, k * window.dilation - window.padding, window.inputs)
