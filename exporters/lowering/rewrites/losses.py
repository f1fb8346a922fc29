"""
Losses over class indices.

``nll_loss`` has no kernel in ExecuTorch, and its decomposition gathers and scatters one element at a time. Both
directions become products with a one-hot matrix, made by comparing the targets with the class numbers.
"""

from __future__ import annotations

import torch

from ..errors import Unsupported
from ..registry import lowers
from ..values import Value, reshape
from .elementwise import elementwise
from .products import sum_dim

__all__: list[str] = []

_aten = torch.ops.aten
_REDUCTION_NONE = 0


def _one_hot(target: Value, classes: int) -> Value:
    """int64 (n,) -> float32 (n, classes); an index outside the classes gives zeros, as ``ignore_index`` asks."""
    index = reshape(target.natural(), target.shape[0], 1)
    equal = _aten.eq.Tensor(index, torch.arange(classes).reshape(1, classes))
    return Value(_aten._to_copy.default(equal, dtype=torch.float32))


def _check(x: Value, weight: Value | None, reduction: int, ignore_index: int) -> None:
    if x.ndim != 2 or weight is not None or reduction != _REDUCTION_NONE or ignore_index >= 0:
        raise Unsupported(
            "nll_loss with class weights, a reduction, an ignored class or more than two axes",
            'reduction="none" over (n, classes), and weights applied to its result',
        )


@lowers(_aten.nll_loss_forward.default)
def nll_loss(x: Value, target: Value, weight: Value | None, reduction: int, ignore_index: int) -> tuple[Value, None]:
    """Minus the log-probability of the target class, per sample."""
    _check(x, weight, reduction, ignore_index)
    picked = sum_dim(elementwise(_aten.mul.Tensor, x, _one_hot(target, x.shape[1])), [1])
    return elementwise(_aten.neg.default, picked), None


@lowers(_aten.nll_loss_backward.default)
def nll_loss_backward(
    grad: Value,
    x: Value,
    target: Value,
    weight: Value | None,
    reduction: int,
    ignore_index: int,
    total_weight: object,
) -> Value:
    """Minus the gradient at the target class, zero elsewhere."""
    _check(x, weight, reduction, ignore_index)
    column = Value(reshape(elementwise(_aten.neg.default, grad).natural(), grad.shape[0], 1))
    return elementwise(_aten.mul.Tensor, _one_hot(target, x.shape[1]), column)
