"""
Operators that stay as they are, on ExecuTorch's portable kernels.

These work (each program is verified all the same) but run one element at a time and end the delegate's
region, so they are for small tensors: targets, predictions, indices.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from ..registry import lowers
from ..values import Value, reshape
from .elementwise import elementwise, to_copy

__all__: list[str] = []

_aten = torch.ops.aten
# Whole tensors in their natural order.
_KEPT = (
    _aten.any.dim,
    _aten.any.dims,
    _aten.arange.default,
    _aten.arange.start,
    _aten.arange.start_step,
    _aten.gather.default,
    _aten.masked_scatter.default,
    _aten.scatter.src,
    _aten.scatter.value,
    _aten.scatter_add.default,
    _aten.tril.default,
)
# Element by element, in whatever order the operands have.
_ELEMENTWISE = (
    _aten.acos.default,
    _aten.acosh.default,
    _aten.asin.default,
    _aten.asinh.default,
    _aten.atan.default,
    _aten.atan2.default,
    _aten.atanh.default,
    _aten.bitwise_and.Scalar,
    _aten.bitwise_and.Tensor,
    _aten.bitwise_left_shift.Tensor,
    _aten.bitwise_left_shift.Tensor_Scalar,
    _aten.bitwise_not.default,
    _aten.bitwise_or.Scalar,
    _aten.bitwise_or.Tensor,
    _aten.bitwise_right_shift.Tensor,
    _aten.bitwise_right_shift.Tensor_Scalar,
    _aten.bitwise_xor.Scalar,
    _aten.bitwise_xor.Tensor,
    _aten.ceil.default,
    _aten.clamp.Tensor,
    _aten.cosh.default,
    _aten.expm1.default,
    _aten.floor.default,
    _aten.fmod.Scalar,
    _aten.fmod.Tensor,
    _aten.isinf.default,
    _aten.isnan.default,
    _aten.log10.default,
    _aten.log1p.default,
    _aten.log2.default,
    _aten.logical_xor.default,
    _aten.pow.Scalar,
    _aten.pow.Tensor_Tensor,
    _aten.remainder.Scalar,
    _aten.remainder.Tensor,
    _aten.round.default,
    _aten.sign.default,
    _aten.sinh.default,
    _aten.tan.default,
    _aten.trunc.default,
)


def _natural(argument: Any) -> Any:
    if isinstance(argument, Value):
        return argument.natural()
    return [_natural(a) for a in argument] if isinstance(argument, list | tuple) else argument


def _keep(operator: torch._ops.OpOverload, *arguments: Any, **options: Any) -> Value:
    kept = {k: v for k, v in options.items() if k not in ("device", "layout", "pin_memory")}
    return Value(operator(*[_natural(a) for a in arguments], **kept))


for _operator in _KEPT:
    lowers(_operator)(functools.partial(_keep, _operator))
for _operator in _ELEMENTWISE:
    lowers(_operator)(functools.partial(elementwise, _operator))


@lowers(_aten.div.Tensor_mode, _aten.div.Scalar_mode)
def div_mode(x: Value, other: Value | float, *, rounding_mode: str | None = None) -> Value:
    """A division, then ``floor`` or ``trunc``; whole numbers stay so."""
    quotient = elementwise(_aten.div.Tensor, x, other)
    if rounding_mode is None:
        return quotient
    rounded = elementwise(_aten.floor.default if rounding_mode == "floor" else _aten.trunc.default, quotient)
    whole = not x.dtype.is_floating_point and not (isinstance(other, float) or _is_float(other))
    return to_copy(rounded, dtype=torch.int64) if whole else rounded


def _is_float(value: object) -> bool:
    return isinstance(value, Value) and value.dtype.is_floating_point


@lowers(_aten.floor_divide.default)
def floor_divide(x: Value, other: Value | float) -> Value:
    """As :func:`div_mode`."""
    return div_mode(x, other, rounding_mode="floor")


@lowers(_aten.triu.default)
def triu(x: Value, diagonal: int = 0) -> Value:
    """What ``tril`` leaves out."""
    lower = Value(_aten.tril.default(x.natural(), diagonal - 1))
    return elementwise(_aten.sub.Tensor, x, lower)


@lowers(_aten.exp2.default)
def exp2(x: Value) -> Value:
    """``exp(x * log(2))``, which the delegate has."""
    return elementwise(lambda t: torch.exp(t * math.log(2)), x)


@lowers(_aten.erfc.default)
def erfc(x: Value) -> Value:
    """``1 - erf(x)``."""
    return elementwise(lambda t: torch.erf(t) * -1.0 + 1.0, x)


@lowers(_aten.any.default)
def any_of_all(x: Value) -> Value:
    """The portable kernel over one axis."""
    return _keep(_aten.any.dim, _flat(x), 0, False)


@lowers(_aten.argmax.default)
def argmax(x: Value, axis: int | None = None, keepdim: bool = False) -> Value:
    """The portable kernel, which does not know booleans."""
    return _place_of(_aten.argmax.default, x, axis, keepdim)


@lowers(_aten.argmin.default)
def argmin(x: Value, axis: int | None = None, keepdim: bool = False) -> Value:
    """As :func:`argmax`."""
    return _place_of(_aten.argmin.default, x, axis, keepdim)


def _place_of(operator: torch._ops.OpOverload, x: Value, axis: int | None, keepdim: bool) -> Value:
    numbered = to_copy(x, dtype=torch.int64) if x.dtype == torch.bool else x
    if axis is not None:
        return _keep(operator, numbered, axis, keepdim)
    place = _keep(operator, _flat(numbered), 0, False)
    return Value(reshape(place.natural(), *[1] * x.ndim)) if keepdim else place


def _flat(x: Value) -> Value:
    return Value(reshape(x.natural(), math.prod(x.shape)))


@lowers(_aten.hypot.default)
def hypot(a: Value, b: Value) -> Value:
    """``sqrt(a * a + b * b)``."""
    return elementwise(lambda s, t: torch.sqrt(s * s + t * t), a, b)


@lowers(_aten.sinc.default)
def sinc(x: Value) -> Value:
    """``sin(pi x) / (pi x)``, and 1 at zero."""

    def rule(t: torch.Tensor) -> torch.Tensor:
        apart = torch.clamp(torch.abs(t) * 1e38, 0.0, 1.0)
        scaled = t * math.pi + (apart * -1.0 + 1.0)
        return torch.sin(t * math.pi) / scaled * apart + (apart * -1.0 + 1.0)

    return elementwise(rule, x)


@lowers(_aten.new_empty_strided.default)
def new_empty_strided(x: Value, shape: Any, stride: Any, *, dtype: torch.dtype | None = None, **options: Any) -> Value:
    """Zeros: what is not written yet is written before it is read."""
    return zeros(shape, dtype=dtype or x.dtype)


@lowers(_aten.empty.memory_format, _aten.new_empty.default)
def empty(*arguments: Any, dtype: torch.dtype | None = None, **options: Any) -> Value:
    """Zeros: what is not written yet is written before it is read."""
    return zeros(*arguments, dtype=dtype)


@lowers(_aten.empty_like.default)
def empty_like(x: Value, dtype: torch.dtype | None = None, **options: Any) -> Value:
    """Zeros likewise."""
    return zeros_like(x, dtype)


@lowers(_aten.empty_permuted.default)
def empty_permuted(shape: Any, order: Any, *, dtype: torch.dtype | None = None, **options: Any) -> Value:
    """Zeros likewise."""
    return zeros(shape, dtype=dtype)


@lowers(_aten.full.default, _aten.new_full.default)
def full(*arguments: Any, dtype: torch.dtype | None = None, **options: Any) -> Value:
    """A constant, with its broadcast left open."""
    like = arguments[0] if isinstance(arguments[0], Value) else None
    shape, number = arguments[-2:]
    return _constant(shape, number, dtype or (like.dtype if like else None))


@lowers(_aten.full_like.default)
def full_like(x: Value, number: float, dtype: torch.dtype | None = None, **options: Any) -> Value:
    """A constant of another tensor's shape."""
    return _constant(x.shape, number, dtype or x.dtype)


@lowers(_aten.ones_like.default)
def ones_like(x: Value, dtype: torch.dtype | None = None, **options: Any) -> Value:
    """Ones of another tensor's shape."""
    return _constant(x.shape, 1, dtype or x.dtype)


@lowers(_aten.zeros_like.default)
def zeros_like(x: Value, dtype: torch.dtype | None = None, **options: Any) -> Value:
    """Zeros of another tensor's shape."""
    return _constant(x.shape, 0, dtype or x.dtype)


@lowers(_aten.scalar_tensor.default)
def scalar_tensor(number: float, dtype: torch.dtype | None = None, **options: Any) -> Value:
    """A constant without axes."""
    return _constant((), number, dtype)


@lowers(_aten.zeros.default, _aten.new_zeros.default)
def zeros(*arguments: Any, dtype: torch.dtype | None = None, **options: Any) -> Value:
    """Zeros of a shape: float32 where nothing else is said, unlike ``full`` of a whole number."""
    like = arguments[0] if isinstance(arguments[0], Value) else None
    return _constant(arguments[-1], 0, dtype or (like.dtype if like else torch.float32))


def _constant(shape: Any, number: float, dtype: torch.dtype | None) -> Value:
    return Value(torch.full([1] * len(shape), number, dtype=dtype), None, shape)
