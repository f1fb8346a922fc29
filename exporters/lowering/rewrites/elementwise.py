"""
Elementwise arithmetic: kept as it is, in whatever axis order the operands have.

The operators are XNNPACK's own; what is added is that operands meet in one order and broadcasts stay open, so a
chain of them between two convolutions is one region without a permutation in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..registry import lowers
from ..values import Value, reshape

__all__ = ["elementwise"]

_aten = torch.ops.aten


def elementwise(function: Callable[..., Tensor], *operands: Any) -> Value:
    """Apply ``function`` to operands (values or numbers) aligned to the largest value's axis order."""
    values = [v for v in operands if isinstance(v, Value)]
    shape = tuple(torch.broadcast_shapes(*[v.shape for v in values]))  # type: ignore[no-untyped-call]
    if not shape:  # a delegate has no tensors without axes
        lifted = [Value(reshape(v.tensor, 1)) if isinstance(v, Value) else v for v in operands]
        return Value(reshape(elementwise(function, *lifted).natural()))
    leader = max(values, key=lambda v: (v.ndim == len(shape), v.tensor.numel()))
    order = leader.order if leader.ndim == len(shape) else tuple(range(len(shape)))
    aligned = [_aligned(v, order) if isinstance(v, Value) else v for v in operands]
    return Value(function(*aligned), order, shape)


def _aligned(value: Value, order: tuple[int, ...]) -> Tensor:
    missing = len(order) - value.ndim
    if missing == 0:
        return value.unexpanded(order)
    stored = value.unexpanded(range(value.ndim))
    grown = torch.view_copy(stored, [1] * missing + list(stored.shape))
    return Value(grown).unexpanded(order)


# Replaced by themselves, on aligned operands.
_KEPT = (
    _aten.neg.default,
    _aten.exp.default,
    _aten.log.default,
    _aten.sqrt.default,
    _aten.rsqrt.default,
    _aten.abs.default,
    _aten.sigmoid.default,
    _aten.tanh.default,
    _aten.relu.default,
    _aten.maximum.default,
    _aten.minimum.default,
    _aten.mul.Tensor,
    _aten.div.Tensor,
    _aten.erf.default,
    _aten.sin.default,
    _aten.cos.default,
    _aten.clamp.default,
    _aten.pow.Tensor_Scalar,
    _aten.eq.Tensor,
    _aten.ne.Tensor,
    _aten.lt.Tensor,
    _aten.le.Tensor,
    _aten.gt.Tensor,
    _aten.ge.Tensor,
    _aten.eq.Scalar,
    _aten.ne.Scalar,
    _aten.lt.Scalar,
    _aten.le.Scalar,
    _aten.gt.Scalar,
    _aten.ge.Scalar,
    _aten.where.self,
    _aten.logical_and.default,
    _aten.logical_or.default,
    _aten.logical_not.default,
)
for _operator in _KEPT:
    lowers(_operator)(functools.partial(elementwise, _operator))


@lowers(_aten._to_copy.default)
def to_copy(x: Value, **options: Any) -> Value:
    """A change of dtype; memory format and device are the program's own business."""
    dtype = options.get("dtype") or x.dtype
    return x if dtype == x.dtype else elementwise(lambda t: _aten._to_copy.default(t, dtype=dtype), x)


@lowers(_aten.reciprocal.default)
def reciprocal(x: Value) -> Value:
    """Replaces ``reciprocal``, which the delegate lacks, by a division."""
    return elementwise(lambda t: torch.ones(()) / t, x)


@lowers(_aten.mul.Scalar)
def mul_scalar(x: Value, number: float) -> Value:
    """Replaces the scalar form, which the delegate does not know, by the tensor form."""
    return elementwise(_aten.mul.Tensor, x, number)


@lowers(_aten.div.Scalar)
def div_scalar(x: Value, number: float) -> Value:
    """Replaces a division by a number, as above."""
    return elementwise(_aten.div.Tensor, x, number)


@lowers(_aten.add.Tensor, _aten.add.Scalar)
def add(x: Value, other: Value | float, alpha: float = 1) -> Value:
    """Replaces ``x + alpha * other`` by a plain sum: the delegate has no ``alpha``."""
    return elementwise(_aten.add.Tensor, x, _scaled(other, alpha))


@lowers(_aten.sub.Tensor, _aten.sub.Scalar)
def sub(x: Value, other: Value | float, alpha: float = 1) -> Value:
    """Replaces ``x - alpha * other`` by a plain difference."""
    return elementwise(_aten.sub.Tensor, x, _scaled(other, alpha))


@lowers(_aten.rsub.Scalar, _aten.rsub.Tensor)
def rsub(x: Value, other: Value | float, alpha: float = 1) -> Value:
    """Replaces ``other - alpha * x`` by ``-alpha * x + other``."""
    return elementwise(_aten.add.Tensor, _scaled(x, -alpha), other)


def _scaled(value: Any, factor: float) -> Any:
    if factor == 1:
        return value
    return elementwise(_aten.mul.Tensor, value, factor) if isinstance(value, Value) else value * factor
