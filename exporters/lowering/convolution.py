"""
Convolutions, forward and backward.

Replaces ``convolution`` and ``convolution_backward``, whose portable kernels are direct loops (a CIFAR-size net takes
112 times as long per step as in torch), by channels-last columns and one product each. Depthwise ones become
shifted elementwise products: their columns would hold nothing to multiply.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import Unsupported
from .images import Window, columns, dilate, fit, tap
from .products import matmul, sum_rows
from .registry import lowers
from .shapes import squeeze, unsqueeze
from .values import Value, cat, reshape, slice_axis

__all__: list[str] = []

_aten = torch.ops.aten


def _windows(
    x: Value, w: Value, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[Window, Window]:
    stride, padding, dilation = (list(a) * 2 if len(a) == 1 else list(a) for a in (stride, padding, dilation))
    result = []
    for i in range(2):
        inputs, kernel = x.shape[2 + i], w.shape[2 + i]
        outputs = (inputs + 2 * padding[i] - dilation[i] * (kernel - 1) - 1) // stride[i] + 1
        result.append(Window(inputs, outputs, kernel, stride[i], padding[i], dilation[i]))
    return result[0], result[1]


def _check(x: Value, w: Value, transposed: bool, groups: int) -> bool:
    """Whether the convolution is depthwise; refuses what has no rewrite."""
    if x.ndim != 4:
        raise Unsupported(f"a convolution over {x.ndim - 2} axes", "a 1-d or 2-d convolution")
    if transposed:
        raise Unsupported("a transposed convolution", "upsampling and a convolution")
    if groups == 1:
        return False
    if groups == x.shape[1] == w.shape[0]:
        return True
    raise Unsupported(f"a convolution of {groups} groups", "groups=1, or depthwise (groups == channels in and out)")


@lowers(_aten.convolution.default)
def convolution(
    x: Value,
    w: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    """Columns times weights; a 1-d convolution is one over images of height 1."""
    if x.ndim == 3:
        windows_2d = ([1, *stride], [0, *padding], [1, *dilation])
        image = convolution(unsqueeze(x, 2), unsqueeze(w, 2), bias, *windows_2d, transposed, output_padding, groups)
        return squeeze(image, 2)
    depthwise = _check(x, w, transposed, groups)
    rows, cols = _windows(x, w, stride, padding, dilation)
    n, out = x.shape[0], w.shape[0]
    if depthwise:
        result = _depthwise(x.channels_last(), _taps_first(w), rows, cols)
    else:
        windows = columns(x.channels_last(), rows, cols)
        weights = reshape(w.arranged((2, 3, 1, 0)), windows.shape[3], out)
        product = matmul(reshape(windows, n * rows.outputs * cols.outputs, windows.shape[3]), weights)
        result = reshape(product, n, rows.outputs, cols.outputs, out)
    if bias is not None:
        result = result + bias.natural()
    return Value.of_channels_last(result)


@lowers(_aten.convolution_backward.default)
def convolution_backward(
    grad: Value,
    x: Value,
    w: Value,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Value | None, Value | None, Value | None]:
    """Gradients of input, weights and bias, each only where asked for."""
    if x.ndim == 3:
        images = (unsqueeze(grad, 2), unsqueeze(x, 2), unsqueeze(w, 2))
        windows_2d = ([1, *stride], [0, *padding], [1, *dilation])
        results = convolution_backward(
            *images, bias_sizes, *windows_2d, transposed, output_padding, groups, output_mask
        )
        return results[0] and squeeze(results[0], 2), results[1] and squeeze(results[1], 2), results[2]
    depthwise = _check(x, w, transposed, groups)
    rows, cols = _windows(x, w, stride, padding, dilation)
    g = grad.channels_last()
    flat = reshape(g, g.shape[0] * rows.outputs * cols.outputs, w.shape[0])
    grad_x = grad_w = grad_bias = None
    if output_mask[0]:
        spaced = dilate(dilate(g, 1, rows.stride), 2, cols.stride)
        back = (rows.backward(), cols.backward())
        if depthwise:
            tensor = _depthwise(spaced, _taps_first(w), *back, reverse=True)
        else:
            windows = columns(spaced, *back, reverse=True)
            weights = reshape(w.arranged((2, 3, 0, 1)), windows.shape[3], w.shape[1])
            product = matmul(reshape(windows, x.shape[0] * x.shape[2] * x.shape[3], windows.shape[3]), weights)
            tensor = reshape(product, x.shape[0], x.shape[2], x.shape[3], w.shape[1])
        grad_x = Value.of_channels_last(tensor)
    if output_mask[1]:
        kernel = (rows.kernel, cols.kernel)
        if depthwise:
            per_tap = _depthwise_weight_gradient(x.channels_last(), g, rows, cols)
            grad_w = Value(reshape(per_tap, *kernel, 1, w.shape[0]), (2, 3, 1, 0))
        else:
            windows = columns(x.channels_last(), rows, cols)
            windows = reshape(windows, flat.shape[0], windows.shape[3])
            # The gradient is the narrower operand, so it is the one that is turned.
            product = matmul(torch.permute_copy(flat, [1, 0]), windows)
            grad_w = Value(reshape(product, w.shape[0], *kernel, w.shape[1]), (0, 2, 3, 1))
    if output_mask[2]:
        grad_bias = Value(reshape(sum_rows(reshape(flat, 1, *flat.shape)), w.shape[0]))
    return grad_x, grad_w, grad_bias


def _taps_first(w: Value) -> Tensor:
    """Depthwise weights (c, 1, kh, kw) -> (kh * kw, c)."""
    c, _, kh, kw = w.shape
    return reshape(w.arranged((2, 3, 1, 0)), kh * kw, c)


def _depthwise(x: Tensor, weights: Tensor, rows: Window, cols: Window, reverse: bool = False) -> Tensor:
    """Sum over taps of what the tap reads times its weights (c)."""
    x = fit(fit(x, 1, rows.padding, rows.span), 2, cols.padding, cols.span)
    total = None
    for i in range(rows.kernel):
        row = tap(x, 1, rows, i)
        for j in range(cols.kernel):
            at = i * cols.kernel + j
            at = weights.shape[0] - 1 - at if reverse else at
            term = tap(row, 2, cols, j) * slice_axis(weights, 0, at, 1)
            total = term if total is None else total + term
    assert total is not None
    return total


def _depthwise_weight_gradient(x: Tensor, g: Tensor, rows: Window, cols: Window) -> Tensor:
    """(kh * kw, c): per tap, the sum over all positions of what it read times the gradient."""
    x = fit(fit(x, 1, rows.padding, rows.span), 2, cols.padding, cols.span)
    sums = []
    for i in range(rows.kernel):
        row = tap(x, 1, rows, i)
        for j in range(cols.kernel):
            term = tap(row, 2, cols, j) * g
            sums.append(reshape(sum_rows(reshape(term, 1, g.numel() // g.shape[3], g.shape[3])), 1, g.shape[3]))
    return cat(sums, 0)
