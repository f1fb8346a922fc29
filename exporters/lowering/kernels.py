"""
Operators that XNNPACK has and ATen lacks, for the lowering to emit.

ATen's convolution speaks of channels first, and a pass of ExecuTorch's would put permutations around it;
here images are channels last, as they lie. Each operator has a plain implementation, so that a lowered graph runs in
torch itself, and a node of the delegate (:mod:`exporters.delegate`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["average_pool", "crop", "dense", "max_pool", "mean_pixel", "static_convolution"]

_SCHEMAS = (
    "static_convolution(Tensor x, Tensor w, Tensor? b, int[] stride, int[] padding, int[] dilation, int groups)"
    " -> Tensor",
    "dense(Tensor x, Tensor w, Tensor? b) -> Tensor",
    "max_pool(Tensor x, int[] kernel, int[] stride, int[] padding, int[] dilation) -> Tensor",
    "average_pool(Tensor x, int[] kernel, int[] stride) -> Tensor",
    "crop(Tensor x, int[] starts, int[] sizes) -> Tensor",
    "mean_pixel(Tensor x) -> Tensor",
)


def _static_convolution(
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    filters = w.permute(3, 0, 1, 2) if groups > 1 else w.permute(0, 3, 1, 2)
    result = F.conv2d(x.permute(0, 3, 1, 2), filters, b, list(stride), list(padding), list(dilation), groups)
    return result.permute(0, 2, 3, 1).contiguous()


def _dense(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    product = x @ w.t()
    return product if b is None else product + b


def _max_pool(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    sizes = list(kernel), list(stride), list(padding), list(dilation)
    return F.max_pool2d(x.permute(0, 3, 1, 2), *sizes).permute(0, 2, 3, 1).contiguous()


def _average_pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    return F.avg_pool2d(x.permute(0, 3, 1, 2), list(kernel), list(stride)).permute(0, 2, 3, 1).contiguous()


def _crop(x: Tensor, starts: Sequence[int], sizes: Sequence[int]) -> Tensor:
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        x = x.narrow(axis, start, size)
    return x.clone(memory_format=torch.contiguous_format)


def _mean_pixel(x: Tensor) -> Tensor:
    return x.mean((1, 2), keepdim=True)


def _register(*functions: Callable[..., Tensor]) -> torch.library.Library:
    library = torch.library.Library("ftte", "DEF")  # type: ignore[no-untyped-call]
    for schema, function in zip(_SCHEMAS, functions, strict=True):
        library.define(schema)  # type: ignore[no-untyped-call]
        name = schema.partition("(")[0]
        library.impl(name, function, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        register_fake: Any = torch.library.register_fake
        register_fake(f"ftte::{name}", function, lib=library)
    return library


_library = _register(_static_convolution, _dense, _max_pool, _average_pool, _crop, _mean_pixel)


def static_convolution(
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """
    Convolve (n, h, w, c) with constant filters: (out, kh, kw, in), or (1, kh, kw, c) where ``groups`` is c.

    The delegate reads the image where it lies; its columns never exist.
    """
    result: Tensor = torch.ops.ftte.static_convolution(x, w, b, stride, padding, dilation, groups)
    return result


def dense(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """(m, k) times the transpose of (n, k), plus (n,): the delegate's fully connected layer, its weights an input."""
    result: Tensor = torch.ops.ftte.dense(x, w, b)
    return result


def max_pool(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """The maximum of each window of (n, h, w, c); padding is below any number."""
    result: Tensor = torch.ops.ftte.max_pool(x, kernel, stride, padding, dilation)
    return result


def average_pool(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> Tensor:
    """The mean of each window of (n, h, w, c)."""
    result: Tensor = torch.ops.ftte.average_pool(x, kernel, stride)
    return result


def crop(x: Tensor, starts: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """
    ``sizes`` positions from ``starts`` on, on all axes at once: one copy, where slices would be one per axis.

    Args:
        x: any shape.
        starts: the first position on each axis.
        sizes: the shape of the result.

    """
    if list(sizes) == list(x.shape):
        return x
    result: Tensor = torch.ops.ftte.crop(x, starts, sizes)
    return result


def mean_pixel(x: Tensor) -> Tensor:
    """(n, h, w, c) -> (n, 1, 1, c): the mean of all positions."""
    result: Tensor = torch.ops.ftte.mean_pixel(x)
    return result
