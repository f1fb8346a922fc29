"""
Why something is refused, in one sentence: where, what, and what to write instead.

Every remedy of :data:`REMEDIES` is a row of the table of models that tests export.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import torch

from .marks import FORWARD

__all__ = ["REMEDIES", "of_unknown_size", "packed", "refusal", "untraceable", "where"]

_LINEAR = "a fixed number of steps of an iteration made of products, or a matrix that is a parameter"
_COMPLEX = "real and imaginary parts as two tensors; a Fourier transform of fixed length is a product with two matrices"

# Beginning of an operator's name -> what does the same.
REMEDIES: dict[str, str] = {
    "_ctc_loss": "a cross_entropy per frame over aligned targets",
    "_fft": _COMPLEX,
    "view_as_complex": _COMPLEX,
    "view_as_real": _COMPLEX,
    "complex": _COMPLEX,
    "polar": _COMPLEX,
    "stft": _COMPLEX,
    "grid_sampler": "F.interpolate, or a product with a matrix of fixed weights",
    "_pack_padded_sequence": "the padded sequence, and the last valid step by index: out[torch.arange(n), length - 1]",
    "nonzero": "a product with a mask, or torch.where: every batch must run the same operators",
    "masked_select": "a product with a mask, or torch.where: every batch must run the same operators",
    "_unique": "a product with a mask, or torch.where: every batch must run the same operators",
    "unique": "a product with a mask, or torch.where: every batch must run the same operators",
    "linalg_": _LINEAR,
    "_linalg": _LINEAR,
    "triangular_solve": _LINEAR,
    "cholesky": _LINEAR,
    "mode": "median, or topk",
    "histc": "a comparison with the edges of the bins, summed: (x[..., None] >= edges).sum",
}
_INSTEAD = "the same computed from sums, products and elementwise functions, or leave the module frozen before the data"
_NUMBERS = (
    "decides by a number that the data give ({place}); use torch.where or a product with a mask instead of if, and "
    "tensors instead of .item(), so that every batch runs the same operators"
)
_NUMPY = "leaves torch for numpy ({place}); use torch's own functions, so that gradients can flow"


# Where frames lie that are no user's.
_LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
_DATA_SIGNS = (
    "DataDependent",
    "data-dependent",
    "_local_scalar_dense",
    ".item()",
    "GuardOnData",
    "DynamicOutput",
    "tolist",
)
_NUMPY_SIGNS = ("subclass", "convert", "Can't call numpy")


def where(module: str) -> str:
    """A module by its path, as a sentence begins with it."""
    if module == FORWARD:
        return "the model's own forward"
    return f"module {module!r}" if module else "the loss or a metric"


def refusal(target: Any, module: str) -> str:
    """That an operator has neither a rewrite nor a kernel."""
    name = str(target).removeprefix("aten.")
    remedy = next((text for start, text in REMEDIES.items() if name.startswith(start)), _INSTEAD)
    return f"{where(module)} needs the operator {name}, which cannot be trained on a device; use {remedy}"


def packed(module: str) -> str:
    """That a module is given a packed sequence, whose shape is data."""
    return f"{where(module)} takes packed sequences, whose lengths are data; use {REMEDIES['_pack_padded_sequence']}"


def of_unknown_size(target: Any, module: str) -> str:
    """That the data decide how many elements an operator gives."""
    name = str(target).removeprefix("aten.")
    return (
        f"{where(module)} needs the operator {name}, whose result is as long as the data decide; use "
        f"{REMEDIES['nonzero']}"
    )


def untraceable(error: BaseException, module: str) -> str:
    """What was raised while the model ran on tensors without numbers."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(_LIBRARIES)] or list(frames)
    place = f"{own[-1].filename.rpartition('/')[2]}, line {own[-1].lineno}" if own else "in a place unknown"
    said = f"{type(error).__name__} {error}"
    if any(f.name == "pack_padded_sequence" for f in frames):
        return packed(module)
    if "numpy" in said and any(word in said for word in _NUMPY_SIGNS):
        return f"{where(module)} {_NUMPY.format(place=place)}"
    if any(sign in said for sign in _DATA_SIGNS):
        return f"{where(module)} {_NUMBERS.format(place=place)}"
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:160]
    return (
        f"{where(module)} cannot be traced ({place}): {type(error).__name__}: {first}; write it in torch's functions "
        "of tensors whose shapes do not depend on the data"
    )
