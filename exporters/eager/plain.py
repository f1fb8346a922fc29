"""
A model as it computes, whatever memory or precision its author wanted it to save on a desktop.

Checkpoints recompute activations, autocast regions compute in bfloat16: neither changes what is meant, and a program
has its own way with both. Inside :func:`plain`, checkpointed functions are called once and autocast regions keep
float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.modules import transformer
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils import checkpoint

from .draws import Draws
from .spelled import Spelled

__all__ = ["in_float64", "plain", "quiet_step"]


class _Once:
    """Stands for a reentrant checkpoint."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return function(*args)


def _not_again(*args: Any, **kwargs: Any) -> Iterator[None]:
    yield


def _as_said(mask: Tensor | None, is_causal: bool | None = None, size: int | None = None) -> bool:
    """Stands for a look at the numbers of a mask; a mask that is not known to be causal is applied as it is."""
    return is_causal is True


def _leave(autocast: Any, *exception: Any) -> None:
    """Stands for the end of an autocast region."""


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """No recomputation and no autocast inside."""
    autocast = torch.amp.autocast_mode.autocast
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator that nothing could take apart
    try:
        with _patched(autocast), torch.compiler.set_stance("force_eager"), Spelled():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextlib.contextmanager
def _patched(autocast: type) -> Iterator[None]:
    with (
        mock.patch.object(checkpoint, "CheckpointFunction", _Once),
        mock.patch.object(checkpoint, "_checkpoint_without_reentrant_generator", _not_again),
        mock.patch.object(Distribution, "_validate_args", False),  # it looks at numbers
        mock.patch.object(transformer, "_detect_is_causal_mask", _as_said),
        mock.patch.object(autocast, "__enter__", lambda self: self),
        # Not return_value: making a MagicMock takes longer than a step of a small net.
        mock.patch.object(autocast, "__exit__", _leave),
    ):
        yield


@contextlib.contextmanager
def quiet_step() -> Iterator[None]:
    """:func:`plain`, and every draw at its median."""
    with plain(), Draws().active():
        yield


class _Doubled(TorchFunctionMode):
    """Every float32 that a function is given, or is to make, is a float64."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (Tensor.float, Tensor.half, Tensor.bfloat16):
            func = Tensor.double
        args, kwargs = pytree.tree_map(_doubled, (tuple(args), dict(kwargs or {})))
        return func(*args, **kwargs)


def _doubled(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.dtype in _SINGLE else value
    return torch.float64 if isinstance(value, torch.dtype) and value in _SINGLE else value


_SINGLE = (torch.float32, torch.float16, torch.bfloat16)


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Compute in double precision: casts, constants and new tensors too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Doubled():
            yield
    finally:
        torch.set_default_dtype(before)
