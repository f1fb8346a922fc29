"""The newest model that a device holds: what it trains from, and what it predicts with, online or not."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import safetensors
from ..data.base import batch_of
from ..data.fit import fit_parts
from ..durable_files import map_file
from ..engines.base import Engine
from ..errors import DataError, NoModel, PayloadError
from ..layout import Arrays
from ..manifest import MANIFEST_FILE, InputContract, Manifest
from ..storage.device_storage import DeviceStorage, HeldModel
from ..weights import map_weights
from .self_check import check_once

__all__ = ["Model"]


class Model:
    """
    One engine at a time, for whoever needs it: training in one thread, predictions in others.

    Args:
        storage: where programs and weights are.
        load: makes an engine from a program's folder.

    """

    def __init__(self, storage: DeviceStorage, load: Callable[[Path], Engine]) -> None:
        self._storage = storage
        self._load = load
        self._engine: tuple[str, Engine] | None = None
        self._lock = threading.RLock()

    def engine(self, manifest: str) -> Engine:
        """
        The installed program of this manifest (its hash), loaded and checked; the one before is closed.

        Raises:
            ProgramError: as :func:`~mobile_sdk.participation.self_check.check_once` does, or if it cannot be loaded.

        """
        with self._lock:
            if self._engine is None or self._engine[0] != manifest:
                self.close()
                folder = self._folder(manifest)
                engine = self._load(folder)
                try:
                    check_once(engine, folder)
                except Exception:
                    engine.close()
                    raise
                self._engine = manifest, engine
            return self._engine[1]

    def weights(self, engine: Engine, files: tuple[str, ...], *, personal: bool = True) -> Arrays:
        """
        Every parameter, mapped from these artifacts; with what is this device's own unless not ``personal``.

        Args:
            engine: its manifest says which parameters there are.
            files: SHA-256 of artifacts; later ones overlay earlier ones.
            personal: whether this device's own parameters lie over them.

        Returns:
            Name -> read-only float32 array of the parameter's shape.

        """
        paths = [self._storage.artifacts.find(sha256) for sha256 in files]
        manifest = engine.manifest
        weights = map_weights(manifest.layout, [path for path in paths if path is not None], manifest.baked)
        return {**weights, **self._own(manifest)} if personal else weights

    def _own(self, manifest: Manifest) -> Arrays:
        """What this device has trained for itself, as far as it fits the program; a damaged file counts for nothing."""
        path = self._storage.local()
        if path is None or not manifest.local:
            return {}
        with contextlib.suppress(PayloadError, OSError, ValueError):
            arrays, _ = safetensors.loads(map_file(path))
            fits = {n: arrays.get(n) for n in manifest.local}
            return {n: a for n, a in fits.items() if a is not None and a.shape == manifest.layout[n].shape}
        return {}

    def manifest(self) -> Manifest:
        """
        What the device was given: the model's layout, what of it is trained, what samples look like.

        Raises:
            NoModel: if no program has come yet.

        """
        return Manifest.from_bytes((self._folder(self._held().manifest) / MANIFEST_FILE).read_bytes())

    def predict(self, x: Any) -> npt.NDArray[np.float32]:
        """
        The model's output for ``x``, with the newest weights that are here.

        Args:
            x: a batch of any size, shape ``(n, *contract.x_shape)``.

        Returns:
            float32, shape ``(n, ...)``.

        Raises:
            NoModel: if no version has come yet.
            DataError: if ``x`` does not fit the task.

        """
        with self._lock:
            held = self._held()
            engine = self.engine(held.manifest)
            weights = self.weights(engine, held.weights)
            contract = engine.manifest.contract
            samples = _fitted(x, contract)
            size = engine.manifest.micro_batch
            shape = engine.manifest.methods["predict"].outputs[0].shape[1:]
            result = np.empty((len(samples), *shape), np.float32)
            for start in range(0, len(samples), size):
                result[start : start + size] = engine.predict(samples[start : start + size], weights)
            return result

    def close(self) -> None:
        """Free the engine."""
        with self._lock:
            if self._engine is not None:
                self._engine[1].close()
                self._engine = None

    def _held(self) -> HeldModel:
        held = self._storage.model()
        if held is None:
            raise NoModel("no version of the model is on this device yet: take part in the run until one has come")
        return held

    def _folder(self, manifest: str) -> Path:
        folder = self._storage.program_folder(manifest)
        if folder is None:
            raise NoModel("the program is not on this device any more: take part in the run until it has come again")
        return folder


def _fitted(x: Any, contract: InputContract) -> npt.NDArray[Any]:
    """
    What predictions are asked for, as the task takes it.

    Raises:
        DataError: if it does not fit.

    """
    several = bool(contract.x_parts)
    samples = batch_of("x", list(x) if isinstance(x, tuple) and not several else x)
    if not several and samples.shape[1:] != contract.x_shape:
        takes = ", ".join(map(str, ("n", *contract.x_shape)))
        raise DataError(f"x has the shape {samples.shape}; the task takes ({takes}), where n counts samples")
    return fit_parts(samples, "x", contract)
