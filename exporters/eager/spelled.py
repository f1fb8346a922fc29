"""
Functions of torch that look at numbers, or are one operator that nothing takes apart, spelled out in plain arithmetic.

Values and gradients are torch's own. Left out is only what a function raises for numbers that it does not take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Spelled"]


class Spelled(TorchFunctionMode):
    """While active, the functions of this module stand for torch's."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return _SPELLED.get(func, func)(*args, **(kwargs or {}))


def _gaussian_nll(
    input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """Without the look for negative variances."""
    if not isinstance(var, Tensor):
        var = var * torch.ones_like(input)
    if var.dim() == input.dim() - 1:
        var = var.unsqueeze(-1)
    # As in torch, the gradient passes a variance that is clamped.
    safe = var + (var.clamp(min=eps) - var).detach()
    loss = 0.5 * (torch.log(safe) + (input - target) ** 2 / safe)
    return _reduced(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)


def _multi_margin(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """By the mask of each sample's class: input (n, classes) or (classes,)."""
    if size_average is not None or reduce is not None:
        reduction = "none" if reduce is False else "sum" if size_average is False else "mean"
    own = F.one_hot(target, input.shape[-1]).to(input.dtype)
    right = (input * own).sum(-1, keepdim=True)
    slack = (margin - right + input).clamp(min=0) ** p * (1 - own)
    if weight is not None:
        slack = slack * (own * weight).sum(-1, keepdim=True)
    return _reduced(slack.sum(-1) / input.shape[-1], reduction)


def _embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Rows looked up, then put together per sample: bags (n, length); others are left to torch."""
    if input.dim() != 2:
        return F.embedding_bag(
            input, weight, offsets, max_norm, norm_type, scale_grad_by_freq, mode, sparse, per_sample_weights,
            include_last_offset, padding_idx,
        )  # fmt: skip
    rows = F.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    if padding_idx is None:
        kept = None
    else:
        padding = padding_idx % weight.shape[0]
        kept = (input != padding).to(weight.dtype).unsqueeze(-1)
        rows = rows * kept
    if mode == "sum":
        return (rows if per_sample_weights is None else rows * per_sample_weights.unsqueeze(-1)).sum(1)
    if mode == "mean":
        return rows.mean(1) if kept is None else rows.sum(1) / kept.sum(1).clamp(min=1)
    if kept is None:
        return rows.max(1).values
    return (rows - (1 - kept) * 1e30).max(1).values * kept.amax(1)


def _bilinear(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Products of (..., i) and (..., j), then a linear layer of weight (out, i, j)."""
    products = (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2)
    return F.linear(products, weight.flatten(1), bias)


def _bucketize(input: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """How many of the boundaries (m,), which ascend, lie below each number, or, with ``right``, not above it."""
    return _counted(boundaries, input, right, out_int32)


def _searchsorted(
    sorted_sequence: Tensor,
    input: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """The same, of one sequence (m,) or of one per row (..., m)."""
    sequence = sorted_sequence if sorter is None else sorted_sequence.gather(-1, sorter)
    return _counted(
        sequence if sequence.dim() == 1 else sequence.unsqueeze(-2), input, right or side == "right", out_int32
    )


def _counted(boundaries: Tensor, input: Tensor, inclusive: bool, narrow: bool) -> Tensor:
    numbers = input.unsqueeze(-1)
    below = numbers >= boundaries if inclusive else numbers > boundaries
    return below.sum(-1, dtype=torch.int32 if narrow else torch.int64)


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


_SPELLED: dict[Callable[..., Any], Callable[..., Any]] = {
    F.gaussian_nll_loss: _gaussian_nll,
    F.multi_margin_loss: _multi_margin,
    F.bilinear: _bilinear,
    F.embedding_bag: _embedding_bag,
    torch.bucketize: _bucketize,
    torch.searchsorted: _searchsorted,
}
