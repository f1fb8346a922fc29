"""
Nothing leaves the exporter unverified.

Operators with wrong gradients exist (ExecuTorch 1.5.1 has one that raises no error), so every program is run in the
runtime that devices use and compared with eager autograd in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mobile_sdk.engines.base import Engine
from mobile_sdk.engines.dropout import draw, generator
from mobile_sdk.layout import Arrays
from mobile_sdk.manifest import TensorSpec

from ..batches import Batch, like, names_of, numpy_of, tensors_of
from ..errors import ExportError
from .step import Step

__all__ = ["TOLERANCE", "relative_errors", "verify_gradients"]

# Largest accepted error of a tensor, relative to its norm.
TOLERANCE = 1e-4
# A vanishing gradient is measured against this part of the root mean square of all gradients' norms.
_FLOOR = 1e-3
# A gradient of this part of it is zero: that of a bias in front of batch normalisation.
_VANISHED = 1e-10
_BATCHES = 2
# Where even eager float32 is this far off, the batch sits on a kink (a ReLU at zero) and says nothing: draw another.
_UNSTABLE = 1e-5
# The most that one may be off if there is none better: well below what is accepted of the program.
_BARELY = TOLERANCE / 3
_DRAWS = 8

_Numbers = Mapping[str, npt.NDArray[Any]]


def verify_gradients(engine: Engine, step: Step) -> float:
    """
    Compare all methods of a loaded program with eager autograd.

    Returns:
        The largest error of any gradient, as :func:`relative_errors` gives it.

    Raises:
        ExportError: naming the tensor that is off by more than :data:`TOLERANCE`.

    """
    with _fast_depthwise():
        return _verify(engine, step)


def _verify(engine: Engine, step: Step) -> float:
    reference = step.in_float64()
    weights = step.task.layout.views(step.task.initial_weights())
    count = 1 + len(step.task.metrics)
    worst = 0.0
    for index, (seed, x, y, sample_weight, expected) in enumerate(_batches(step, reference, weights)):
        batch = numpy_of(x), numpy_of(y), sample_weight.numpy()
        loss, metrics, gradients = engine.train_step(*batch, weights, generator(seed))
        errors = relative_errors(gradients, dict(zip(step.trained, _numpy(expected[count:]), strict=True)))
        _accept(errors, "the gradient of")
        worst = max(worst, *errors.values())
        _accept(_sum_errors([loss, *metrics.values()], expected[:count], step), "train_step's")
        if index:
            continue  # the forward pass has been compared; double precision takes seconds
        doubles = _double(x), _double(y), sample_weight.double()
        expected = reference.evaluate(*doubles, *_tensors(weights, step.names, torch.float64))
        loss, metrics = engine.evaluate(*batch, weights)
        _accept(_sum_errors([loss, *metrics.values()], expected, step), "evaluate's")
        output = reference.predict(doubles[0], *_tensors(weights, step.names, torch.float64))
        _accept(relative_errors({"output": engine.predict(batch[0], weights)}, {"output": output.numpy()}), "predict's")
    return worst


class _fast_depthwise(TorchFunctionMode):  # used like a function
    """Depthwise convolutions in double precision, which torch takes seconds for, as sums of shifted products."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and not kwargs and len(args) == 7 and args[6] > 1 and not isinstance(args[4], str):
            x, w, bias, stride, padding, dilation, groups = args
            if x.dtype == torch.float64 and x.dim() == 4 and groups == x.shape[1] == w.shape[0]:
                return _shifted(x, w, bias, stride, padding, dilation)
        return func(*args, **(kwargs or {}))


def _shifted(
    x: Tensor, w: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    (sh, sw), (ph, pw), (dh, dw) = (tuple(a) * (3 - len(a)) for a in (stride, padding, dilation))
    x = torch.nn.functional.pad(x, (pw, pw, ph, ph))
    kh, kw = w.shape[2:]
    height, width = (
        (x.shape[2 + i] - d * (k - 1) - 1) // s + 1 for i, (d, k, s) in enumerate(((dh, kh, sh), (dw, kw, sw)))
    )
    total = torch.zeros((), dtype=x.dtype) if bias is None else bias.view(1, -1, 1, 1)
    for i in range(kh):
        for j in range(kw):
            rows, cols = (
                slice(i * dh, i * dh + (height - 1) * sh + 1, sh),
                slice(j * dw, j * dw + (width - 1) * sw + 1, sw),
            )
            total = total + x[:, :, rows, cols] * w[:, 0, i, j].view(1, -1, 1, 1)
    return total


def relative_errors(actual: _Numbers, expected: _Numbers) -> dict[str, float]:
    """
    Name -> ``||a - e|| / max(||e||, floor)``.

    The floor is a thousandth of the root mean square of all expected norms; without it, a gradient that vanishes
    (that of a bias before a normalisation) would count its rounding noise as an error.

    Args:
        actual: name -> array.
        expected: name -> array of the same shape.

    Raises:
        ExportError: if a shape differs.

    """
    norms = {name: float(np.linalg.norm(e.astype(np.float64))) for name, e in expected.items()}
    mean = math.sqrt(sum(n * n for n in norms.values()) / len(norms))
    floor = _FLOOR * mean
    result = {}
    for name, e in expected.items():
        if actual[name].shape != e.shape:
            raise ExportError(f"{name!r} has the shape {actual[name].shape}, not {e.shape}")
        difference = float(np.linalg.norm(actual[name].astype(np.float64) - e))
        # What is zero but for rounding in double precision says nothing about rounding in single precision.
        least = mean if norms[name] < _VANISHED * mean else floor
        result[name] = difference / max(norms[name], least) if difference else 0.0
    return result


def _accept(errors: Mapping[str, float], what: str) -> None:
    for name, error in errors.items():
        if not error <= TOLERANCE:  # also where it is not a number
            raise ExportError(
                f"the program is wrong: {what} {name!r} differs from eager autograd by {error:.1e} of its norm "
                f"(at most {TOLERANCE:.0e} is accepted); report the model, or leave out the module concerned"
            )


def _sum_errors(actual: Sequence[float], expected: Sequence[Tensor], step: Step) -> dict[str, float]:
    names = ["loss", *step.task.metrics]
    return {
        name: abs(a - float(e)) / max(1.0, abs(float(e))) for name, a, e in zip(names, actual, expected, strict=True)
    }


def _batches(
    step: Step, reference: Step, weights: Arrays
) -> Iterator[tuple[int, Batch, Batch, Tensor, tuple[Tensor, ...]]]:
    """
    Seeds of dropout, batches, sample weights (some zero) and the float64 results.

    The first batch is the example as it is.
    """
    random = torch.Generator().manual_seed(0)
    found = 0
    second: tuple[float, tuple[int, Batch, Batch, Tensor, tuple[Tensor, ...]]] | None = None
    for attempt in range(_DRAWS):
        x, y = _sample(step, random, plain=attempt == 0)
        sample_weight = torch.rand(len(x), generator=random) + 0.5
        sample_weight[1::3] = 0.0
        masks = _masks(step, attempt)
        single = step.train_step(x, y, sample_weight, *_tensors(weights, step.order, torch.float32), *masks)
        doubles = _double(x), _double(y), sample_weight.double()
        double = reference.train_step(
            *doubles, *_tensors(weights, step.order, torch.float64), *[mask.double() for mask in masks]
        )
        names = [str(i) for i in range(len(step.trained))]
        pair = (dict(zip(names, _numpy(r[-len(names) :]), strict=True)) for r in (single, double))
        difference = max(relative_errors(*pair).values())
        if not difference <= _UNSTABLE:
            if difference <= _BARELY and (second is None or difference < second[0]):
                second = difference, (attempt, x, y, sample_weight, double)
            continue
        yield attempt, x, y, sample_weight, double
        found += 1
        if found == _BATCHES:
            return
    if not found and second is not None:
        yield second[1]
    elif not found:
        raise ExportError(
            f"the model's gradients cannot be verified: eager float32 and float64 differ on each of {_DRAWS} batches"
        )


def _masks(step: Step, seed: int) -> list[Tensor]:
    """What an engine draws from ``generator(seed)``."""
    source, masks = generator(seed), []
    for drawn in step.draws:
        mask = np.empty(drawn.shape, np.float32)
        draw(TensorSpec(drawn.role, drawn.module, drawn.shape, "float32", drawn.keep), source, mask)
        masks.append(torch.from_numpy(mask))
    return masks


def _sample(step: Step, generator: torch.Generator, plain: bool) -> tuple[Batch, Batch]:
    """A batch like the example: its rows shuffled and, where x is continuous, blurred with noise."""
    x, y = step.task.batch(step.plan.micro_batch)
    if plain:
        return x, y
    x = x[torch.randperm(len(x), generator=generator)]
    y = y[torch.randperm(len(y), generator=generator)]
    parts = list(zip(names_of(x), tensors_of(x), strict=True))
    return like(x, [_blurred(step, name, t, generator) for name, t in parts]), y


def _blurred(step: Step, part: str, x: Tensor, generator: torch.Generator) -> Tensor:
    # Numbers by which something is looked up stay as they are.
    if not x.is_floating_point() or any(b.array == "x" and b.part == part for b in step.task.contract.bounds):
        return x
    x = x + 0.5 * x.std(unbiased=False) * torch.randn(x.shape, generator=generator)
    return x if step.task.contract.range is None else x.clamp(*step.task.contract.range)


def _double(batch: Batch) -> Batch:
    return like(batch, [t.double() if t.is_floating_point() else t for t in tensors_of(batch)])


def _tensors(weights: Arrays, names: Sequence[str], dtype: torch.dtype) -> list[Tensor]:
    return [torch.from_numpy(weights[name]).to(dtype) for name in names]


def _numpy(tensors: Sequence[Tensor]) -> list[npt.NDArray[Any]]:
    return [t.numpy() for t in tensors]
