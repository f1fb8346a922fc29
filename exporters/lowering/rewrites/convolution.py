"""
Convolutions, forward and backward.

Replaces ``convolution`` and ``convolution_backward``, whose portable kernels are direct loops (a CIFAR-size net takes
112 times as long per step as in torch). With weights that travel the delegate has no convolution, only products, so the
windows become rows of columns and each layer one product, or several:

- ``columns``: all windows of the micro-batch at once, kernel height x width times the size of the input;
- ``tiled``: as many samples at a time as fit a processor's cache, and one row of the kernel after the other: a row's
  columns are multiplied as soon as they are cut, and the products summed. ResNet-20 at batch 16 takes 41 MB instead
  of 48, and 1.33 instead of 1.58 times as long as torch eager;
- ``shifted``: one product per tap of what it reads, summed, a few samples at a time; nothing is unrolled, but the sums
  cost more passes.

Depthwise ones become shifted elementwise products: their columns would hold nothing to multiply. With weights that are
constants of the program, a convolution is the delegate's own, which unrolls nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..choices import choice, tile_bytes
from ..kernels import crop, dense, static_convolution
from ..registry import lowers
from ..values import Value, cat, computed, reshape, slice_axis
from .convolution_forms import ConvolutionForms
from .products import matmul, sum_rows
from .shapes import squeeze, unsqueeze
from .windows import Taps, Window, columns, frame, spaced, strips

__all__ = ["TILE", "tile_limit"]

_aten = torch.ops.aten
_FORWARD, _BACKWARD = _aten.convolution.default, _aten.convolution_backward.default
# Bytes that a tile may unroll: well inside the second-level cache of a phone's core.
TILE = 1 << 18
# At most this many tiles for the largest layer, proportionally fewer for others: each tile adds about 1.25 KB of
# operators, and peak memory depends on the largest layer only.
MOST_TILES = 5
# Bytes of columns from which they are made and multiplied one row of the kernel at a time, and how deep such a product
# must be at the least.
BY_ROWS = 1 << 17
LEAST_DEPTH = 16


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


def _depthwise_of(x: Value, w: Value, groups: int) -> bool:
    return 1 < groups == x.shape[1] == w.shape[0]


@lowers(_FORWARD)
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
        image = convolution(
            unsqueeze(x, 2), unsqueeze(w, 2), bias, *windows_2d, transposed, [0, *output_padding], groups
        )
        return squeeze(image, 2)
    if transposed:
        return _transposed(x, w, bias, stride, padding, dilation, output_padding, groups)
    if x.ndim == 5:
        return _volumes(x, w, bias, stride, padding, dilation, groups)
    depthwise = _depthwise_of(x, w, groups)
    if groups > 1 and not depthwise:
        return _grouped(x, w, bias, stride, padding, dilation, groups)
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


@lowers(_BACKWARD)
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
            *images, bias_sizes, *windows_2d, transposed, [0, *output_padding], groups, output_mask
        )
        return results[0] and squeeze(results[0], 2), results[1] and squeeze(results[1], 2), results[2]
    if transposed:
        return _transposed_backward(grad, x, w, stride, padding, dilation, groups, output_mask)
    if x.ndim == 5:
        return _volumes_backward(grad, x, w, stride, padding, dilation, groups, output_mask)
    depthwise = _depthwise_of(x, w, groups)
    if groups > 1 and not depthwise:
        return _grouped_backward(grad, x, w, stride, padding, dilation, groups, output_mask)
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
            apart = spaced(g, rows, cols)
            back = (rows.backward(), cols.backward())
            if depthwise:
                tensor = _depthwise(apart, _taps_first(w), *back, reverse=True)
            else:
                tensor = _products(apart, w.arranged((1, 2, 3, 0)), None, *back, reverse=True)
            grad_x = Value.of_channels_last(tensor)
    return grad_x, grad_w, grad_bias


_forms = ConvolutionForms(convolution, convolution_backward)
_transposed, _transposed_backward = _forms.transposed, _forms.transposed_backward
_grouped, _grouped_backward = _forms.grouped, _forms.grouped_backward
_volumes, _volumes_backward = _forms.volumes, _forms.volumes_backward


def _static_input_gradient(g: Tensor, w: Value, rows: Window, cols: Window, depthwise: bool) -> Tensor:
    """The convolution of the gradient with the constant filters, turned by half a circle."""
    assert w.constant is not None
    filters = computed(lambda t: t.flip(2, 3).permute(1, 2, 3, 0), w.constant)
    image = frame(spaced(g, rows, cols), rows.backward(), cols.backward())
    groups = w.shape[0] if depthwise else 1
    return static_convolution(image, filters, None, [1, 1], [0, 0], [rows.dilation, cols.dilation], groups)


def _tiles(images: Sequence[Tensor], per_sample: int) -> Iterator[list[Tensor]]:
    """
    The images in groups of samples that unroll to no more than a tile, at so many elements per sample.

    Each group is cut out when it is asked for, so that it need not be kept before.
    """
    n = images[0].shape[0]
    limit = {"columns": math.inf, "tiled": tile_bytes(), "shifted": TILE}[choice()]
    count = math.ceil(n / max(1, limit // (4 * per_sample)))
    if choice() == "tiled":
        count = min(count, MOST_TILES)
    size = math.ceil(n / count)
    for start in range(0, n, size):
        yield [slice_axis(i, 0, start, min(size, n - start)) for i in images]


def tile_limit(traced: Iterable[fx.Node]) -> int:
    """Bytes that a tile may unroll in a net of these convolutions."""
    largest = max((_held(node) for node in traced if node.target in (_FORWARD, _BACKWARD)), default=0)
    return max(TILE, largest // MOST_TILES)


def _held(node: fx.Node) -> int:
    """Bytes that a convolution unrolls, of the whole micro-batch at once."""
    tensors: Any = node.args[:2] if node.target is _FORWARD else node.args[1:3]
    result: Any = node if node.target is _FORWARD else node.args[0]
    if not all("val" in n.meta for n in (*tensors, result)):
        return 0  # of chosen channels: narrower than what they are chosen from
    x, w, outputs = (n.meta["val"].shape for n in (*tensors, result))
    height, width = (1, *w[2:])[-2:]
    if w[1] != x[1] or height * width == 1:
        return 0  # depthwise, or a product as it is
    elements = max(math.prod(outputs[2:]) * w[1], math.prod(x[2:]) * w[0])
    return int(4 * x[0] * elements * (2 * width if height > 1 else width))


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
    by_rows = _by_rows(image, rows, cols)
    parts = []
    for (tile,) in _tiles([image], rows.outputs * cols.outputs * _unrolled(by_rows, rows, cols, c)):
        if by_rows:
            parts.append(_summed(tile, filters, bias, rows, cols, reverse=reverse))
            continue
        windows = columns(tile, rows, cols, reverse)
        flat = reshape(windows, math.prod(windows.shape[:3]), taps * c)
        parts.append(dense(flat, reshape(filters, out, taps * c), bias))
    return reshape(cat(parts, 0), n, rows.outputs, cols.outputs, out)


def _by_rows(images: Tensor, rows: Window, cols: Window) -> bool:
    """Whether the columns are so many that they are made, and multiplied, one row of the kernel at a time."""
    n, _, _, c = images.shape
    unrolled = 4 * n * rows.outputs * cols.outputs * rows.kernel * cols.kernel * c
    return choice() == "tiled" and rows.kernel > 1 and cols.kernel * c >= LEAST_DEPTH and unrolled > BY_ROWS


def _unrolled(by_rows: bool, rows: Window, cols: Window, c: int) -> int:
    """Elements that are unrolled at a time, per position: by rows, those of all rows before they are cut, and one's."""
    if by_rows:
        return 2 * cols.kernel * c
    return rows.kernel * cols.kernel * c if rows.kernel * cols.kernel > 1 else 1


def _summed(tile: Tensor, filters: Tensor, bias: Tensor | None, rows: Window, cols: Window, *, reverse: bool) -> Tensor:
    """A tile's product as a sum over the rows of the kernel."""
    out, _, width, c = filters.shape
    total: Tensor | None = None
    for i, strip in enumerate(strips(tile, rows, cols, reverse)):
        weights = reshape(slice_axis(filters, 1, i, 1), out, width * c)
        flat = reshape(strip, math.prod(strip.shape[:3]), width * c)
        product = dense(flat, weights, bias if total is None else None)
        total = product if total is None else total + product
    assert total is not None
    return total


def _shifted(
    image: Tensor, filters: Tensor, bias: Tensor | None, rows: Window, cols: Window, *, reverse: bool
) -> Tensor:
    """The same as a sum over taps of one product each."""
    out, kh, kw, c = filters.shape
    n = image.shape[0]
    taps = Taps(image, rows, cols)
    total: Tensor | None = None
    for i, j in itertools.product(range(kh), range(kw)):
        at = (kh - 1 - i, kw - 1 - j) if reverse else (i, j)
        weights = reshape(crop(filters, [0, *at, 0], [out, 1, 1, c]), out, c)
        part = taps(i, j)
        product = dense(reshape(part, math.prod(part.shape[:3]), c), weights, bias if total is None else None)
        total = product if total is None else total + product
    assert total is not None
    return reshape(total, n, rows.outputs, cols.outputs, out)


def _weight_gradient(image: Tensor, g: Tensor, rows: Window, cols: Window) -> Tensor:
    """(out, kh * kw * c): the gradient (n, h', w', out) times what each tap read."""
    out, c = g.shape[3], image.shape[3]
    taps = rows.kernel * cols.kernel
    shifted, by_rows = choice() == "shifted" and taps > 1, _by_rows(image, rows, cols)
    unrolled = c + out if shifted else _unrolled(by_rows, rows, cols, c)
    total: Tensor | None = None
    for tile, tile_g in _tiles([image, g], rows.outputs * cols.outputs * unrolled):
        # The gradient is the narrower operand, so it is the one that is turned.
        turned = torch.permute_copy(reshape(tile_g, tile_g.numel() // out, out), [1, 0])
        if shifted:
            cut = Taps(tile, rows, cols)
            each = (cut(i, j) for i, j in itertools.product(range(rows.kernel), range(cols.kernel)))
            product = cat([matmul(turned, reshape(part, turned.shape[1], c)) for part in each], 1)
        elif by_rows:
            flat = (reshape(strip, turned.shape[1], cols.kernel * c) for strip in strips(tile, rows, cols))
            product = cat([matmul(turned, strip) for strip in flat], 1)
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
    taps = Taps(x, rows, cols)
    total = None
    for at, (i, j) in enumerate(itertools.product(range(rows.kernel), range(cols.kernel))):
        term = taps(i, j) * slice_axis(weights, 0, weights.shape[0] - 1 - at if reverse else at, 1)
        total = term if total is None else total + term
    assert total is not None
    return total


def _depthwise_weight_gradient(x: Tensor, g: Tensor, rows: Window, cols: Window) -> Tensor:
    """(kh * kw, c): per tap, the sum over all positions of what it read times the gradient."""
    c = g.shape[3]
    taps = Taps(x, rows, cols)
    each = (taps(i, j) * g for i, j in itertools.product(range(rows.kernel), range(cols.kernel)))
    return cat([reshape(sum_rows(reshape(term, 1, g.numel() // c, c)), 1, c) for term in each], 0)
