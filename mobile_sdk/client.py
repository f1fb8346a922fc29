"""
The device's side of a run: connect, get work, train, hand the update in, for as long as the run lasts.

Training does not depend on the connection: if the link breaks meanwhile, training goes on, the
update is kept on disk, and it is handed in when the coordinator can be reached again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import random
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import safetensors
from .clock import Clock, Offload, SystemClock, offload
from .conditions import Provider, system_conditions
from .data.base import Dataset
from .data.check import check
from .data.convert import as_dataset
from .data.samples import SampleStore
from .engines import load_engine
from .engines.base import Engine
from .errors import ProtocolError, Refused, VersionMismatch
from .events import Disconnected, Event, Paused, Personal, Postponed, RunFinished
from .invite import Invite
from .layout import Arrays
from .manifest import EXECUTORCH_VERSION, InputContract, Manifest
from .net.backoff import delays
from .net.connection import Connect, ConnectionLost, websocket
from .net.link import Link
from .participation.download import install_program
from .participation.model import Model
from .participation.visit import ComeBack, Device, Listener, Visit
from .payload import UpdateFormat, encode_update
from .payload.feedback import carried_over, left_out
from .policy.guard import LOOK_AGAIN_SECONDS, Guard, Stopped
from .policy.rules import Policy
from .process import ProcessFacts, ThisProcess
from .protocol.device_session import DeviceSession
from .protocol.messages import Assign, Evaluate, Name, Ready, Sha256
from .storage.device_storage import DeviceStorage, HeldModel, PendingUpdate
from .training.personal import side_by_side, to_report
from .training.train import Execute, TrainingResult, train_in_thread

__all__ = ["Client"]


class Client:
    """
    One device in one run.

    Args:
        url: the coordinator's address, ``wss://host:port`` (``ws://`` to this machine), or a function
            that opens a connection.
        run: the run's name.
        key: the run's public key as 64 hex digits; programs signed by any other are refused.
        dataset: this device's samples: whatever :func:`~mobile_sdk.data.as_dataset` takes.
        storage: a folder of this device's own, kept over restarts.
        name: what to call a device that joins for the first time; made up if empty.
        token: the operator's enrolment token, where one is needed.
        held_out: samples that are never trained on, in the same forms as ``dataset``: what the personal model is judged
            by, where the task has local parameters; without them it is judged by the samples that it is trained on.
        budget: bytes of memory that training may take; 0 for no limit.
        insecure: allow ``ws://`` to another machine.
        certificates: PEM file of authorities to trust instead of the system's.
        certificate: SHA-256 (hex) of the one server certificate to trust instead; as in an invite.
        proxy: HTTP proxy to go through; by default that of the environment, ``""`` for none.
        policy: when the device may connect and train; without one, always.
        conditions: tells the state of the device, for the policy; by default the system's own.
        engine: what runs programs: ``"native"``, ``"android"`` or ``"interpreted"``; see :mod:`mobile_sdk.engines`.
        load: makes that engine from a program's folder; :func:`~mobile_sdk.load_engine` by default.
        execute: runs the training; the simulator puts its own here, as for the next four.
        clock: where the time comes from.
        offload: runs what must not block the event loop.
        rng: jitter of the waits between tries.
        process: what is reported of this process.

    Raises:
        ValueError: if ``url`` or ``key`` is malformed.
        DataError: if ``dataset`` is nothing that can be trained on.
        StorageError: if the folder is in use, damaged, or of another run.

    """

    def __init__(
        self,
        url: str | Connect,
        *,
        run: str,
        key: str,
        dataset: Any,
        storage: str | Path,
        name: str = "",
        token: str = "",
        held_out: Any = None,
        budget: int = 0,
        insecure: bool = False,
        certificates: Path | None = None,
        certificate: str = "",
        proxy: str | None = None,
        policy: Policy | None = None,
        conditions: Provider | None = None,
        engine: str = "native",
        load: Callable[[Path], Engine] | None = None,
        execute: Execute = train_in_thread,
        clock: Clock | None = None,
        offload: Offload = offload,
        rng: random.Random | None = None,
        process: ProcessFacts | None = None,
    ) -> None:
        self._connect = (
            websocket(url, insecure=insecure, certificates=certificates, certificate=certificate, proxy=proxy)
            if isinstance(url, str)
            else url
        )
        if re.fullmatch("[0-9a-f]{64}", key) is None:
            raise ValueError(f"the key must be 64 hex digits, not {key!r}: the coordinator prints it at its start")
        self._pinned = key
        self._run = run
        self._token = token
        self._dataset = as_dataset(dataset)
        self._held_out = None if held_out is None else as_dataset(held_out)
        self._budget = budget
        self._clock = clock or SystemClock()
        self._offload = offload
        self._rng = rng or random.Random()
        self._process = process or ThisProcess()
        self._storage = DeviceStorage(Path(storage), run, name)
        self._engine = engine
        self._model = Model(self._storage, load or functools.partial(load_engine, engine=engine))
        self._checked: tuple[str, int] | None = None
        self._prepared = ""  # the manifest of the program that was loaded last
        looks = (conditions or system_conditions()) if policy is not None else None
        self._guard = Guard(policy, looks, self._storage, self._clock, offload)
        self._device = Device(
            storage=self._storage,
            clock=self._clock,
            offload=offload,
            execute=execute,
            rng=self._rng,
            guard=self._guard,
            process=self._process,
            pinned=key,
            ready=self._ready,
            prepare=self._prepare,
            samples=self._samples,
            judge=self._judge,
            keep=self._keep,
        )

    @classmethod
    def from_invite(cls, link: str | Invite, *, dataset: Any, storage: str | Path, **options: Any) -> Client:
        """
        A client from a ``ftte://join?...`` link.

        Args:
            link: what ``ftte invite`` printed, or its QR code said.
            dataset: this device's samples.
            storage: as in the class.
            options: further arguments of the class.

        Raises:
            InviteError: if the link invites to no run.

        """
        invite = Invite.parse(link) if isinstance(link, str) else link
        given = {"token": invite.token, "certificate": invite.certificate} | options
        return cls(invite.url, run=invite.run, key=invite.key, dataset=dataset, storage=storage, **given)

    @property
    def device(self) -> str:
        """The name that this device enrolled with."""
        return self._storage.device

    @property
    def manifest(self) -> Manifest:
        """
        What this device was given: the model's layout, the subset of it that is trained here, measured memory.

        Raises:
            NoModel: if no program has come yet.

        """
        return self._model.manifest()

    @property
    def contract(self) -> InputContract:
        """
        What the task's samples look like: shapes, dtypes, range, normalisation, names of labels.

        Raises:
            NoModel: if no program has come yet.

        """
        return self.manifest.contract

    def check(self, dataset: Any) -> None:
        """
        Compare every sample with the task's input contract, which has come with the program.

        Raises:
            DataError: naming the first sample that breaks it, and how.
            NoModel: if no program has come yet.

        """
        check(as_dataset(dataset), self.contract)

    def predict(self, x: Any) -> npt.NDArray[np.float32]:
        """
        The model's output with the newest weights that are here; needs no connection, from any thread.

        Args:
            x: a batch of any size, shape ``(n, *contract.x_shape)``.

        Returns:
            float32, shape ``(n, ...)``: the model's own output, such as logits.

        Raises:
            NoModel: if no version has come yet.
            ProgramError: if ``x`` does not fit the task.

        """
        return self._model.predict(x)

    def close(self) -> None:
        """Free the engine and let another process use the storage."""
        self._model.close()
        self._storage.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    async def events(self) -> AsyncIterator[Event]:
        """Take part in the run, telling what happens; ends with the run. Raises what :meth:`run` raises."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        running = asyncio.create_task(self.run(queue.put_nowait))
        running.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (event := await queue.get()) is not None:
                yield event
            await running
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def run(self, listener: Listener = lambda event: None) -> RunFinished:
        """
        Take part in the run until it has ended; cancel at any time.

        Args:
            listener: called with every event, in the event loop; must not block.

        Raises:
            Refused: if the coordinator will not have this device, and why.
            ProgramRejected: if it sent a program that is not the run's own.
            ProgramError: if a program cannot run on this device.
            DataError: if the dataset breaks the task's input contract.

        """
        waits = delays(self._rng)
        while True:
            try:
                await self._guard.wait(listener)
                await self._until_samples(listener)
                async with self._connect() as connection:
                    session = DeviceSession(
                        run=self._run,
                        device=self._storage.device,
                        secret=self._storage.secret,
                        token=self._token,
                        key=self._storage.trusted_key(self._pinned),
                        enrolled=self._storage.enrolled,
                    )
                    link = Link(connection, session, self._clock)
                    visit = Visit(self._device, link, listener)
                    self._guard.link_opened(link)
                    try:
                        finished = await self._guard.watch(visit.run())
                    finally:
                        if visit.progressed:
                            waits = delays(self._rng)
                    if finished is not None:
                        self._storage.drop_training()  # nobody wants it any more
                        return finished
            except Stopped as stopped:
                listener(Paused(str(stopped), LOOK_AGAIN_SECONDS))
            except ComeBack as later:
                # Spread, so that those who were sent away together do not come back together.
                seconds = later.seconds * self._rng.uniform(1.0, 1.25)
                listener(Postponed(later.reason, seconds))
                await asyncio.sleep(seconds)
            except VersionMismatch as error:
                raise Refused("version", str(error)) from error
            except (ConnectionLost, ProtocolError, OSError) as error:  # the last: a full disk of this device, say
                seconds = next(waits)
                listener(Disconnected(str(error), seconds))
                await asyncio.sleep(seconds)

    async def _until_samples(self, listener: Listener) -> None:
        while await self._offload(len, self._dataset) == 0:
            listener(Paused("there are no samples yet", LOOK_AGAIN_SECONDS))
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    # What a visit needs of the device.

    def _ready(self) -> Ready:
        return Ready(
            budget=self._budget,
            samples=len(self._dataset),
            engine=Name(self._engine),
            executorch=EXECUTORCH_VERSION,
            serial=self._storage.serial,
            peak_rss_bytes=self._process.peak_rss_bytes(),
            torch_loaded=self._process.torch_loaded(),
            holds=self._holds(),
        )

    def _holds(self) -> tuple[Sha256, ...]:
        model = self._storage.model()
        return tuple(Sha256(sha256) for sha256 in model.weights) if model is not None else ()

    def _prepare(self, assign: Assign | Evaluate) -> tuple[Engine, Arrays]:
        """Verified program as an engine, and the weights, mapped; from now on predictions are made with them."""
        key = bytes.fromhex(self._storage.trusted_key(self._pinned))
        other = self._prepared != assign.manifest.sha256
        if other:
            self._process.release_memory()  # what starting and downloading took, before loading takes its own
        install_program(self._storage, assign, public_key=key, run=self._run, engine=self._engine)
        engine = self._model.engine(assign.manifest.sha256)
        files = tuple(ref.sha256 for ref in assign.weights)
        weights = self._model.weights(engine, files)
        self._process.release_memory(garbage=other)  # before training takes its own
        self._prepared = assign.manifest.sha256
        self._storage.remember_model(HeldModel(assign.version, assign.manifest.sha256, files))
        return engine, weights

    def _samples(self, engine: Engine, manifest: str) -> Dataset:
        """What to train on: all samples of now, which keep the task's contract."""
        dataset = self._dataset.snapshot() if isinstance(self._dataset, SampleStore) else self._dataset
        if self._checked != (manifest, len(dataset)) or isinstance(self._dataset, SampleStore):
            check(dataset, engine.manifest.contract)
            self._checked = manifest, len(dataset)
        return dataset

    def _judge(self, engine: Engine, assign: Assign, result: TrainingResult, samples: Dataset) -> Personal | None:
        """The global and the personal model side by side; none where the task has no local parameters."""
        if not engine.manifest.local:
            return None
        weights = self._model.weights(engine, tuple(ref.sha256 for ref in assign.weights), personal=False)
        data, held_out = (samples, False) if self._held_out is None else (self._held_out, True)
        return side_by_side(engine, weights, result.local, data, held_out)

    def _keep(
        self, assign: Assign, result: TrainingResult, personal: Personal | None, seconds: float, cpu: float
    ) -> PendingUpdate:
        """Write the update down; the weights that it was trained from are not needed any more."""
        packing = UpdateFormat.from_json(assign.payload)
        update = carried_over(result.update, self._storage.residual()) if packing.top_k < 1 else result.update
        arrays, metadata = encode_update(update, packing, assign.seed)
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
            **(to_report(personal) if personal is not None else {}),
        }
        if result.local:
            self._storage.save_local(safetensors.dumps(result.local))
        return self._storage.save_update(assign.assignment, safetensors.pieces(arrays, metadata), report, left)
