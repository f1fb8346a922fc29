"""What a device brings to a visit: its samples, its model, and the work that is done on them."""

from __future__ import annotations

import math

from .. import safetensors
from ..data.base import Dataset
from ..data.folder import FolderDataset
from ..data.samples import SampleStore
from ..data.usable import Usable, usable_samples
from ..engines.base import Engine
from ..events import Personal
from ..layout import Arrays
from ..manifest import EXECUTORCH_VERSION
from ..payload import UpdateFormat, encode_update
from ..payload.feedback import carried_over, left_out
from ..policy.guard import Guard
from ..protocol.messages import Assign, Evaluate, Name, Ready, Sha256
from ..storage.device_storage import DeviceStorage, HeldModel
from ..storage.pending_update import PendingUpdate
from ..training.personal import side_by_side, to_report
from ..training.train import TrainingResult
from .download import install_program
from .model import Model
from .surroundings import Surroundings

__all__ = ["Device"]


class Device:
    """
    One device in one run: what outlives its visits. Methods block; a visit calls them through ``offload``.

    Args:
        run: the run's name.
        pinned: the run's public key (hex), as the app pins it.
        dataset: what is trained on.
        held_out: what the personal model is judged by; the samples that it is trained on, if none.
        budget: bytes of memory that training may take; 0 for no limit.
        engine: what runs programs, by name.
        storage: the device's folder.
        model: engine and weights.
        guard: keeps the device to its policy.
        surroundings: time, threads, chance and process.

    ``failed`` counts assignments in a row that came to nothing; ``bytes_up`` and ``bytes_down`` are those since the
    last update was acknowledged.
    """

    def __init__(
        self,
        *,
        run: str,
        pinned: str,
        dataset: Dataset,
        held_out: Dataset | None,
        budget: int,
        engine: str,
        storage: DeviceStorage,
        model: Model,
        guard: Guard,
        surroundings: Surroundings,
    ) -> None:
        self.pinned = pinned
        self.storage = storage
        self.guard = guard
        self.clock = surroundings.clock
        self.offload = surroundings.offload
        self.execute = surroundings.execute
        self.rng = surroundings.rng
        self.process = surroundings.process
        self.failed = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._run = run
        self._dataset = dataset
        self._held_out = held_out
        self._budget = budget
        self._engine = engine
        self._model = model
        self._checked: tuple[str, int] | None = None
        self._usable: Usable | None = None
        self.told_skipped: list[int] = []
        # What an app adds to, so that data that cannot be used today may be used tomorrow.
        self.data_may_change = isinstance(dataset, SampleStore | FolderDataset)
        self._prepared = ""  # the manifest of the program that was loaded last

    def ready(self) -> Ready:
        """What the device says of itself before it is given work."""
        return Ready(
            budget=self._budget,
            samples=len(self._dataset),
            engine=Name(self._engine),
            executorch=EXECUTORCH_VERSION,
            serial=self.storage.identity.serial,
            peak_rss_bytes=self.process.peak_rss_bytes(),
            torch_loaded=self.process.torch_loaded(),
            model=self.process.device_model(),
            holds=self._holds(),
        )

    def _holds(self) -> tuple[Sha256, ...]:
        model = self.storage.model()
        return tuple(Sha256(sha256) for sha256 in model.weights) if model is not None else ()

    def prepare(self, assign: Assign | Evaluate) -> tuple[Engine, Arrays]:
        """
        Verified program as an engine, and the weights, mapped; from now on predictions are made with them.

        Returns:
            The engine, and name -> float32 array of the parameter's shape, read-only.

        """
        key = bytes.fromhex(self.storage.identity.trusted_key(self.pinned))
        other = self._prepared != assign.manifest.sha256
        if other:
            self.process.release_memory()  # what starting and downloading took, before loading takes its own
        install_program(self.storage, assign, public_key=key, run=self._run, engine=self._engine)
        engine = self._model.engine(assign.manifest.sha256)
        files = tuple(ref.sha256 for ref in assign.weights)
        weights = self._model.weights(engine, files)
        self.process.release_memory(garbage=other)  # before training takes its own
        self._prepared = assign.manifest.sha256
        self.storage.remember_model(HeldModel(assign.version, assign.manifest.sha256, files))
        return engine, weights

    def samples(self, engine: Engine, manifest: str) -> Usable:
        """
        What to train on: the samples of now that keep the task's contract.

        Raises:
            DataError: if none does.

        """
        dataset = self._dataset.snapshot() if isinstance(self._dataset, SampleStore) else self._dataset
        if self._usable is None or self._checked != (manifest, len(dataset)) or isinstance(self._dataset, SampleStore):
            self._usable = usable_samples(dataset, engine.manifest.contract)
            self._checked = manifest, len(dataset)
        return self._usable

    def judge(self, engine: Engine, assign: Assign, result: TrainingResult, samples: Dataset) -> Personal | None:
        """
        The global and the personal model side by side; none where the task has no local parameters.

        Args:
            engine: runs the program.
            assign: names the weights that were trained from.
            result: of the training, with the local parameters.
            samples: what to compare on, where there are no held-out ones.

        Raises:
            DataError: if no held-out sample keeps the task's contract.

        """
        if not engine.manifest.local:
            return None
        weights = self._model.weights(engine, tuple(ref.sha256 for ref in assign.weights), personal=False)
        data, held_out = samples, False
        if self._held_out is not None:
            data, held_out = usable_samples(self._held_out, engine.manifest.contract), True
        return side_by_side(engine, weights, result.local, data, held_out)

    def keep(
        self, assign: Assign, result: TrainingResult, personal: Personal | None, seconds: float, cpu: float
    ) -> PendingUpdate:
        """
        Write the update down; the weights that it was trained from are not needed any more.

        Args:
            assign: says how updates are packed.
            result: of the training.
            personal: metrics of the global and the personal model.
            seconds: wall time of the training.
            cpu: seconds of processor time.

        """
        packing = UpdateFormat.from_json(assign.payload)
        update = carried_over(result.update, self.storage.update.residual()) if packing.top_k < 1 else result.update
        arrays, metadata = encode_update(update, packing, assign.seed)
        saturated = int(metadata.get("saturated", "0"))
        metadata |= {"assignment": assign.assignment, "version": str(assign.version)}
        left = left_out(update, arrays, metadata) if packing.top_k < 1 else b""
        report = {
            "version": assign.version,
            "samples": result.samples,
            "steps": result.steps,
            "loss": result.loss,
            "metrics": {name: value for name, value in result.metrics.items() if math.isfinite(value)},
            "seconds": seconds,
            "cpu_seconds": cpu,
            **({"saturated": saturated} if saturated else {}),
            **(to_report(personal) if personal is not None else {}),
        }
        if result.local:
            self.storage.save_local(safetensors.dumps(result.local))
        return self.storage.save_update(assign.assignment, safetensors.pieces(arrays, metadata), report, left)
