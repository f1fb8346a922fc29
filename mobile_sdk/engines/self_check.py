"""
Whether a runtime computes what it should, asked on the device itself.

Runtimes differ: in version, in how they were built, in the processor's kernels. A wrong one raises no error, it gives
zeros or something worse, which would be merged. So the manifest says what a right one makes of inputs that are drawn
from a seed (:class:`~mobile_sdk.manifest.SelfCheck`), and a device compares before it trains or predicts.

Inputs are drawn by PCG64 and a product and a sum in float32, so every platform draws the same. Weights are drawn into a
file and mapped: a check needs the memory of a training step, but none for the weights that it does not train.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import safetensors
from ..durable_files import map_file
from ..errors import ProgramError, SelfCheckFailed
from ..layout import Arrays, Vector
from ..manifest import InputContract, Manifest, SelfCheck
from .base import Engine
from .dropout import generator

__all__ = ["TOLERANCE", "compare", "draw_batch", "draw_weights", "observe", "run"]

# Largest accepted difference of a number, relative to it. Engines that compute the same differ by less than a tenth of
# it (the exporter looks for a seed that makes it so); wrong ones by much more.
TOLERANCE = 1e-2
# A gradient that vanishes is measured against this part of the root mean square of all.
_FLOOR = 1e-3
# Elements that are drawn at a time.
_CHUNK = 65_536


def draw_batch(manifest: Manifest, check: SelfCheck) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Vector]:
    """
    A full micro-batch.

    Returns:
        x of shape ``(n, *x_shape)``, y of shape ``(n, *y_shape)`` in the contract's dtypes, and the samples' weights,
        float32 of shape ``(n,)`` from 0.5 to 1.5.

    """
    source, contract, n = np.random.default_rng([check.seed, 0]), manifest.contract, manifest.micro_batch
    x, y = (_batch(source, contract, array, n, limits) for array, limits in (("x", check.x), ("y", check.y)))
    return x, y, (np.float32(0.5) + np.arange(n, dtype=np.float32) / np.float32(n)).astype(np.float32)


def _batch(
    source: np.random.Generator, contract: InputContract, array: str, n: int, limits: Sequence[tuple[float, float]]
) -> npt.NDArray[Any]:
    """One array, or one with a field for each part of the contract."""
    parts = contract.parts(array)
    drawn = [
        _drawn(source, (n, *part.shape), np.dtype(part.dtype), limit) for part, limit in zip(parts, limits, strict=True)
    ]
    if not parts[0].name:
        return drawn[0]
    batch = np.empty(n, contract.numpy_dtype(array))
    for part, values in zip(parts, drawn, strict=True):
        batch[part.name] = values
    return batch


def draw_weights(manifest: Manifest, check: SelfCheck, path: Path) -> Arrays:
    """
    Every parameter that is not inside the program, float32, drawn into the new file ``path`` and mapped from it.

    Args:
        manifest: whose layout it is.
        check: seed and limits.
        path: must not exist.

    Returns:
        Name -> float32 array of the parameter's shape, mapped from ``path``.

    """
    drawn = [p for p in manifest.layout if p.name not in manifest.baked]
    with path.open("wb") as file:
        safetensors.write_header(file, [(p.name, np.dtype(np.float32), p.shape) for p in drawn])
        for index, parameter in enumerate(drawn):
            source = np.random.default_rng([check.seed, 1 + index])
            for count in _chunks(math.prod(parameter.shape)):
                file.write(_drawn(source, (count,), np.dtype("<f4"), check.weights[parameter.name]).data)
    arrays, _ = safetensors.loads(map_file(path))
    return arrays


def observe(engine: Engine, check: SelfCheck, weights: Arrays) -> tuple[float, float, dict[str, float]]:
    """
    The loss, the norm of the prediction, and the norms of the gradients that ``engine`` gives.

    Args:
        engine: a loaded program.
        check: what to draw.
        weights: name -> float32 array of the parameter's shape, as :func:`draw_weights` gives them.

    """
    x, y, sample_weight = draw_batch(engine.manifest, check)
    loss, _, gradients = engine.train_step(x, y, sample_weight, weights, generator(check.seed))
    norms = {name: _norm(gradient) for name, gradient in gradients.items()}
    return loss, _norm(engine.predict(x, weights)), norms


def run(engine: Engine, folder: Path) -> None:
    """
    Compare what ``engine`` gives with what its manifest says; does nothing where the manifest says nothing.

    Args:
        engine: a loaded program.
        folder: where the weights are drawn, in a file that is removed afterwards.

    Raises:
        SelfCheckFailed: naming the first number that is wrong, or what keeps the program from running.

    """
    check = engine.manifest.check
    if check is None:
        return
    path = folder / "self-check.safetensors"
    try:
        observed = observe(engine, check, draw_weights(engine.manifest, check, path))
    except ProgramError as error:
        raise SelfCheckFailed(
            f"this device's runtime ({engine.runtime}) cannot run the program: {error}; update the app, or use the "
            "engine 'interpreted'",
            code=error.code,
        ) from error
    finally:
        path.unlink(missing_ok=True)
    compare(check, *observed, runtime=engine.runtime)


def compare(check: SelfCheck, loss: float, prediction: float, gradients: Mapping[str, float], *, runtime: str) -> None:
    """
    Hold what :func:`observe` gave against ``check``.

    Args:
        check: what is expected.
        loss: of the training step.
        prediction: norm.
        gradients: name -> norm.
        runtime: what to call the runtime in the error.

    Raises:
        SelfCheckFailed: naming the first number that is wrong.

    """
    for what, actual, expected, error in errors(check, loss, prediction, gradients):
        if not error <= TOLERANCE:  # also where it is not a number
            raise SelfCheckFailed(
                f"this device's runtime ({runtime}) computes wrong numbers: {what} is {actual:.6g}, not "
                f"{expected:.6g}: nothing is trained or predicted with it; update the app, or use the engine "
                "'interpreted'"
            )


def errors(
    check: SelfCheck, loss: float, prediction: float, gradients: Mapping[str, float]
) -> Iterator[tuple[str, float, float, float]]:
    """
    What each number is, as observed and as expected, and the relative error.

    Args:
        check: what is expected.
        loss: as observed.
        prediction: norm, as observed.
        gradients: name -> norm, as observed; one that is missing counts as not a number.

    """
    yield "the loss", loss, check.loss, _error(loss, check.loss, 1.0)
    yield "the norm of the prediction", prediction, check.prediction, _error(prediction, check.prediction, 1e-6)
    floor = _FLOOR * math.sqrt(sum(n * n for n in check.gradients.values()) / max(1, len(check.gradients)))
    for name, expected in check.gradients.items():
        actual = gradients.get(name, math.nan)
        yield f"the norm of the gradient of {name!r}", actual, expected, _error(actual, expected, floor)


def _error(actual: float, expected: float, floor: float) -> float:
    return abs(actual - expected) / max(abs(expected), floor, 1e-30)


def _norm(array: npt.NDArray[Any]) -> float:
    """Euclidean, summed in double precision without a copy in it."""
    flat = array.reshape(-1)
    return math.sqrt(
        sum(
            float(np.square(flat[start : start + _CHUNK], dtype=np.float64).sum())
            for start in range(0, len(flat), _CHUNK)
        )
    )


def _drawn(
    source: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any], limits: tuple[float, float]
) -> npt.NDArray[Any]:
    """Uniform between the limits; whole numbers, which limits without a fraction ask for, include both."""
    low, high = limits
    if dtype.kind == "f" and not (isinstance(low, int) and isinstance(high, int)):
        return source.random(shape, np.float32) * np.float32(high - low) + np.float32(low)
    return source.integers(int(low), int(high), shape, np.int64, endpoint=True).astype(dtype)


def _chunks(size: int) -> Iterator[int]:
    for start in range(0, size, _CHUNK):
        yield min(_CHUNK, size - start)
