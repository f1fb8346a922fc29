"""Run programs with ExecuTorch's C++ runtime, without torch."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ProgramError
from ..layout import Arrays, Vector
from ..manifest import PROGRAM_FILE, Manifest, TensorSpec
from ..native.library import Program, TensorMeta, set_threads
from .call import Call

__all__ = ["NativeEngine"]


class NativeEngine:
    """
    The engine of Linux and other systems with a native runtime; see :class:`~mobile_sdk.engines.base.Engine`.

    ``threads`` is the size of the pool that all engines of the process share. Calls from several threads
    take turns. A method is loaded when it is first used.

    Raises:
        ProgramError: if ``folder`` holds no program that fits ``manifest``, or engines with another
            number of threads are open.

    """

    def __init__(self, folder: Path, manifest: Manifest, *, threads: int = 1) -> None:
        self.manifest = manifest
        self._lock = threading.Lock()
        self._methods: dict[str, _Method] = {}
        set_threads(threads)
        self._program = Program(folder / PROGRAM_FILE)
        try:
            for method in manifest.methods:
                self._compare(method)
        except ProgramError:
            self._program.close()
            raise

    def train_step(
        self, x: npt.NDArray[Any], y: npt.NDArray[Any], sample_weight: Vector, weights: Arrays
    ) -> tuple[float, dict[str, float], dict[str, Vector]]:
        """See :meth:`Engine.train_step <mobile_sdk.engines.base.Engine.train_step>`."""
        with self._lock:
            call, results = self._run("train_step", {"x": x, "y": y, "sample_weight": sample_weight}, weights)
            return call.sums(results)

    def evaluate(
        self, x: npt.NDArray[Any], y: npt.NDArray[Any], sample_weight: Vector, weights: Arrays
    ) -> tuple[float, dict[str, float]]:
        """See :meth:`Engine.evaluate <mobile_sdk.engines.base.Engine.evaluate>`."""
        with self._lock:
            call, results = self._run("evaluate", {"x": x, "y": y, "sample_weight": sample_weight}, weights)
            return call.sums(results)[:2]

    def predict(self, x: npt.NDArray[Any], weights: Arrays) -> npt.NDArray[np.float32]:
        """See :meth:`Engine.predict <mobile_sdk.engines.base.Engine.predict>`; the array is the caller's."""
        with self._lock:
            _, results = self._run("predict", {"x": x}, weights)
            return results[0][: len(x)].copy()

    def close(self) -> None:
        """
        Free the program, after a call that is under way.

        Gradients that the caller still has may lie in the program's arena, which goes with the last of them.
        """
        with self._lock:
            self._methods.clear()
            self._program.close()

    def _run(
        self, name: str, batch: dict[str, npt.NDArray[Any]], weights: Arrays
    ) -> tuple[Call, list[npt.NDArray[Any]]]:
        if name not in self._methods:
            self._methods[name] = _Method(Call(self.manifest, name), self._program)
        method = self._methods[name]
        self._program.execute(name, method.call.arguments(batch, weights), method.buffers)
        return method.call, method.results

    def _compare(self, method: str) -> None:
        """What the manifest says of ``method`` against what the program says."""
        Call(self.manifest, method)
        inputs, outputs, _ = self._program.metadata(method)
        for kind, specs, metas in (
            ("input", self.manifest.methods[method].inputs, inputs),
            ("output", self.manifest.methods[method].outputs, outputs),
        ):
            _compare_tensors(method, kind, specs, metas)


class _Method:
    """A method in use: where its results are, in the arena if they can be, else in buffers of our own."""

    def __init__(self, call: Call, program: Program) -> None:
        self.call = call
        self.buffers: list[npt.NDArray[Any] | None] = []
        self.results: list[npt.NDArray[Any]] = []
        for index, spec in enumerate(call.outputs):
            result = program.output(call.method, index)
            if result is None:
                result = np.zeros(spec.shape, spec.dtype)
                self.buffers.append(result)
            else:
                self.buffers.append(None)
            self.results.append(result)


def _compare_tensors(method: str, kind: str, specs: tuple[TensorSpec, ...], metas: tuple[TensorMeta, ...]) -> None:
    if len(specs) != len(metas):
        raise ProgramError(
            f"manifest and program disagree: {method!r} has {len(specs)} {kind}s by the manifest, {len(metas)} really"
        )
    for spec, meta in zip(specs, metas, strict=True):
        if (spec.shape, spec.dtype) != (meta.shape, meta.dtype):
            raise ProgramError(
                f"manifest and program disagree: {kind} {spec.name or spec.role!r} of {method!r} is {spec.dtype} of "
                f"shape {spec.shape} by the manifest, {meta.dtype} of shape {meta.shape} really"
            )
