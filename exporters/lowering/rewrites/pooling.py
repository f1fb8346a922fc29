"""
Pooling, forward and backward.

``max_pool2d_with_indices_backward`` of ExecuTorch 1.5.1 gives wrong gradients without an error, and ``avg_pool2d``
has no backward at all. Forward, both are the delegate's own operators on channels-last images; backward, slices of the
input and their adjoints. No index leaves the forward pass: the backward pass finds the first maximum of each window
again, which is how torch breaks ties. Windows that lie apart, as most do, are blocks of a reshaped image: one slice per
tap, and the gradient is put together by concatenation instead of one padded image per tap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from .. import kernels
from ..errors import Unsupported
from ..kernels import crop
from ..registry import lowers
from ..values import Value, cat, computed, reshape
from .linear_maps import along, pick, put
from .products import mean_dim
from .windows import Taps, Window, fit, frame, spread

__all__: list[str] = []

_aten = torch.ops.aten
# Kernel, stride, padding and dilation of 2-d windows.
_Fields: TypeAlias = tuple[list[int], list[int], list[int], list[int]]
# Below any activation, and finite: differences with it stay numbers.
_LOWEST = -3.0e38
_FIELDS = ("kernel", "stride", "padding", "dilation")


def _pair(value: Sequence[int], default: Sequence[int] = ()) -> list[int]:
    value = list(value) or list(default)
    return value * 2 if len(value) == 1 else value


def _windows(
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[Window, Window]:
    if x.ndim != 4:
        raise Unsupported(f"2-d pooling of a tensor with {x.ndim} axes", "an image batch (n, c, h, w)")
    kernel, padding, dilation = _pair(kernel), _pair(padding), _pair(dilation)
    stride = _pair(stride, kernel)
    result = []
    for i in range(2):
        free = x.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1
        outputs = free // stride[i] + 1
        # One more window, if it begins in the image or the padding before it.
        if ceil_mode and free % stride[i] and outputs * stride[i] < x.shape[2 + i] + padding[i]:
            outputs += 1
        result.append(Window(x.shape[2 + i], outputs, kernel[i], stride[i], padding[i], dilation[i]))
    return result[0], result[1]


def _taps(x: Value, rows: Window, cols: Window, fill: float) -> list[tuple[int, int, Tensor]]:
    image = x.channels_last()
    if _apart(rows, cols):
        return _blocks(frame(image, rows, cols), rows, cols)
    taps = Taps(image, rows, cols, fill)
    return [(i, j, taps(i, j)) for i in range(rows.kernel) for j in range(cols.kernel)]


def _apart(rows: Window, cols: Window) -> bool:
    """Whether no two windows read the same pixel, and together they read all."""
    return all(w.kernel == w.stride and w.dilation == 1 and w.padding == 0 for w in (rows, cols))


def _blocks(image: Tensor, rows: Window, cols: Window) -> list[tuple[int, int, Tensor]]:
    """Taps of windows that lie apart: one slice each, of rows and columns split into (window, place in it)."""
    n, _, _, c = image.shape
    split = reshape(image, n, rows.outputs, rows.kernel, cols.outputs, cols.kernel * c)
    sizes = [n, rows.outputs, 1, cols.outputs, c]
    return [
        (i, j, reshape(crop(split, [0, 0, i, 0, j * c], sizes), n, rows.outputs, cols.outputs, c))
        for i in range(rows.kernel)
        for j in range(cols.kernel)
    ]


def _interleaved(parts: Sequence[Tensor], rows: Window, cols: Window) -> Value:
    """The adjoint of :func:`_blocks`, taps in order: each part back in its place of every window."""
    n, _, _, c = parts[0].shape
    lines = []
    for i in range(rows.kernel):
        line = cat(parts[i * cols.kernel : (i + 1) * cols.kernel], 3)
        lines.append(reshape(line, n, rows.outputs, 1, cols.outputs * cols.kernel * c))
    image = reshape(cat(lines, 2), n, rows.outputs * rows.kernel, cols.outputs * cols.kernel, c)
    return Value.of_channels_last(fit(fit(image, 1, 0, rows.inputs), 2, 0, cols.inputs))


def _gather(parts: Sequence[tuple[int, int, Tensor]], rows: Window, cols: Window) -> Value:
    """The adjoint of :func:`_taps`: the sum of every tap's part, put back where it was read."""
    if _apart(rows, cols):
        return _interleaved([part for _, _, part in parts], rows, cols)
    total: Tensor | None = None
    for i, j, part in parts:
        placed = spread(spread(part, 1, rows, i), 2, cols, j)
        total = placed if total is None else total + placed
    assert total is not None
    return Value.of_channels_last(total)


def _maximum(x: Value, rows: Window, cols: Window) -> Tensor:
    if rows.kernel == cols.kernel == 1:
        return _taps(x, rows, cols, _LOWEST)[0][2]
    image, fields = x.channels_last(), [[getattr(w, name) for w in (rows, cols)] for name in _FIELDS]
    if _beyond(rows) or _beyond(cols):
        image = frame(image, rows, cols, _LOWEST)
        fields[2] = [0, 0]
        # The frame is rounded up to whole strides: no window of the delegate's may begin in what that adds.
        sizes = [(w.outputs - 1) * w.stride + w.reach + 1 for w in (rows, cols)]
        image = crop(image, [0, 0, 0, 0], [image.shape[0], *sizes, image.shape[3]])
    return kernels.max_pool(image, *fields)


def _beyond(window: Window) -> bool:
    """Whether the last window ends behind the padding: with ``ceil_mode``."""
    return (window.outputs - 1) * window.stride + window.reach + 1 > window.inputs + 2 * window.padding


@lowers(_aten.max_pool2d_with_indices.default)
def max_pool(
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Value, None]:
    """The delegate's own maximum, channels last."""
    rows, cols = _windows(x, kernel, stride, padding, dilation, ceil_mode)
    return Value.of_channels_last(_maximum(x, rows, cols)), None


@lowers(_aten.max_pool2d_with_indices_backward.default)
def max_pool_backward(
    grad: Value,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: object,
) -> Value:
    """The gradient goes to the first tap that equals the maximum; masks are arithmetic, not booleans."""
    rows, cols = _windows(x, kernel, stride, padding, dilation, ceil_mode)
    taps = _taps(x, rows, cols, _LOWEST)
    largest = _maximum(x, rows, cols)
    left = grad.channels_last()
    parts = []
    for i, j, part in taps[:-1]:
        below = torch.clamp((largest - part) * 1e38, 0.0, 1.0)
        rest = left * below
        parts.append((i, j, left - rest))
        left = rest
    parts.append((*taps[-1][:2], left))
    return _gather(parts, rows, cols)


@lowers(_aten.avg_pool2d.default)
def avg_pool(
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """The delegate's own mean where nothing is padded, else that of the taps; over whole images, a mean of rows."""
    rows, cols = _windows(x, kernel, stride, padding, (1, 1), ceil_mode)
    if _whole(rows, cols) and divisor_override is None:
        return mean_dim(x, [2, 3], True)
    plain = rows.padding == cols.padding == 0 and not _beyond(rows) and not _beyond(cols)
    if plain and divisor_override is None and rows.kernel * cols.kernel > 1:
        sizes = [rows.kernel, cols.kernel], [rows.stride, cols.stride]
        return Value.of_channels_last(kernels.average_pool(x.channels_last(), *sizes))
    taps = _taps(x, rows, cols, 0.0)
    total = taps[0][2]
    for _, _, part in taps[1:]:
        total = total + part
    return Value.of_channels_last(total * _average(rows, cols, count_include_pad, divisor_override))


@lowers(_aten.avg_pool2d_backward.default)
def avg_pool_backward(
    grad: Value,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Value:
    """Every tap gets an equal part of the gradient."""
    rows, cols = _windows(x, kernel, stride, padding, (1, 1), ceil_mode)
    part = grad.channels_last() * _average(rows, cols, count_include_pad, divisor_override)
    if _whole(rows, cols):
        return Value(part, (0, 2, 3, 1), x.shape)  # the same everywhere: a broadcast
    return _gather([(i, j, part) for i in range(rows.kernel) for j in range(cols.kernel)], rows, cols)


@lowers(_aten._adaptive_avg_pool2d.default)
def adaptive_avg_pool(x: Value, outputs: Sequence[int]) -> Value:
    """Replaces adaptive pooling by plain pooling where the windows are all equal, else by a product per axis."""
    equal = _equal_windows(x, outputs)
    if equal is not None:
        return avg_pool(x, equal)
    for axis, count in enumerate(outputs, 2):
        x = along(x, axis, _means(x.shape[axis], count))
    return x


@lowers(_aten._adaptive_avg_pool2d_backward.default)
def adaptive_avg_pool_backward(grad: Value, x: Value) -> Value:
    """As :func:`avg_pool_backward`, or the transposed products."""
    equal = _equal_windows(x, grad.shape[2:])
    if equal is not None:
        return avg_pool_backward(grad, x, equal, (), (0, 0), False, True, None)
    for axis in (2, 3):
        grad = along(grad, axis, computed(lambda m: m.t(), _means(x.shape[axis], grad.shape[axis])))
    return grad


@lowers(_aten.adaptive_max_pool2d.default)
def adaptive_max_pool(x: Value, outputs: Sequence[int]) -> tuple[Value, None]:
    """Replaces an adaptive maximum by a plain one, over windows laid out side by side where they are not equal."""
    spread_out, kernel = _side_by_side(x, outputs)
    return max_pool(spread_out, kernel)


@lowers(_aten.adaptive_max_pool2d_backward.default)
def adaptive_max_pool_backward(grad: Value, x: Value, indices: object) -> Value:
    """The plain maximum's gradient, added up where windows overlap."""
    spread_out, kernel = _side_by_side(x, grad.shape[2:])
    result = max_pool_backward(grad, spread_out, kernel, kernel, (0, 0), (1, 1), False, None)
    if _equal_windows(x, grad.shape[2:]) is None:
        for axis in (2, 3):
            result = put(result, axis, _positions(x.shape[axis], grad.shape[axis])[0], x.shape[axis])
    return result


def _side_by_side(x: Value, outputs: Sequence[int]) -> tuple[Value, list[int]]:
    """Images in which no two windows overlap, and the windows' size."""
    equal = _equal_windows(x, outputs)
    if equal is not None:
        return x, equal
    kernel = []
    for axis, count in enumerate(outputs, 2):
        index, size = _positions(x.shape[axis], count)
        x = pick(x, axis, index)
        kernel.append(size)
    return x, kernel


def _spans(size: int, count: int) -> list[tuple[int, int]]:
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def _positions(size: int, count: int) -> tuple[list[int], int]:
    """The positions of all windows, shorter ones filled up with their last, and how many each then has."""
    spans = _spans(size, count)
    longest = max(end - start for start, end in spans)
    return [min(start + i, end - 1) for start, end in spans for i in range(longest)], longest


def _means(size: int, count: int) -> Tensor:
    """(count, size): the mean of each window."""
    spans = _spans(size, count)
    rows = [[1.0 / (end - start) if start <= i < end else 0.0 for i in range(size)] for start, end in spans]
    return computed(lambda: torch.tensor(rows))


@lowers(_aten.max_pool3d_with_indices.default)
def max_pool_3d(
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0, 0),
    dilation: Sequence[int] = (1, 1, 1),
    ceil_mode: bool = False,
) -> tuple[Value, None]:
    """The maximum over each slice of the volume, then over the depth."""
    flat, across, down = _volume_windows(x, kernel, stride, padding, dilation)
    inner = max_pool(flat, *across, ceil_mode)[0]
    return _unfolded(max_pool(_stacked(inner, x), *down, ceil_mode)[0], inner), None


@lowers(_aten.max_pool3d_with_indices_backward.default)
def max_pool_3d_backward(
    grad: Value,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: object,
) -> Value:
    """To the first slice with the maximum, and there to the first position."""
    flat, across, down = _volume_windows(x, kernel, stride, padding, dilation)
    inner = max_pool(flat, *across, ceil_mode)[0]
    stacked = _stacked(inner, x)
    column = Value(reshape(grad.natural(), x.shape[0], x.shape[1], grad.shape[2], grad.shape[3] * grad.shape[4]))
    deep = max_pool_backward(column, stacked, *down, ceil_mode, None)
    at_inner = Value(reshape(deep.natural(), *inner.shape))
    return Value(reshape(max_pool_backward(at_inner, flat, *across, ceil_mode, None).natural(), *x.shape))


@lowers(_aten.avg_pool3d.default)
def avg_pool_3d(
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """
    The mean over each slice of the volume, then over the depth.

    Raises:
        Unsupported: if there is a divisor of its own.

    """
    if divisor_override is not None:
        raise Unsupported("3-d average pooling with divisor_override", "a factor on what comes out")
    flat, across, down = _volume_windows(x, kernel, stride, padding, (1, 1, 1))
    inner = avg_pool(flat, *across[:3], ceil_mode, count_include_pad)
    return _unfolded(avg_pool(_stacked(inner, x), *down[:3], ceil_mode, count_include_pad), inner)


@lowers(_aten.avg_pool3d_backward.default)
def avg_pool_3d_backward(
    grad: Value,
    x: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Value:
    """Equal parts over the depth, then over each slice."""
    flat, across, down = _volume_windows(x, kernel, stride, padding, (1, 1, 1))
    inner = _shape_of(flat, grad.shape[3:])
    stacked = _shape_of(x, [x.shape[2], inner.shape[2] * inner.shape[3]])
    column = Value(reshape(grad.natural(), x.shape[0], x.shape[1], grad.shape[2], grad.shape[3] * grad.shape[4]))
    deep = avg_pool_backward(column, stacked, *down[:3], ceil_mode, count_include_pad, None)
    at_inner = Value(reshape(deep.natural(), *inner.shape))
    return Value(
        reshape(avg_pool_backward(at_inner, flat, *across[:3], ceil_mode, count_include_pad, None).natural(), *x.shape)
    )


def _shape_of(like: Value, sizes: Sequence[int]) -> Value:
    """A tensor of which nothing but the shape is read."""
    return Value(torch.zeros(1, 1, 1, 1), None, [*like.shape[:2], *sizes])


def _volume_windows(
    x: Value, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[Value, _Fields, _Fields]:
    """(n, c, d, h, w) as images (n, c * d, h, w), and the windows over slices and over the depth."""
    n, c, d, h, w = x.shape
    kernel, padding, dilation = ([*v] * 3 if len(v) == 1 else [*v] for v in (kernel, padding, dilation))
    stride = kernel if not stride else [*stride] * 3 if len(stride) == 1 else [*stride]
    across = (list(kernel[1:]), list(stride[1:]), list(padding[1:]), list(dilation[1:]))
    down = ([kernel[0], 1], [stride[0], 1], [padding[0], 0], [dilation[0], 1])
    return Value(reshape(x.natural(), n, c * d, h, w)), across, down


def _stacked(inner: Value, x: Value) -> Value:
    """Pooled slices (n, c * d, h', w') as images (n, c, d, h' * w')."""
    n, c, d = x.shape[:3]
    return Value(reshape(inner.natural(), n, c, d, inner.shape[2] * inner.shape[3]))


def _unfolded(pooled: Value, inner: Value) -> Value:
    n, c, depth, _ = pooled.shape
    return Value(reshape(pooled.natural(), n, c, depth, *inner.shape[2:]))


def _whole(rows: Window, cols: Window) -> bool:
    """Whether the one window is the image."""
    return all(w.kernel == w.inputs and w.padding == 0 for w in (rows, cols))


def _equal_windows(x: Value, outputs: Sequence[int]) -> list[int] | None:
    if any(size % count for size, count in zip(x.shape[-2:], outputs, strict=True)):
        return None
    return [size // count for size, count in zip(x.shape[-2:], outputs, strict=True)]


def _average(rows: Window, cols: Window, count_include_pad: bool, divisor: int | None) -> float | Tensor:
    """What the sum of a window is multiplied by; where windows differ in what they count, (1, h', w', 1)."""
    if divisor:
        return 1.0 / divisor
    if ((rows.padding or cols.padding) and not count_include_pad) or _beyond(rows) or _beyond(cols):
        counts = [_counts(window, count_include_pad) for window in (rows, cols)]
        return computed(lambda r, c: 1.0 / (r[:, None] * c[None])[None, :, :, None], *counts)
    return 1.0 / (rows.kernel * cols.kernel)


def _counts(window: Window, count_include_pad: bool) -> Tensor:
    """Positions that each window counts along its axis."""
    first, end = (-window.padding, window.inputs + window.padding) if count_include_pad else (0, window.inputs)
    starts = [i * window.stride - window.padding for i in range(window.outputs)]
    return computed(lambda: torch.tensor([float(min(s + window.kernel, end) - max(s, first)) for s in starts]))
