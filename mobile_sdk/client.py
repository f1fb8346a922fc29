"""
The device's loop: connect, get work, train, hand the update in, for as long as the run lasts.

Training does not depend on the connection: if the link breaks meanwhile, training goes on, the
update is kept on disk, and it is handed in when the coordinator can be reached again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from . import safetensors
from .backoff import delays
from .clock import Clock, Offload, SystemClock, offload
from .connection import Connect, ConnectionLost, websocket
from .data import Dataset, check
from .download import Downloads, install_program
from .engines import load_engine
from .engines.base import Engine
from .errors import DataError, FtteError, PayloadError, ProgramError, ProgramRejected, ProtocolError, Refused
from .evaluation import evaluate_dataset
from .events import (
    Announced,
    Assigned,
    Connected,
    Declined,
    Disconnected,
    Downloading,
    Evaluating,
    Event,
    Postponed,
    RunFinished,
    Training,
    UpdateAccepted,
    UpdateRejected,
    Uploading,
)
from .invite import Invite
from .link import Link
from .manifest import EXECUTORCH_VERSION
from .process import ProcessFacts, ThisProcess
from .protocol.device import DeviceSession
from .protocol.messages import (
    Accepted,
    Announce,
    ArtifactRef,
    Assign,
    Evaluate,
    Finished,
    Later,
    Name,
    Ready,
    Rejected,
    Welcome,
)
from .protocol.session import FetchRequested, PeerError, Received, SendProgress
from .storage import DeviceStorage, PendingUpdate
from .training import Diverged, Execute, TrainingResult, TrainingSettings, train_in_thread
from .weights import map_weights

__all__ = ["Client"]

# After so many assignments in a row that diverged or were refused, the device cannot help this run.
MAX_DIVERGED = 3

Listener = Callable[[Event], None]


class Client:
    """
    One device in one run.

    Args:
        url: the coordinator's address, ``wss://host:port`` (``ws://`` to this machine), or a function
            that opens a connection.
        run: the run's name.
        key: the run's public key as 64 hex digits; programs signed by any other are refused.
        dataset: this device's samples.
        storage: a folder of this device's own, kept over restarts.
        name: what to call a device that joins for the first time; made up if empty.
        token: the operator's enrolment token, where one is needed.
        budget: bytes of memory that training may take; 0 for no limit.
        insecure: allow ``ws://`` to another machine.
        certificates: PEM file of authorities to trust instead of the system's.
        certificate: SHA-256 (hex) of the one server certificate to trust instead; as in an invite.
        proxy: HTTP proxy to go through; by default that of the environment, ``""`` for none.
        load: makes an engine from a program's folder.
        execute: runs the training; the simulator puts its own here, as for the next four.
        clock: where the time comes from.
        offload: runs what must not block the event loop.
        rng: jitter of the waits between tries.
        process: what is reported of this process.

    Raises:
        ValueError: if ``url`` or ``key`` is malformed.
        StorageError: if the folder is in use, damaged, or of another run.

    """

    def __init__(
        self,
        url: str | Connect,
        *,
        run: str,
        key: str,
        dataset: Dataset,
        storage: str | Path,
        name: str = "",
        token: str = "",
        budget: int = 0,
        insecure: bool = False,
        certificates: Path | None = None,
        certificate: str = "",
        proxy: str | None = None,
        load: Callable[[Path], Engine] = load_engine,
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
        self._dataset = dataset
        self._budget = budget
        self._load = load
        self._execute = execute
        self._clock = clock or SystemClock()
        self._offload = offload
        self._rng = rng or random.Random()
        self._process = process or ThisProcess()
        self._storage = DeviceStorage(Path(storage), run, name)
        self._engine: tuple[str, Engine] | None = None
        self._diverged = 0

    @classmethod
    def from_invite(cls, link: str | Invite, *, dataset: Dataset, storage: str | Path, **options: Any) -> Client:
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

    def close(self) -> None:
        """Free the engine and let another process use the storage."""
        if self._engine is not None:
            self._engine[1].close()
            self._engine = None
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
                async with self._connect() as connection:
                    session = DeviceSession(
                        run=self._run,
                        device=self._storage.device,
                        secret=self._storage.secret,
                        token=self._token,
                        key=self._storage.trusted_key(self._pinned),
                        enrolled=self._storage.enrolled,
                    )
                    visit = _Visit(self, Link(connection, session, self._clock), listener)
                    try:
                        finished = await visit.run()
                    finally:
                        if visit.progressed:
                            waits = delays(self._rng)
                    if finished is not None:
                        return finished
            except _ComeBack as later:
                # Spread, so that those who were sent away together do not come back together.
                seconds = later.seconds * self._rng.uniform(1.0, 1.25)
                listener(Postponed(later.reason, seconds))
                await asyncio.sleep(seconds)
            except (ConnectionLost, ProtocolError, OSError) as error:  # the last: a full disk of this device, say
                seconds = next(waits)
                listener(Disconnected(str(error), seconds))
                await asyncio.sleep(seconds)

    # What a visit needs of the device.

    def _ready(self) -> Ready:
        return Ready(
            budget=self._budget,
            samples=len(self._dataset),
            engine=Name("native"),
            executorch=EXECUTORCH_VERSION,
            serial=self._storage.serial,
            peak_rss_bytes=self._process.peak_rss_bytes(),
            torch_loaded=self._process.torch_loaded(),
        )

    def _prepare(self, assign: Assign | Evaluate) -> tuple[Engine, dict[str, Any]]:
        """Verified program as an engine, and the weights, mapped."""
        folder = install_program(
            self._storage, assign, public_key=bytes.fromhex(self._storage.trusted_key(self._pinned)), run=self._run
        )
        if self._engine is None or self._engine[0] != assign.manifest.sha256:
            if self._engine is not None:
                self._engine[1].close()
                self._engine = None
            engine = self._load(folder)
            check(self._dataset, engine.manifest.contract)
            self._engine = (assign.manifest.sha256, engine)
        engine = self._engine[1]
        paths = [self._storage.artifact(ref.sha256) for ref in assign.weights]
        weights = map_weights(engine.manifest.layout, [path for path in paths if path is not None])
        return engine, weights

    def _keep(self, assign: Assign, result: TrainingResult, seconds: float, cpu: float) -> PendingUpdate:
        """Write the update down; the weights that it was trained from are not needed any more."""
        content = safetensors.dumps(result.update, {"assignment": assign.assignment, "version": str(assign.version)})
        report = {
            "version": assign.version,
            "samples": result.samples,
            "steps": result.steps,
            "loss": result.loss,
            "metrics": {name: value for name, value in result.metrics.items() if math.isfinite(value)},
            "seconds": seconds,
            "cpu_seconds": cpu,
        }
        return self._storage.save_update(assign.assignment, content, report)


class _ComeBack(Exception):
    """The coordinator has no work now."""

    def __init__(self, later: Later) -> None:
        super().__init__(later.reason)
        self.seconds = later.seconds
        self.reason = later.reason


class _Visit:
    """One connection's worth of a device's life."""

    def __init__(self, client: Client, link: Link[DeviceSession], listener: Listener) -> None:
        self._client = client
        self._storage = client._storage
        self._offload = client._offload
        self._link = link
        self._listener = listener
        self._inbox: asyncio.Queue[Welcome | Assign | Evaluate | Accepted | Rejected | Exception] = asyncio.Queue()
        self._downloads = Downloads(
            link, self._storage, client._offload, lambda received, size: listener(Downloading(received, size))
        )
        self._wanted: dict[str, tuple[ArtifactRef, asyncio.Future[None]]] = {}
        self.progressed = False
        self._broken: Exception | None = None

    async def run(self) -> RunFinished | None:
        """Work until the run has ended; raises when the link breaks."""
        reader = asyncio.create_task(self._read())
        worker = asyncio.create_task(self._work())
        try:
            await asyncio.wait({reader, worker}, return_when=asyncio.FIRST_COMPLETED)
            if reader.done() and not reader.cancelled() and reader.exception() is None:
                return reader.result()
            # The link broke: training, if it is under way, still ends and is kept.
            await worker
            return None
        finally:
            for task in (reader, worker):
                task.cancel()
            await asyncio.gather(reader, worker, return_exceptions=True)

    async def _read(self) -> RunFinished:
        """Pass on what the coordinator says; ends when the run has ended."""
        try:
            async for event in self._link.events():
                match event:
                    case Finished():
                        finished = RunFinished(event.version, event.reason, event.metrics)
                        self._listener(finished)
                        return finished
                    case Announce():
                        self._listener(Announced(event.version, event.metrics))
                    case SendProgress():
                        self._listener(Uploading(event.sent, event.size))
                    case Received():
                        await self._receive(event)
                    case FetchRequested():
                        await self._send(event)
                    case PeerError(code="unavailable" | "replaced"):
                        raise ConnectionLost(event.message)
                    case PeerError():
                        raise Refused(event.code, event.message)
                    case Later():
                        raise _ComeBack(event)
                    case Welcome() | Assign() | Evaluate() | Accepted() | Rejected():
                        self._inbox.put_nowait(event)
                    case _:
                        raise ProtocolError(f"{type(event).__name__} is not for a device")
        except Exception as error:
            self._broken = error
            self._inbox.put_nowait(error)
            for _, future in self._wanted.values():
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # the worker may be busy elsewhere and never look
            raise
        raise ConnectionLost("the coordinator left")

    async def _next(self) -> Welcome | Assign | Evaluate | Accepted | Rejected:
        item = await self._inbox.get()
        if isinstance(item, Exception):
            self._inbox.put_nowait(item)  # whoever asks next gets it too
            raise item
        return item

    async def _work(self) -> None:
        welcome = await self._next()
        if not isinstance(welcome, Welcome):
            raise ProtocolError("the coordinator gave work before it welcomed the device")
        self._storage.remember_enrolment()
        self._storage.trust_key(self._client._pinned, self._link.session.key)
        self._listener(Connected(self._storage.device, welcome.version))
        pending = await self._offload(self._storage.pending_update)
        while True:
            if pending is not None:
                await self._hand_in(pending)
            self._link.session.ready(self._client._ready())
            await self._link.flush()
            task = await self._next()
            match task:
                case Assign():
                    pending = await self._do(task)
                case Evaluate():
                    pending = None
                    await self._evaluate(task)
                case _:
                    raise ProtocolError(f"{type(task).__name__.lower()} came where an assignment was due")

    async def _evaluate(self, evaluate: Evaluate) -> None:
        """How well a version does on this device's own samples; nothing but the means is told."""
        self._listener(Evaluating(evaluate.evaluation, evaluate.version))
        try:
            await self._download(evaluate)
            engine, weights = await self._offload(self._client._prepare, evaluate)
            samples, metrics = await self._offload(evaluate_dataset, engine, weights, self._client._dataset)
        except (DataError, PayloadError, ProgramError) as error:
            self._link.session.decline(evaluate.evaluation, "evaluation", str(error))
        else:
            self._link.session.evaluated(evaluate.evaluation, samples, metrics)
        await self._link.flush()

    async def _do(self, assign: Assign) -> PendingUpdate | None:
        """Download, train and keep the update; none if the assignment was given back."""
        self._listener(Assigned(assign.assignment, assign.version))
        try:
            settings = TrainingSettings.from_json(assign.settings)
            await self._download(assign)
            engine, weights = await self._offload(self._client._prepare, assign)
            began, cpu = self._client._clock.monotonic(), self._client._process.cpu_seconds()
            result = await self._client._execute(
                engine,
                weights,
                self._client._dataset,
                settings,
                assign.seed,
                lambda step, steps, loss: self._listener(Training(step, steps, loss)),
            )
            seconds = self._client._clock.monotonic() - began
            cpu = self._client._process.cpu_seconds() - cpu
        except (Diverged, DataError, PayloadError, ProgramError) as error:
            await self._decline(assign, error)
            return None
        return await self._keep(assign, result, seconds, cpu)

    async def _keep(self, assign: Assign, result: TrainingResult, seconds: float, cpu: float) -> PendingUpdate:
        """Write the update down; a full disk must not cost the work that is done."""
        for wait in delays(self._client._rng):
            try:
                update: PendingUpdate = await self._offload(self._client._keep, assign, result, seconds, cpu)
            except OSError as error:
                self._listener(Disconnected(f"the update cannot be kept: {error}", wait))
                await asyncio.sleep(wait)
            else:
                return update
        raise AssertionError("the waits never end")

    async def _decline(self, assign: Assign, error: FtteError) -> None:
        """Give an assignment back; only divergence is worth another try on this device."""
        code = {Diverged: "diverged", DataError: "data", PayloadError: "weights", ProgramRejected: "program-rejected"}
        self._listener(Declined(assign.assignment, str(error)))
        self._link.session.decline(assign.assignment, code.get(type(error), "program"), str(error))
        await self._link.flush()
        self._client._diverged += 1
        if not isinstance(error, Diverged) or self._client._diverged >= MAX_DIVERGED:
            raise error

    async def _download(self, assign: Assign | Evaluate) -> None:
        """Fetch what is missing of the assignment, and forget what belongs to none."""
        refs = [*assign.weights]
        if self._storage.program_folder(assign.manifest.sha256) is None:
            refs += [assign.manifest, assign.program]
        await self._offload(self._storage.keep_artifacts, [ref.sha256 for ref in refs])
        for ref in refs:
            done = asyncio.get_running_loop().create_future()
            self._wanted[ref.sha256] = (ref, done)
            if self._broken is not None:  # the reader is gone: nobody would ever answer
                raise self._broken
            if not await self._downloads.start(ref):
                await done
            del self._wanted[ref.sha256]
            self.progressed = True

    async def _receive(self, event: Received) -> None:
        ref, done = self._wanted[event.chunk.sha256]
        if await self._downloads.receive(ref, event):
            done.set_result(None)

    async def _hand_in(self, update: PendingUpdate) -> None:
        """Offer an update until the coordinator has it, or says that it never will."""
        self._link.session.offer(update.assignment, update.artifact, update.report)
        await self._link.flush()
        answer = await self._next()
        if not isinstance(answer, Accepted | Rejected) or answer.assignment != update.assignment:
            raise ProtocolError(f"{answer} does not answer the update of {update.assignment}")
        await self._offload(self._storage.drop_update)
        self.progressed = True
        if isinstance(answer, Accepted):
            self._client._diverged = 0
            self._listener(UpdateAccepted(answer.assignment, answer.staleness))
        else:
            self._listener(UpdateRejected(answer.assignment, answer.code, answer.message))
            self._client._diverged += answer.code in ("not-finite", "magnitude", "payload", "report")
            if self._client._diverged >= MAX_DIVERGED:
                raise Refused(answer.code, answer.message)

    async def _send(self, event: FetchRequested) -> None:
        """Send the pending update; it is the only thing that ever leaves a device."""
        update = await self._offload(self._storage.pending_update)
        if update is None or update.artifact.sha256 != event.sha256:
            raise ProtocolError(f"the coordinator asked for {event.sha256}, which was not offered")
        content = await self._offload(self._storage.update_content, update.artifact)
        self._link.session.send_artifact(event.sha256, memoryview(content), event.offset, self._link.now())
        await self._link.flush()
