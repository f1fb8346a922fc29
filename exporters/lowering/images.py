"""
The windows of a convolution or a pooling, as slices of channels-last tensors.

Slices with step 1, reshapes and padding are all that XNNPACK offers, so strides are made by splitting an axis into
(position, phase). ``columns`` is the forward direction, ``spread`` the adjoint of a single tap.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .values import cat, reshape, slice_axis

__all__ = ["Window", "columns", "dilate", "fit", "spread", "tap"]

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
    """Pad ``before`` positions in front (crop where negative), and pad or crop the end to ``total`` positions."""
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


def tap(x: Tensor, axis: int, window: Window, k: int) -> Tensor:
    """What tap ``k`` of the window reads of ``x``, fitted to ``window.span`` on ``axis``."""
    start = k * window.dilation
    if window.stride == 1:
        return slice_axis(x, axis, start, window.outputs)
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    split = reshape(x, *before, window.span // window.stride, window.stride, *after)
    row = slice_axis(split, axis, start // window.stride, window.outputs)
    return reshape(slice_axis(row, axis + 1, start % window.stride, 1), *before, window.outputs, *after)


def columns(x: Tensor, rows: Window, cols: Window, reverse: bool = False) -> Tensor:
    """
    (n, h, w, c) -> (n, h', w', kernel height * kernel width * c): all windows, taps outermost.

    One axis after the other, so that the wide copies are of whole rows.
    """
    for axis, window in ((2, cols), (1, rows)):
        x = fit(x, axis, window.padding, window.span)
        taps = range(window.kernel)[::-1] if reverse else range(window.kernel)
        x = cat([tap(x, axis, window, k) for k in taps], 3)
    return x


def dilate(x: Tensor, axis: int, stride: int) -> Tensor:
    """Put ``stride - 1`` zeros behind every position of ``axis``."""
    if stride == 1:
        return x
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    split = reshape(x, *before, x.shape[axis], 1, *after)
    return reshape(fit(split, axis + 1, 0, stride), *before, x.shape[axis] * stride, *after)


def spread(x: Tensor, axis: int, window: Window, k: int) -> Tensor:
    """The adjoint of :func:`tap`: put outputs back where tap ``k`` read them, cropped to the inputs."""
    return fit(dilate(x, axis, window.stride), axis, k * window.dilation - window.padding, window.inputs)
