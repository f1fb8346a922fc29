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

import torch
from torch import Tensor

from .. import kernels
from ..errors import Unsupported
from ..kernels import crop
from ..registry import lowers
from ..values import Value, cat, reshape
from .products import mean_dim
from .windows import Taps, Window, fit, frame, spread

__all__: list[str] = []

_aten = torch.ops.aten
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
    if ceil_mode:
        raise Unsupported("pooling with ceil_mode", "ceil_mode=False, padding the input where needed")
    if x.ndim != 4:
        raise Unsupported(f"2-d pooling of a tensor with {x.ndim} axes", "an image batch (n, c, h, w)")
    kernel, padding, dilation = _pair(kernel), _pair(padding), _pair(dilation)
    stride = _pair(stride, kernel)
    result = []
    for i in range(2):
        outputs = (x.shape[2 + i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
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
    return kernels.max_pool(x.channels_last(), *([getattr(w, name) for w in (rows, cols)] for name in _FIELDS))


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
    scale = _average(rows, cols, count_include_pad, divisor_override)
    if _whole(rows, cols) and divisor_override is None:
        return mean_dim(x, [2, 3], True)
    if rows.padding == cols.padding == 0 and divisor_override is None and rows.kernel * cols.kernel > 1:
        sizes = [rows.kernel, cols.kernel], [rows.stride, cols.stride]
        return Value.of_channels_last(kernels.average_pool(x.channels_last(), *sizes))
    taps = _taps(x, rows, cols, 0.0)
    total = taps[0][2]
    for _, _, part in taps[1:]:
        total = total + part
    return Value.of_channels_last(total * scale)


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
    """Replaces adaptive pooling by plain pooling, where the windows are all equal."""
    return avg_pool(x, _equal_windows(x, outputs))


@lowers(_aten._adaptive_avg_pool2d_backward.default)
def adaptive_avg_pool_backward(grad: Value, x: Value) -> Value:
    """As :func:`avg_pool_backward`."""
    return avg_pool_backward(grad, x, _equal_windows(x, grad.shape[2:]), (), (0, 0), False, True, None)


def _whole(rows: Window, cols: Window) -> bool:
    """Whether the one window is the image."""
    return all(w.kernel == w.inputs and w.padding == 0 for w in (rows, cols))


def _equal_windows(x: Value, outputs: Sequence[int]) -> list[int]:
    if any(size % count for size, count in zip(x.shape[-2:], outputs, strict=True)):
        raise Unsupported(
            f"adaptive pooling from {x.shape[-2:]} to {tuple(outputs)}", "an output size that divides the input's"
        )
    return [size // count for size, count in zip(x.shape[-2:], outputs, strict=True)]


def _average(rows: Window, cols: Window, count_include_pad: bool, divisor: int | None) -> float:
    if not count_include_pad and (rows.padding or cols.padding):
        raise Unsupported("average pooling that leaves padding out of the count", "count_include_pad=True")
    return 1.0 / (divisor or rows.kernel * cols.kernel)
