"""
Transposed, grouped and 3-d convolutions, as plain 2-d ones.

A transposed convolution is the input gradient of a plain one, and its gradients are that convolution and its weights'
gradient. Groups are convolutions side by side; where each channel has several filters of its own, the channels are
repeated and the layer is depthwise. A convolution over volumes is a sum of 2-d ones over the depth of the kernel, with
the depth of the volume among the samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..values import Value, computed, reshape
from .elementwise import elementwise
from .linear_maps import pick
from .products import sum_dim
from .shapes import concatenate, constant_pad, slice_backward, slice_tensor

__all__ = ["ConvolutionForms"]

_aten = torch.ops.aten
_Sizes = Sequence[int]
_Gradients = tuple[Value | None, Value | None, Value | None]


class ConvolutionForms:
    """
    The other convolutions over ``forward`` and ``backward``, the rewrites of the plain one.

    Windows are given as ATen gives them; groups of weights follow each other on their first axis.
    """

    def __init__(self, forward: Callable[..., Value], backward: Callable[..., _Gradients]) -> None:
        self._forward = forward
        self._backward = backward

    def transposed(
        self, x: Value, w: Value, bias: Value | None, stride: _Sizes, padding: _Sizes, dilation: _Sizes,
        output_padding: _Sizes, groups: int,
    ) -> Value:  # fmt: skip
        """(n, c, h, w) by weights (c, out / groups, kh, kw)."""
        axes = x.ndim - 2
        sizes = zip(x.shape[2:], w.shape[2:], *[_each(v, axes) for v in (stride, padding, dilation, output_padding)],
                    strict=True)  # fmt: skip
        spatial = [(n - 1) * s - 2 * p + d * (k - 1) + o + 1 for n, k, s, p, d, o in sizes]
        like = _of_shape([x.shape[0], w.shape[1] * groups, *spatial])
        options = (stride, padding, dilation, False, [0] * axes, groups)
        image = self._backward(x, like, w, None, *options, (True, False, False))[0]
        assert image is not None
        return image if bias is None else _with_bias(image, bias)

    def transposed_backward(
        self, grad: Value, x: Value, w: Value, stride: _Sizes, padding: _Sizes, dilation: _Sizes, groups: int,
        mask: Sequence[bool],
    ) -> _Gradients:  # fmt: skip
        """The plain convolution of the gradient, and its weights' gradient with the images exchanged."""
        options = (stride, padding, dilation, False, [0] * (x.ndim - 2), groups)
        grad_x = self._forward(grad, w, None, *options) if mask[0] else None
        grad_w = self._backward(x, grad, w, None, *options, (False, True, False))[1] if mask[1] else None
        return grad_x, grad_w, _bias_gradient(grad) if mask[2] else None

    def grouped(
        self, x: Value, w: Value, bias: Value | None, stride: _Sizes, padding: _Sizes, dilation: _Sizes, groups: int
    ) -> Value:
        """(n, c, h, w) by weights (out, c / groups, kh, kw)."""
        options = (stride, padding, dilation, False, [0, 0])
        if w.shape[1] == 1:
            return self._forward(_repeated(x, w.shape[0] // groups), w, bias, *options, w.shape[0])
        parts = [
            self._forward(_part(x, 1, i, groups), _part(w, 0, i, groups),
                          None if bias is None else _part(bias, 0, i, groups), *options, 1)
            for i in range(groups)
        ]  # fmt: skip
        return concatenate(parts, 1)

    def grouped_backward(
        self, grad: Value, x: Value, w: Value, stride: _Sizes, padding: _Sizes, dilation: _Sizes, groups: int,
        mask: Sequence[bool],
    ) -> _Gradients:  # fmt: skip
        """Each group's gradients, side by side."""
        options = (stride, padding, dilation, False, [0, 0])
        if w.shape[1] == 1:
            times = w.shape[0] // groups
            grad_x, grad_w, grad_bias = self._backward(grad, _repeated(x, times), w, None, *options, w.shape[0], mask)
            return grad_x and _summed(grad_x, groups, times), grad_w, grad_bias
        each = [
            self._backward(_part(grad, 1, i, groups), _part(x, 1, i, groups), _part(w, 0, i, groups), None,
                           *options, 1, mask)
            for i in range(groups)
        ]  # fmt: skip
        joined = [
            concatenate([part for part in parts if part is not None], axis) if wanted else None
            for parts, axis, wanted in zip(zip(*each, strict=True), (1, 0, 0), mask, strict=True)
        ]
        return joined[0], joined[1], joined[2]

    def volumes(
        self, x: Value, w: Value, bias: Value | None, stride: _Sizes, padding: _Sizes, dilation: _Sizes, groups: int
    ) -> Value:
        """(n, c, d, h, w) by weights (out, c / groups, kd, kh, kw)."""
        stride, padding, dilation = (_each(v, 3) for v in (stride, padding, dilation))
        options = (stride[1:], padding[1:], dilation[1:], False, [0, 0], groups)
        depth, slices = _slices(x, w, stride[0], padding[0], dilation[0])
        total: Value | None = None
        for k, part in enumerate(slices):
            product = self._forward(_flat(part), _tap(w, k), None, *options)
            total = product if total is None else elementwise(_aten.add.Tensor, total, product)
        assert total is not None
        result = _deep(total, x.shape[0], depth)
        return result if bias is None else _with_bias(result, bias)

    def volumes_backward(
        self, grad: Value, x: Value, w: Value, stride: _Sizes, padding: _Sizes, dilation: _Sizes, groups: int,
        mask: Sequence[bool],
    ) -> _Gradients:  # fmt: skip
        """Per tap of the kernel's depth the gradients of its 2-d convolution."""
        stride, padding, dilation = (_each(v, 3) for v in (stride, padding, dilation))
        options = (stride[1:], padding[1:], dilation[1:], False, [0, 0], groups)
        depth, slices = _slices(x, w, stride[0], padding[0], dilation[0])
        padded = [*x.shape[:2], x.shape[2] + 2 * padding[0], *x.shape[3:]]
        flat = _flat(grad)
        grad_x: Value | None = None
        taps: list[Value] = []
        for k, part in enumerate(slices):
            at_x, at_w, _ = self._backward(flat, _flat(part), _tap(w, k), None, *options, (*mask[:2], False))
            if at_w is not None:
                taps.append(Value(reshape(at_w.natural(), *w.shape[:2], 1, *w.shape[3:])))
            if at_x is not None:
                start = k * dilation[0]
                end = start + stride[0] * (depth - 1) + 1
                placed = slice_backward(_deep(at_x, x.shape[0], depth), padded, 2, start, end, stride[0])
                grad_x = placed if grad_x is None else elementwise(_aten.add.Tensor, grad_x, placed)
        if grad_x is not None and padding[0]:
            grad_x = slice_tensor(grad_x, 2, padding[0], padding[0] + x.shape[2])
        return grad_x, concatenate(taps, 2) if taps else None, _bias_gradient(grad) if mask[2] else None


def _each(value: _Sizes, axes: int) -> list[int]:
    return list(value) * axes if len(value) == 1 else list(value)


def _of_shape(shape: Sequence[int]) -> Value:
    """A tensor of which nothing but the shape is read."""
    return Value(torch.full([1] * len(shape), 0.0), None, shape)


def _with_bias(image: Value, bias: Value) -> Value:
    per_channel = Value(reshape(bias.natural(), 1, bias.shape[0], *[1] * (image.ndim - 2)))
    return elementwise(_aten.add.Tensor, image, per_channel)


def _bias_gradient(grad: Value) -> Value:
    return sum_dim(grad, [a for a in range(grad.ndim) if a != 1])


def _part(x: Value, axis: int, number: int, parts: int) -> Value:
    size = x.shape[axis] // parts
    part = slice_tensor(x, axis, number * size, (number + 1) * size)
    if x.constant is not None:
        part.constant = computed(lambda t: t.narrow(axis, number * size, size), x.constant)
    return part


def _repeated(x: Value, times: int) -> Value:
    """Every channel ``times`` times."""
    if times == 1:
        return x
    return pick(x, 1, list(itertools.chain.from_iterable([c] * times for c in range(x.shape[1]))))


def _summed(grad: Value, channels: int, times: int) -> Value:
    if times == 1:
        return grad
    n, _, h, w = grad.shape
    split = Value(reshape(grad.channels_last(), n, h, w, channels, times))
    return sum_dim(split, [4]).permuted((0, 3, 1, 2))


def _slices(x: Value, w: Value, stride: int, padding: int, dilation: int) -> tuple[int, list[Value]]:
    """The depth of the result, and what each tap of the kernel's depth reads."""
    if padding:
        x = constant_pad(x, [0, 0, 0, 0, padding, padding])
    depth = (x.shape[2] - dilation * (w.shape[2] - 1) - 1) // stride + 1
    starts = [k * dilation for k in range(w.shape[2])]
    return depth, [slice_tensor(x, 2, s, s + stride * (depth - 1) + 1, stride) for s in starts]


def _tap(w: Value, k: int) -> Value:
    out, c, _, kh, kw = w.shape
    return Value(reshape(slice_tensor(w, 2, k, k + 1).natural(), out, c, kh, kw))


def _flat(x: Value) -> Value:
    """(n, c, d, h, w) as (n * d, c, h, w), channels last."""
    n, c, d, h, w = x.shape
    return Value.of_channels_last(reshape(x.arranged((0, 2, 3, 4, 1)), n * d, h, w, c))


def _deep(x: Value, n: int, depth: int) -> Value:
    """The reverse of :func:`_flat`."""
    _, c, h, w = x.shape
    split: Any = reshape(x.channels_last(), n, depth, h, w, c)
    return Value(split, (0, 2, 3, 4, 1))
