"""
Derivatives of activations, and softmax.

Masks are ``clamp(x * 1e38, 0, 1)`` rather than comparisons: booleans and ``where`` are portable kernels, and each would end
the delegate's region. Denormal numbers below 1e-38 count as zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .elementwise import elementwise
from .products import sum_dim
from .registry import lowers
from .values import Value

__all__: list[str] = []

_aten = torch.ops.aten


def _positive(x: Tensor) -> Tensor:
    """1 where x > 0, else 0."""
    return _aten.clamp.default(_aten.mul.Tensor(x, 1e38), 0.0, 1.0)


@lowers(_aten.threshold_backward.default)
def threshold_backward(grad: Value, x: Value, threshold: float) -> Value:
    """Replaces ReLU's ``where(x > threshold, grad, 0)`` by a product with the mask."""

    def rule(g: Tensor, t: Tensor) -> Tensor:
        return _aten.mul.Tensor(g, _positive(t if threshold == 0 else _aten.sub.Tensor(t, threshold)))

    return elementwise(rule, grad, x)


@lowers(_aten.hardtanh.default)
def hardtanh(x: Value, low: float = -1.0, high: float = 1.0) -> Value:
    """Replaces ``hardtanh`` (ReLU6 is one) by a clamp."""
    return elementwise(lambda t: _aten.clamp.default(t, low, high), x)


@lowers(_aten.hardtanh_backward.default)
def hardtanh_backward(grad: Value, x: Value, low: float, high: float) -> Value:
    """The gradient passes strictly between the bounds."""

    def rule(g: Tensor, t: Tensor) -> Tensor:
        above = _positive(t if low == 0 else _aten.sub.Tensor(t, low))
        below = _positive(_aten.add.Tensor(_aten.mul.Tensor(t, -1.0), high))
        return _aten.mul.Tensor(g, _aten.mul.Tensor(above, below))

    return elementwise(rule, grad, x)


@lowers(_aten.leaky_relu.default)
def leaky_relu(x: Value, slope: float = 0.01) -> Value:
    """Replaces ``leaky_relu`` by a maximum; needs a slope of at most 1."""
    return elementwise(lambda t: _aten.maximum.default(t, _aten.mul.Tensor(t, slope)), x)


@lowers(_aten.leaky_relu_backward.default)
def leaky_relu_backward(grad: Value, x: Value, slope: float, is_result: bool) -> Value:
    """``grad * (slope + (1 - slope) * mask)``."""

    def rule(g: Tensor, t: Tensor) -> Tensor:
        return _aten.mul.Tensor(g, _aten.add.Tensor(_aten.mul.Tensor(_positive(t), 1.0 - slope), slope))

    return elementwise(rule, grad, x)


@lowers(_aten.silu.default)
def silu(x: Value) -> Value:
    """``x * sigmoid(x)``."""
    return elementwise(lambda t: _aten.mul.Tensor(t, _aten.sigmoid.default(t)), x)


@lowers(_aten.silu_backward.default)
def silu_backward(grad: Value, x: Value) -> Value:
    """``grad * s * (1 + x - x * s)`` with ``s = sigmoid(x)``."""

    def rule(g: Tensor, t: Tensor) -> Tensor:
        s = _aten.sigmoid.default(t)
        inner = _aten.add.Tensor(_aten.sub.Tensor(t, _aten.mul.Tensor(t, s)), 1.0)
        return _aten.mul.Tensor(_aten.mul.Tensor(g, s), inner)

    return elementwise(rule, grad, x)


@lowers(_aten.sigmoid_backward.default)
def sigmoid_backward(grad: Value, y: Value) -> Value:
    """``grad * (y - y * y)``."""
    return elementwise(lambda g, t: _aten.mul.Tensor(g, _aten.sub.Tensor(t, _aten.mul.Tensor(t, t))), grad, y)


@lowers(_aten.tanh_backward.default)
def tanh_backward(grad: Value, y: Value) -> Value:
    """``grad - grad * y * y``."""
    return elementwise(lambda g, t: _aten.sub.Tensor(g, _aten.mul.Tensor(g, _aten.mul.Tensor(t, t))), grad, y)


@lowers(_aten._softmax.default)
def softmax(x: Value, axis: int, half_to_float: bool) -> Value:
    """The delegate's softmax, which works on the last axis of the storage."""
    axis %= x.ndim
    order = [*(a for a in x.order if a != axis), axis]
    return Value(_aten._softmax.default(x.arranged(order), x.ndim - 1, False), order)


@lowers(_aten._softmax_backward_data.default)
def softmax_backward(grad: Value, y: Value, axis: int, dtype: torch.dtype) -> Value:
    """``y * (grad - sum(grad * y))``."""
    product = elementwise(_aten.mul.Tensor, grad, y)
    total = sum_dim(product, [axis], True)
    return elementwise(_aten.sub.Tensor, product, elementwise(_aten.mul.Tensor, y, total))


@lowers(_aten._log_softmax.default)
def log_softmax(x: Value, axis: int, half_to_float: bool) -> Value:
    """The portable kernel, on the last axis: the delegate has no maximum over an axis to make it safe with."""
    axis %= x.ndim
    order = [*(a for a in x.order if a != axis), axis]
    return Value(_aten._log_softmax.default(x.arranged(order), x.ndim - 1, False), order)


@lowers(_aten._log_softmax_backward_data.default)
def log_softmax_backward(grad: Value, y: Value, axis: int, dtype: torch.dtype) -> Value:
    """``grad - exp(y) * sum(grad)``."""
    total = sum_dim(grad, [axis], True)
    return elementwise(lambda g, t, s: _aten.sub.Tensor(g, _aten.mul.Tensor(_aten.exp.default(t), s)), grad, y, total)
