"""
Convolutions, forward and backward.

Replaces ``convolution`` and ``convolution_backward``, whose portable kernels are direct loops (a CIFAR-size net takes
112 times as long per step as in torch). With weights that travel the delegate has no convolution, only products, so the
windows become rows of columns and each layer one product, or several:

- ``columns``: all windows of the micro-batch at once, kernel height x width times the size of the input;
- ``tiled``: as many samples at a time as fit a processor's cache, so that no more than that is ever unrolled;
- ``shifted``: one product per tap of what it reads, summed, a few samples at a time; nothing is unrolled, but the sums
  cost more passes.

Depthwise ones become shifted elementwise products: their columns would hold nothing to multiply. With weights that are
constants of the program, a convolution is the delegate's own, which unrolls nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .choices import choice
from .errors import Unsupported
from .images import Window, columns, dilate, fit, tap
from .kernels import dense, static_convolution
from .products import matmul, sum_rows
from .registry import lowers
from .shapes import squeeze, unsqueeze
from .values import Value, cat, computed, reshape, slice_axis

__all__ = ["TILE"]

_aten = torch.ops.aten
# Bytes of columns that a tile may have: well inside the second-level cache of a phone's core.
TILE = 1 << 20
# But no more tiles than this: each has operators of its own, which cost bytes in the program and when it runs.
# ResNet-20 at batch 16, a tile per sample and four: 1.8 and 1.1 MB of program, 50.1 and 48.2 MB of memory.
MOST_TILES = 4


def _windows(
    x: Value, w: Value, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> tuple[Window, Window]:
    stride, padding, dilation = (_pair(a) for a in (stride, padding, dilation))
    result = []
    for i in range(2):
        inputs, kernel = x.shape[2 + i], w.shape[2 + i]
        outputs = (inputs + 2 * padding[i] - dilation[i] * (kernel - 1) - 1) // stride[i] + 1
        result.append(Window(inputs, outputs, kernel, stride[i], padding[i], dilation[i]))
    return result[0], result[1]


def _pair(value: Sequence[int]) -> list[int]:
    return list(value) * 2 if len(value) == 1 else list(value)


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
    images = x.channels_last()
    if w.constant is not None and (bias is None or bias.constant is not None):
        # (out, kh, kw, in), or (1, kh, kw, c) where it is depthwise.
        order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
        filters = computed(lambda t: t.permute(order), w.constant)
        steps = _pair(stride), _pair(padding), _pair(dilation)
        result = static_convolution(images, filters, None if bias is None else bias.constant, *steps, groups)
        return Value.of_channels_last(result)
    if depthwise:
        result = _depthwise(images, _taps_first(w), rows, cols)
        return Value.of_channels_last(result if bias is None else result + bias.natural())
    added = None if bias is None else bias.natural()
    return Value.of_channels_last(_products(images, w.arranged((0, 2, 3, 1)), added, rows, cols))


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
    grad_x = grad_w = grad_bias = None
    if output_mask[2]:
        flat = reshape(g, 1, math.prod(g.shape[:3]), w.shape[0])
        grad_bias = Value(reshape(sum_rows(flat), w.shape[0]))
    if output_mask[1]:
        kernel = (rows.kernel, cols.kernel)
        if depthwise:
            per_tap = _depthwise_weight_gradient(x.channels_last(), g, rows, cols)
            grad_w = Value(reshape(per_tap, *kernel, 1, w.shape[0]), (2, 3, 1, 0))
        else:
            product = _weight_gradient(x.channels_last(), g, rows, cols)
            grad_w = Value(reshape(product, w.shape[0], *kernel, w.shape[1]), (0, 2, 3, 1))
    if output_mask[0]:
        if w.constant is not None:
            grad_x = Value.of_channels_last(_static_input_gradient(g, w, rows, cols, depthwise))
        else:
            spaced = dilate(dilate(g, 1, rows.stride), 2, cols.stride)
            back = (rows.backward(), cols.backward())
            if depthwise:
                tensor = _depthwise(spaced, _taps_first(w), *back, reverse=True)
            else:
                tensor = _products(spaced, w.arranged((1, 2, 3, 0)), None, *back, reverse=True)
            grad_x = Value.of_channels_last(tensor)
    return grad_x, grad_w, grad_bias


def _static_input_gradient(g: Tensor, w: Value, rows: Window, cols: Window, depthwise: bool) -> Tensor:
    """The convolution of the gradient with the constant filters, turned by half a circle."""
    assert w.constant is not None
    filters = computed(lambda t: t.flip(2, 3).permute(1, 2, 3, 0), w.constant)
    image = dilate(dilate(g, 1, rows.stride), 2, cols.stride)
    back = (rows.backward(), cols.backward())
    for axis, window in ((1, back[0]), (2, back[1])):
        image = fit(image, axis, window.padding, window.span)
    groups = w.shape[0] if depthwise else 1
    return static_convolution(image, filters, None, [1, 1], [0, 0], [rows.dilation, cols.dilation], groups)


def _tiles(images: Sequence[Tensor], per_sample: int) -> list[list[Tensor]]:
    """The images in groups of samples that unroll to no more than a tile, at so many elements per sample."""
    n = images[0].shape[0]
    limit = {"columns": math.inf, "tiled": TILE, "shifted": TILE // 4}[choice()]
    count = math.ceil(n / max(1, limit // (4 * per_sample)))
    if choice() == "tiled":
        count = min(count, MOST_TILES)
    size = math.ceil(n / count)
    starts = range(0, n, size)
    return [[slice_axis(i, 0, s, min(size, n - s)) for i in images] for s in starts]


def _products(
    image: Tensor, filters: Tensor, bias: Tensor | None, rows: Window, cols: Window, *, reverse: bool = False
) -> Tensor:
    """Convolve (n, h, w, c) with ``filters`` (out, kh, kw, c)."""
    out, _, _, c = filters.shape
    n = image.shape[0]
    taps = rows.kernel * cols.kernel
    if choice() == "shifted" and taps > 1:
        tiles = _tiles([image], rows.outputs * cols.outputs * (c + 2 * out))
        return cat([_shifted(tile, filters, bias, rows, cols, reverse=reverse) for (tile,) in tiles], 0)
    parts = []
    for (tile,) in _tiles([image], rows.outputs * cols.outputs * taps * c if taps > 1 else 1):
        windows = columns(tile, rows, cols, reverse)
        flat = reshape(windows, math.prod(windows.shape[:3]), taps * c)
        parts.append(dense(flat, reshape(filters, out, taps * c), bias))
    return reshape(cat(parts, 0), n, rows.outputs, cols.outputs, out)


def _shifted(
    image: Tensor, filters: Tensor, bias: Tensor | None, rows: Window, cols: Window, *, reverse: bool
) -> Tensor:
    """The same as a sum over taps of one product each."""
    out, kh, kw, c = filters.shape
    n = image.shape[0]
    image = fit(fit(image, 1, rows.padding, rows.span), 2, cols.padding, cols.span)
    total: Tensor | None = None
    for i, j in itertools.product(range(kh), range(kw)):
        at = (kh - 1 - i, kw - 1 - j) if reverse else (i, j)
        weights = reshape(slice_axis(slice_axis(filters, 1, at[0], 1), 2, at[1], 1), out, c)
        part = tap(tap(image, 1, rows, i), 2, cols, j)
        product = dense(reshape(part, math.prod(part.shape[:3]), c), weights, bias if total is None else None)
        total = product if total is None else total + product
    assert total is not None
    return reshape(total, n, rows.outputs, cols.outputs, out)


def _weight_gradient(image: Tensor, g: Tensor, rows: Window, cols: Window) -> Tensor:
    """(out, kh * kw * c): the gradient (n, h', w', out) times what each tap read."""
    out, c = g.shape[3], image.shape[3]
    taps = rows.kernel * cols.kernel
    shifted = choice() == "shifted" and taps > 1
    unrolled = c + out if shifted else taps * c if taps > 1 else 1
    total: Tensor | None = None
    for tile, tile_g in _tiles([image, g], rows.outputs * cols.outputs * unrolled):
        # The gradient is the narrower operand, so it is the one that is turned.
        turned = torch.permute_copy(reshape(tile_g, tile_g.numel() // out, out), [1, 0])
        if shifted:
            fitted = fit(fit(tile, 1, rows.padding, rows.span), 2, cols.padding, cols.span)
            parts = []
            for i, j in itertools.product(range(rows.kernel), range(cols.kernel)):
                part = tap(tap(fitted, 1, rows, i), 2, cols, j)
                parts.append(matmul(turned, reshape(part, turned.shape[1], c)))
            product = cat(parts, 1)
        else:
            product = matmul(turned, reshape(columns(tile, rows, cols), turned.shape[1], taps * c))
        total = product if total is None else total + product
    assert total is not None
    return total


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
