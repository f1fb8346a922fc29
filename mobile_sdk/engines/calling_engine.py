"""What all engines have in common: methods called with arrays in the manifest's order, one call at a time."""

from __future__ import annotations

import abc
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..layout import Arrays, Vector
from ..manifest import Manifest
from .call import Call

__all__ = ["CallingEngine"]


class CallingEngine(abc.ABC):
    """
    An :class:`~mobile_sdk.engines.base.Engine` over :meth:`_execute`.

    Calls from several threads take turns.

    Raises:
        ProgramError: if the manifest contradicts itself about a method.

    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.runtime = ""
        self._lock = threading.Lock()
        self._calls = {method: Call(manifest, method) for method in manifest.methods}

    def train_step(
        self,
        x: npt.NDArray[Any],
        y: npt.NDArray[Any],
        sample_weight: Vector,
        weights: Arrays,
        dropout: np.random.Generator | None = None,
    ) -> tuple[float, dict[str, float], dict[str, Vector]]:
        """See :meth:`Engine.train_step <mobile_sdk.engines.base.Engine.train_step>`."""
        with self._lock:
            call, results = self._run("train_step", {"x": x, "y": y, "sample_weight": sample_weight}, weights, dropout)
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
        """Free the program, after a call that is under way."""
        with self._lock:
            self._close()

    def _run(
        self,
        method: str,
        batch: dict[str, npt.NDArray[Any]],
        weights: Arrays,
        dropout: np.random.Generator | None = None,
    ) -> tuple[Call, Sequence[npt.NDArray[Any]]]:
        call = self._calls.get(method) or Call(self.manifest, method)  # which says what is wrong
        return call, self._execute(call, call.arguments(batch, weights, dropout))

    @abc.abstractmethod
    def _execute(self, call: Call, arguments: list[npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        """The outputs of ``call.method`` in the manifest's order; they may be overwritten by the next call."""

    @abc.abstractmethod
    def _close(self) -> None:
        """Free what the program holds; more than once is fine."""
