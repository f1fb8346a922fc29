"""
Operators that stay as they are, on ExecuTorch's portable kernels.

These work (each program is verified all the same) but run one element at a time and end the delegate's
region, so they are for small tensors: targets, predictions, indices.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from ..registry import lowers
from ..values import Value

__all__: list[str] = []

_aten = torch.ops.aten
_KEPT = (
    _aten.amax.default,
    _aten.amin.default,
    _aten.argmax.default,
    _aten.argmin.default,
    _aten.arange.default,
    _aten.arange.start,
    _aten.arange.start_step,
    _aten.bitwise_and.Tensor,
    _aten.bitwise_not.default,
    _aten.bitwise_or.Tensor,
    _aten.cumsum.default,
    _aten.floor.default,
    _aten.gather.default,
    _aten.isnan.default,
    _aten.log1p.default,
    _aten.round.default,
    _aten.scatter_add.default,
    _aten.sign.default,
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
    """Zeros of a shape."""
    like = arguments[0] if isinstance(arguments[0], Value) else None
    return _constant(arguments[-1], 0, dtype or (like.dtype if like else None))


def _constant(shape: Any, number: float, dtype: torch.dtype | None) -> Value:
    return Value(torch.full([1] * len(shape), number, dtype=dtype), None, shape)
