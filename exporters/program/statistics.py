"""
Running statistics that a training step moves.

Batch normalisation in training mode writes to its running mean and variance inside one operator, which a trace does not
see. While :class:`Statistics` is active it writes by plain arithmetic, as any other buffer is written that a forward
pass moves, so that a program can hand the new values out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Statistics"]


class Statistics(TorchFunctionMode):
    """Moves running statistics by arithmetic."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (F.batch_norm, F.instance_norm):
            return _normalised(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _normalised(
    function: Callable[..., Tensor],
    x: Tensor,
    mean: Tensor | None = None,
    variance: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    own = training if training is not None else function is F.instance_norm
    if not own or mean is None or variance is None:
        return function(x, mean, variance, weight, bias, own, momentum, eps)
    with torch.no_grad():
        given = x.detach()
        if function is F.batch_norm:
            axes = [a for a in range(x.dim()) if a != 1]
            here = given.mean(axes), given.var(axes)
        else:
            axes = list(range(2, x.dim()))
            here = given.mean(axes).mean(0), given.var(axes).mean(0)
        for running, now in zip((mean, variance), here, strict=True):
            running.copy_(running * (1 - momentum) + now * momentum)
    return function(x, None, None, weight, bias, True, momentum, eps)
