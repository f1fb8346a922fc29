"""
Dropout as an input of the training step.

A program draws no random numbers, so dropout in training mode becomes a product with a mask that the device draws
(:mod:`mobile_sdk.engines.dropout`). While a :class:`Masks` is active, ``dropout`` takes the next of its masks;
without any, it does nothing, exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import traceback
from torch.overrides import TorchFunctionMode

from ..errors import ExportError
from ..lowering import MODULE

__all__ = ["Dropout", "Masks", "ones"]

# Function -> how many of the input's axes have a mask of their own; the others share it. None: all.
_KINDS: dict[Any, int | None] = {F.dropout: None, F.dropout1d: 2, F.dropout2d: 2, F.dropout3d: 2}
_OTHERS = (F.alpha_dropout, F.feature_alpha_dropout)


@dataclasses.dataclass(frozen=True)
class Dropout:
    """A mask that a step asks for: its module, its shape, and the probability that an element is kept."""

    module: str
    shape: tuple[int, ...]
    keep: float


class Masks(TorchFunctionMode):
    """
    Multiplies by ``masks`` where dropout would draw, in the order in which the model comes to them.

    ``found`` lists what was asked for.

    Raises:
        ExportError: where the random numbers are drawn inside an operator.

    """

    def __init__(self, masks: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.masks = list(masks)
        self.found: list[Dropout] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _KINDS:
            return self._drop(_KINDS[func], *args, **kwargs)
        if func in _OTHERS and kwargs.get("training", args[2] if len(args) > 2 else False):
            raise ExportError(f"{_where()} uses {func.__name__}, which no device can repeat; use Dropout instead")
        if func is F.scaled_dot_product_attention and kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0):
            raise ExportError(
                f"{_where()} has dropout inside scaled_dot_product_attention, which draws its random numbers itself; "
                "set dropout_p=0 and put a Dropout on what comes out"
            )
        return func(*args, **kwargs)

    def _drop(
        self, axes: int | None, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return input
        if p == 1:
            return input * 0.0
        own = input.dim() if axes is None else axes
        shape = tuple(input.shape[:own]) + (1,) * (input.dim() - own)
        index = len(self.found)
        self.found.append(Dropout(_module(), shape, 1.0 - p))
        return input * self.masks[index] if self.masks else input


def _module() -> str:
    return str(traceback.current_meta.get("custom", {}).get(MODULE, ""))


def _where() -> str:
    return f"module {_module()!r}" if _module() else "the model"


def ones(dropouts: Sequence[Dropout]) -> list[Tensor]:
    """Masks that keep everything: float32, each of its dropout's shape."""
    return [torch.ones(d.shape) for d in dropouts]
