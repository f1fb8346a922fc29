"""Run programs with ExecuTorch's C++ runtime, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ProgramError
from ..manifest import PROGRAM_FILE, Manifest, TensorSpec
from ..native.library import NativeProgram, TensorMeta, set_threads
from .call import Call
from .calling_engine import CallingEngine
from .runtime_build import mapped_build

__all__ = ["NativeEngine"]


class NativeEngine(CallingEngine):
    """
    The engine of Linux and other systems with a native runtime; see :class:`~mobile_sdk.engines.base.Engine`.

    ``threads`` is the size of the pool that all engines of the process share. A method is loaded when it is first
    used. Gradients that the caller still has when the engine is closed may lie in the program's arena, which goes with
    the last of them.

    Raises:
        ProgramError: if ``folder`` holds no program that fits ``manifest``, or engines with another
            number of threads are open.

    """

    def __init__(self, folder: Path, manifest: Manifest, *, threads: int = 1) -> None:
        super().__init__(manifest)
        self._results: dict[str, _Results] = {}
        set_threads(threads)
        self._program = NativeProgram(folder / PROGRAM_FILE)
        try:
            for method in manifest.methods:
                self._compare(method)
        except ProgramError:
            self._program.close()
            raise
        self.runtime = mapped_build("native")

    def _execute(self, call: Call, arguments: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        if call.method not in self._results:
            self._results[call.method] = _Results(call, self._program)
        results = self._results[call.method]
        self._program.execute(call.method, arguments, results.buffers)
        return results.arrays

    def _close(self) -> None:
        self._results.clear()
        self._program.close()

    def _compare(self, method: str) -> None:
        """What the manifest says of ``method`` against what the program says."""
        inputs, outputs, _ = self._program.metadata(method)
        for kind, specs, metas in (
            ("input", self.manifest.methods[method].inputs, inputs),
            ("output", self.manifest.methods[method].outputs, outputs),
        ):
            _compare_tensors(method, kind, specs, metas)


class _Results:
    """Where the results of a method in use are: in the arena if they can be, else in buffers of our own."""

    def __init__(self, call: Call, program: NativeProgram) -> None:
        self.buffers: list[npt.NDArray[Any] | None] = []
        self.arrays: list[npt.NDArray[Any]] = []
        for index, spec in enumerate(call.outputs):
            result = program.output(call.method, index)
            if result is None:
                result = np.zeros(spec.shape, spec.dtype)
                self.buffers.append(result)
            else:
                self.buffers.append(None)
            self.arrays.append(result)


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
