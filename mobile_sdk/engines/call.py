"""
From what a caller passes to the arrays of one call, and back.

Every engine runs methods that take and give arrays in the manifest's order; this is where batches are
checked and padded, weights are looked up by name, and outputs are named again. Buffers for padding are made
once and used for every call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import LayoutError, ProgramError
from ..layout import Arrays, Vector
from ..manifest import Manifest, TensorSpec
from .dropout import DRAWN, draw

__all__ = ["Call"]

_INPUT_ROLES = {
    "train_step": {"x", "y", "sample_weight", "weight", *DRAWN},
    "evaluate": {"x", "y", "sample_weight", "weight"},
    "predict": {"x", "weight"},
}
_OUTPUT_ROLES = {
    "train_step": {"loss", "metric", "gradient"},
    "evaluate": {"loss", "metric"},
    "predict": {"prediction"},
}


class Call:
    """
    Inputs and outputs of one method of ``manifest``.

    Raises:
        ProgramError: if the manifest has no such method, or contradicts itself about it.

    """

    def __init__(self, manifest: Manifest, method: str) -> None:
        if method not in manifest.methods:
            raise ProgramError(
                f"the program has no method {method!r}, only {', '.join(sorted(manifest.methods)) or 'none'}: "
                "export it with that method"
            )
        self.method = method
        self.inputs = manifest.methods[method].inputs
        self.outputs = manifest.methods[method].outputs
        self._micro_batch = manifest.micro_batch
        _check_inputs(manifest, method, self.inputs)
        _check_outputs(manifest, method, self.outputs)
        self._padded: dict[str, npt.NDArray[Any]] = {}
        self._masks = [np.empty(spec.shape, np.float32) for spec in self.inputs if spec.role in DRAWN]

    def arguments(
        self, batch: dict[str, npt.NDArray[Any]], weights: Arrays, dropout: np.random.Generator | None = None
    ) -> list[npt.NDArray[Any]]:
        """
        The arrays to pass, C-contiguous, in the order of the call.

        ``batch`` maps roles to arrays whose first dimension is the batch's. Arrays that are contiguous, and
        full where they are of the batch, are passed as they are. ``dropout`` draws masks; without it dropout is off.

        Args:
            batch: ``x``, ``y`` and ``sample_weight`` as far as the method takes them, shape ``(n, ...)``.
            weights: name -> full float32 array.
            dropout: draws masks; without it dropout is off.

        Raises:
            ProgramError: if an array is missing, or of another shape or dtype than the manifest's.

        """
        count = self._count(batch)
        masks = iter(self._masks)
        result: list[npt.NDArray[Any]] = []
        for spec in self.inputs:
            if spec.role == "weight":
                result.append(self._weight(spec, weights))
            elif spec.role in DRAWN:
                result.append(next(masks))
                draw(spec, dropout, result[-1])
            else:
                result.append(self._samples(spec, batch[spec.role], count))
        return result

    def sums(self, results: Sequence[npt.NDArray[Any]]) -> tuple[float, dict[str, float], dict[str, Vector]]:
        """
        Loss, metrics and gradients among the ``results`` of a call, in its order; the gradients are not copied.

        Args:
            results: an array per output: float32 of shape ``()`` or ``(1,)`` for sums, compact shapes for gradients.

        """
        loss, metrics, gradients = 0.0, {}, {}
        for spec, result in zip(self.outputs, results, strict=True):
            if spec.role == "loss":
                loss = float(result.item())
            elif spec.role == "metric":
                metrics[spec.name] = float(result.item())
            else:
                gradients[spec.name] = result
        return loss, metrics, gradients

    def _count(self, batch: dict[str, npt.NDArray[Any]]) -> int:
        shape = batch["x"].shape
        if not shape or not 1 <= shape[0] <= self._micro_batch:
            raise ProgramError(f"x must have 1 to {self._micro_batch} samples, not the shape {shape}")
        return int(shape[0])

    def _samples(self, spec: TensorSpec, array: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
        if spec.name:
            array = _part(spec, array)
        name = f"{spec.role}.{spec.name}" if spec.name else spec.role
        _check(name, array, (count, *spec.shape[1:]), spec.dtype)
        if count == self._micro_batch:
            return np.require(array, requirements=["C", "A"])
        if name not in self._padded:
            self._padded[name] = np.zeros(spec.shape, spec.dtype)
        padded = self._padded[name]
        padded[:count] = array
        # Samples of weight 0 still run through the model: repeating real ones keeps every value valid,
        # where zeros may lie outside the range that the model can take and turn 0 * loss into NaN.
        for start in range(count, self._micro_batch, count):
            rest = min(count, self._micro_batch - start)
            padded[start : start + rest] = 0 if spec.role == "sample_weight" else array[:rest]
        return padded

    @staticmethod
    def _weight(spec: TensorSpec, weights: Arrays) -> npt.NDArray[Any]:
        try:
            array = weights[spec.name]
        except KeyError:
            raise ProgramError(f"the weights lack the parameter {spec.name!r}") from None
        _check(spec.name, array, spec.shape, spec.dtype)
        return np.require(array, requirements=["C", "A"])


def _part(spec: TensorSpec, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """One of several arrays of a batch."""
    names = array.dtype.names or ()
    if spec.name not in names:
        raise ProgramError(
            f"{spec.role} must have the array {spec.name!r} among others, and has "
            f"{', '.join(names) or 'no named arrays'}"
        )
    part: npt.NDArray[Any] = array[spec.name]
    return part


def _check(name: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: str) -> None:
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise ProgramError(f"{name!r} must be {dtype} of shape {shape}, not {array.dtype} of shape {array.shape}")


def _check_inputs(manifest: Manifest, method: str, specs: tuple[TensorSpec, ...]) -> None:
    contract, batch = manifest.contract, manifest.micro_batch
    expected: dict[tuple[str, str], tuple[tuple[int, ...], str]] = {("sample_weight", ""): ((batch,), "float32")}
    for array in ("x", "y"):
        expected |= {(array, p.name): ((batch, *p.shape), p.dtype) for p in contract.parts(array)}
    for spec in specs:
        if spec.role == "weight":
            try:
                shape, dtype = manifest.layout[spec.name].shape, "float32"
            except LayoutError as error:
                raise ProgramError(f"input of {method!r}: {error}") from error
        else:
            shape, dtype = expected.get((spec.role, spec.name), (spec.shape, spec.dtype))
        if (spec.shape, spec.dtype) != (shape, dtype):
            raise ProgramError(
                f"the manifest contradicts itself: input {spec.name or spec.role!r} of {method!r} is {spec.dtype} of "
                f"shape {spec.shape}, but by its contract and layout {dtype} of shape {shape}"
            )
    for array in ("x", "y"):
        names = [spec.name for spec in specs if spec.role == array]
        if array in _INPUT_ROLES[method] and sorted(names) != sorted(p.name for p in contract.parts(array)):
            raise ProgramError(
                f"the manifest contradicts itself: {method!r} takes {names} as {array}, but by its contract "
                f"{[p.name for p in contract.parts(array)]}"
            )
    _check_roles(method, specs, _INPUT_ROLES[method])


def _check_outputs(manifest: Manifest, method: str, specs: tuple[TensorSpec, ...]) -> None:
    for spec in specs:
        if spec.role in ("loss", "metric") and np.prod(spec.shape) != 1:
            raise ProgramError(
                f"{spec.role} {spec.name!r} of {method!r} has the shape {spec.shape}; it must be one number"
            )
        if spec.role == "gradient" and (
            spec.name not in manifest.trained
            or (spec.shape, spec.dtype) != (manifest.trained.shape(spec.name), "float32")
        ):
            raise ProgramError(
                f"the manifest contradicts itself: {method!r} gives a gradient for {spec.name!r} as {spec.dtype} of "
                f"shape {spec.shape}, but by what it trains otherwise"
            )
        if spec.role == "prediction" and (spec.shape[:1] != (manifest.micro_batch,) or spec.dtype != "float32"):
            raise ProgramError(
                f"{method!r} gives a prediction of {spec.dtype} and shape {spec.shape}; "
                f"it must be float32 with {manifest.micro_batch} samples"
            )
    _check_roles(method, specs, _OUTPUT_ROLES[method])
    _check_names(method, "metric", specs, manifest.metrics if method != "predict" else ())
    _check_names(method, "gradient", specs, tuple(manifest.trained) if method == "train_step" else ())


def _check_roles(method: str, specs: tuple[TensorSpec, ...], allowed: set[str]) -> None:
    roles = [spec.role for spec in specs]
    once = allowed - {"x", "y", "weight", *DRAWN, "metric", "gradient"}
    wrong = sorted(set(roles) - allowed) + sorted(role for role in once if roles.count(role) != 1)
    if wrong:
        raise ProgramError(f"{method!r} has {roles.count(wrong[0])} arrays of the role {wrong[0]!r}")


def _check_names(method: str, role: str, specs: tuple[TensorSpec, ...], names: tuple[str, ...]) -> None:
    found = sorted(spec.name for spec in specs if spec.role == role)
    if found != sorted(names):
        raise ProgramError(f"{method!r} gives the {role}s {found}, but the manifest says {sorted(names)}")
