"""
Derivatives of activations, and softmax.

Masks are ``clamp(x * 1e38, 0, 1)`` rather than comparisons: booleans and ``where`` are portable kernels, and each
would end the delegate's region. Denormal numbers below 1e-38 count as zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import Unsupported
from ..registry import lowers
from ..values import Value
from .elementwise import elementwise
from .products import sum_dim

__all__: list[str] = []

_aten = torch.ops.aten
# Below any score, and finite: differences with it stay numbers where a mask is minus infinity.
_LOWEST = -3.0e38


def _positive(x: Tensor) -> Tensor:
    """1 where x > 0, else 0."""
    return torch.clamp(x * 1e38, 0.0, 1.0)


@lowers(_aten.threshold_backward.default)
def threshold_backward(grad: Value, x: Value, threshold: float) -> Value:
    """Replaces ReLU's ``where(x > threshold, grad, 0)`` by a product with the mask."""
    return elementwise(lambda g, t: g * _positive(t if threshold == 0 else t - threshold), grad, x)


@lowers(_aten.hardtanh.default)
def hardtanh(x: Value, low: float = -1.0, high: float = 1.0) -> Value:
    """Replaces ``hardtanh`` (ReLU6 is one) by a clamp."""
    return elementwise(lambda t: torch.clamp(t, low, high), x)


@lowers(_aten.hardtanh_backward.default)
def hardtanh_backward(grad: Value, x: Value, low: float, high: float) -> Value:
    """The gradient passes strictly between the bounds."""
    return elementwise(lambda g, t: _passed(g, t, low, high), grad, x)


def _passed(g: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """``g`` where low < x < high, else 0: one mask after the other, so that two are never in memory."""
    if low == -high:
        return g * _positive(torch.abs(x) * -1.0 + high)
    return g * _positive(x if low == 0 else x - low) * _positive(x * -1.0 + high)


@lowers(_aten.leaky_relu.default)
def leaky_relu(x: Value, slope: float = 0.01) -> Value:
    """
    Replaces ``leaky_relu`` by a maximum.

    Raises:
        Unsupported: if the slope is above 1.

    """
    if slope > 1:
        raise Unsupported(f"leaky_relu with the slope {slope}", "a slope of at most 1")
    return elementwise(lambda t: torch.maximum(t, t * slope), x)


@lowers(_aten.leaky_relu_backward.default)
def leaky_relu_backward(grad: Value, x: Value, slope: float, is_result: bool) -> Value:
    """``grad * (slope + (1 - slope) * mask)``."""
    return elementwise(lambda g, t: g * (_positive(t) * (1.0 - slope) + slope), grad, x)


@lowers(_aten.elu.default)
def elu(x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    """``scale * x`` above zero, ``scale * alpha * (exp(input_scale * x) - 1)`` below."""

    def rule(t: Tensor) -> Tensor:
        below = torch.exp(torch.clamp(t * input_scale, None, 0.0)) * (alpha * scale) - alpha * scale
        return torch.relu(t) * scale + below

    return elementwise(rule, x)


@lowers(_aten.elu_backward.default)
def elu_backward(grad: Value, alpha: float, scale: float, input_scale: float, is_result: bool, x: Value) -> Value:
    """``grad`` times ``scale`` above zero, ``scale * alpha * input_scale * exp(input_scale * x)`` below."""

    def rule(g: Tensor, t: Tensor) -> Tensor:
        below = t + alpha * scale if is_result else torch.exp(torch.clamp(t * input_scale, None, 0.0)) * alpha * scale
        mask = _positive(t)
        return g * (mask * scale + (mask * -1.0 + 1.0) * below * input_scale)

    return elementwise(rule, grad, x)


@lowers(_aten.silu.default)
def silu(x: Value) -> Value:
    """``x * sigmoid(x)``."""
    return elementwise(lambda t: t * torch.sigmoid(t), x)


@lowers(_aten.silu_backward.default)
def silu_backward(grad: Value, x: Value) -> Value:
    """``grad * s * (1 + x - x * s)`` with ``s = sigmoid(x)``."""

    def rule(g: Tensor, t: Tensor) -> Tensor:
        s = torch.sigmoid(t)
        return g * s * (t - t * s + 1.0)

    return elementwise(rule, grad, x)


@lowers(_aten.hardsigmoid.default)
def hardsigmoid(x: Value) -> Value:
    """``clamp(x / 6 + 1 / 2, 0, 1)``."""
    return elementwise(lambda t: torch.clamp(t * (1 / 6) + 0.5, 0.0, 1.0), x)


@lowers(_aten.hardsigmoid_backward.default)
def hardsigmoid_backward(grad: Value, x: Value) -> Value:
    """A sixth of the gradient passes strictly between -3 and 3."""
    return elementwise(lambda g, t: _passed(g, t, -3.0, 3.0) * (1 / 6), grad, x)


@lowers(_aten.hardswish.default)
def hardswish(x: Value) -> Value:
    """``x * hardsigmoid(x)``."""
    return elementwise(lambda t: t * torch.clamp(t * (1 / 6) + 0.5, 0.0, 1.0), x)


@lowers(_aten.hardswish_backward.default)
def hardswish_backward(grad: Value, x: Value) -> Value:
    """``grad * (hardsigmoid(x) + x / 6 * mask)``, the mask 1 strictly between -3 and 3."""

    def rule(g: Tensor, t: Tensor) -> Tensor:
        return g * (torch.clamp(t * (1 / 6) + 0.5, 0.0, 1.0) + _passed(t, t, -3.0, 3.0) * (1 / 6))

    return elementwise(rule, grad, x)


@lowers(_aten.gelu.default)
def gelu(x: Value, *, approximate: str = "none") -> Value:
    """The tanh form in elementary operators; the exact form as the delegate has it."""
    if approximate == "tanh":
        return elementwise(lambda t: t * 0.5 * (torch.tanh(_gelu_argument(t)) + 1.0), x)
    return elementwise(_aten.gelu.default, x)


@lowers(_aten.gelu_backward.default)
def gelu_backward(grad: Value, x: Value, *, approximate: str = "none") -> Value:
    """``grad * (cdf(x) + x * pdf(x))``, or the derivative of the tanh form."""

    def exact(g: Tensor, t: Tensor) -> Tensor:
        cdf = torch.erf(t * math.sqrt(0.5)) * 0.5 + 0.5
        pdf = torch.exp(t * t * -0.5) * (1 / math.sqrt(2 * math.pi))
        return g * (cdf + t * pdf)

    def tanh(g: Tensor, t: Tensor) -> Tensor:
        h = torch.tanh(_gelu_argument(t))
        slope = (t * t * (3 * 0.044715) + 1.0) * math.sqrt(2 / math.pi)
        return g * 0.5 * (h + 1.0 + t * slope * (h * h * -1.0 + 1.0))

    return elementwise(tanh if approximate == "tanh" else exact, grad, x)


def _gelu_argument(x: Tensor) -> Tensor:
    return (x * x * x * 0.044715 + x) * math.sqrt(2 / math.pi)


@lowers(_aten.sigmoid_backward.default)
def sigmoid_backward(grad: Value, y: Value) -> Value:
    """``grad * (y - y * y)``."""
    return elementwise(lambda g, t: g * (t - t * t), grad, y)


@lowers(_aten.tanh_backward.default)
def tanh_backward(grad: Value, y: Value) -> Value:
    """``grad - grad * y * y``."""
    return elementwise(lambda g, t: g - g * (t * t), grad, y)


@lowers(_aten._softmax.default)
def softmax(x: Value, axis: int, half_to_float: bool) -> Value:
    """The delegate's softmax, which works on the last axis of the storage."""
    axis %= x.ndim
    order = [*(a for a in x.order if a != axis), axis]
    return Value(_aten._softmax.default(x.arranged(order), x.ndim - 1, False), order)


@lowers(_aten._safe_softmax.default)
def safe_softmax(x: Value, axis: int, dtype: torch.dtype | None = None) -> Value:
    """Attention's softmax: it differs from the plain one only in rows that are masked as a whole."""
    return softmax(elementwise(lambda t: torch.clamp(t, _LOWEST, None), x), axis, False)


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
    return elementwise(lambda g, t, s: g - torch.exp(t) * s, grad, y, total)


@lowers(_aten.hardshrink.default)
def hardshrink(x: Value, width: float = 0.5) -> Value:
    """``x`` further from zero than ``width``, else 0."""
    return elementwise(lambda t: t * _outside(t, width), x)


@lowers(_aten.softshrink.default)
def softshrink(x: Value, width: float = 0.5) -> Value:
    """``x`` moved towards zero by ``width``, and no further."""
    return elementwise(lambda t: t - torch.clamp(t, -width, width), x)


@lowers(_aten.hardshrink_backward.default, _aten.softshrink_backward.default)
def shrink_backward(grad: Value, x: Value, width: float) -> Value:
    """The gradient passes further from zero than ``width``."""
    return elementwise(lambda g, t: g * _outside(t, width), grad, x)


def _outside(x: Tensor, width: float) -> Tensor:
    """1 where ``|x| > width``, else 0."""
    return _positive(torch.abs(x) - width)
