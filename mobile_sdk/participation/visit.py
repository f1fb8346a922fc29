"""One connection's worth of a device's life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..data.usable import Usable
from ..errors import (
    DataError,
    FtteError,
    PayloadError,
    ProgramError,
    ProgramRejected,
    ProtocolError,
    Refused,
    SelfCheckFailed,
    Unproven,
)
from ..events import (
    Announced,
    Assigned,
    Connected,
    Cost,
    Declined,
    Disconnected,
    Downloading,
    Evaluating,
    Event,
    Merged,
    Personal,
    RunFinished,
    SamplesSkipped,
    Training,
    UpdateAccepted,
    UpdateRejected,
    Uploading,
    Waiting,
)
from ..net.backoff import delays
from ..net.connection import ConnectionLost
from ..net.link import Link
from ..payload import UpdateFormat, check_packing, most_bytes
from ..protocol.device_session import DeviceSession
from ..protocol.messages import (
    Accepted,
    Announce,
    ArtifactRef,
    Assign,
    Difference,
    Evaluate,
    Finished,
    Later,
    MergedMessage,
    Rejected,
    Wait,
    Welcome,
)
from ..protocol.session import FetchRequested, PeerError, Received, SendProgress, State
from ..protocol.traces import TripTrace
from ..storage.pending_update import PendingUpdate
from ..training.checkpoint import Checkpoints
from ..training.evaluation import evaluate_dataset
from ..training.settings import TrainingSettings
from ..training.train import Diverged, TrainingResult
from .device import Device
from .download import Downloads, check_sizes

__all__ = ["ComeBack", "Listener", "Visit"]

# After so many assignments in a row that diverged or were refused, the device waits for so long before each further
# one: it cannot help just now. It may be the weights that are bad, which all devices get, and the operator mends them.
MAX_DIVERGED = 3
DIVERGED_SECONDS = 1_800.0

# When samples that could not be used are looked at again: an app may have added others meanwhile.
DATA_SECONDS = 300.0

Listener = Callable[[Event], None]


# How long a coordinator can send a device away, and how long somebody who has not proved to be one.
LONGEST_LATER_SECONDS = 86_400.0
LONGEST_UNPROVEN_SECONDS = 300.0


class ComeBack(Exception):
    """The coordinator has no work now."""

    def __init__(self, later: Later, *, welcomed: bool = True) -> None:
        super().__init__(later.reason)
        # Whoever has not proved yet that it is the coordinator cannot keep a device away for long.
        self.seconds = min(later.seconds, LONGEST_LATER_SECONDS if welcomed else LONGEST_UNPROVEN_SECONDS)
        self.reason = later.reason


class Visit:
    """
    From connecting to the end of the link, or of the run.

    Args:
        device: whose visit it is.
        link: the open connection, with nothing said on it yet.
        listener: called with every event.
        once: leave after one assignment was trained and handed in, or given back.

    ``welcomed`` tells whether the device was let in, ``progressed`` whether anything came of it, ``trained`` whether an
    assignment did.
    """

    def __init__(
        self,
        device: Device,
        link: Link[DeviceSession],
        listener: Listener,
        *,
        once: bool = False,
        trained: bool = False,
    ) -> None:
        self._device = device
        self._storage = device.storage
        self._offload = device.offload
        self._link = link
        self._tell = listener
        self._ended = False
        self._inbox: asyncio.Queue[Welcome | Assign | Evaluate | Accepted | Rejected | Exception] = asyncio.Queue()
        self._downloads = Downloads(
            link,
            self._storage.artifacts,
            device.offload,
            lambda received, size: self._listener(Downloading(received, size)),
        )
        self._wanted: dict[str, tuple[ArtifactRef, asyncio.Future[None]]] = {}
        self._once = once
        self.trained = trained
        self.progressed = False
        self.welcomed = False
        self._broken: Exception | None = None

    async def run(self) -> RunFinished | None:
        """Work until the run has ended, or the one assignment is done; raises when the link breaks."""
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
            self._device.bytes_up += self._link.sent
            self._device.bytes_down += self._link.received

    def _listener(self, event: Event) -> None:
        """Tell the app; nothing comes after the end of the run, though a training thread may still be at a step."""
        if not self._ended:
            self._tell(event)

    async def _read(self) -> RunFinished:
        """Pass on what the coordinator says; ends when the run has ended."""
        try:
            async for event in self._link.events():
                match event:
                    case Finished():
                        finished = RunFinished(event.version, event.reason, event.metrics)
                        self._listener(finished)
                        self._ended = True
                        return finished
                    case Announce():
                        self._listener(Announced(event.version, event.metrics, event.devices))
                    case MergedMessage():
                        self._listener(Merged(event.assignment, event.version, event.staleness, event.weight))
                    case Wait():
                        self._listener(Waiting(event.reason))
                    case SendProgress():
                        self._listener(Uploading(event.sent, event.size))
                    case Received():
                        await self._receive(event)
                    case FetchRequested():
                        await self._send(event)
                    case PeerError(code="unavailable" | "replaced"):
                        raise ConnectionLost(event.message)
                    case PeerError():
                        kind = Refused if self._link.session.proven else Unproven
                        raise kind(event.code, event.message)
                    case Later():
                        raise ComeBack(event, welcomed=self._link.session.state is State.OPEN)
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
        welcome = await self._next_in_time()
        if not isinstance(welcome, Welcome):
            raise ProtocolError("the coordinator gave work before it welcomed the device")
        self.welcomed = True
        self._storage.identity.remember_enrolment()
        self._storage.identity.trust_key(self._device.pinned, self._link.session.key)
        self._listener(Connected(self._storage.identity.device, welcome.version))
        pending = await self._offload(self._storage.update.pending)
        while True:
            if pending is not None:
                await self._hand_in(pending)
            if self.trained and self._once:
                return
            self._link.session.ready(await self._offload(self._device.ready))
            await self._link.flush()
            task = await self._next_in_time()
            match task:
                case Assign():
                    pending = await self._do(task)
                    self.trained = True
                case Evaluate():
                    pending = None
                    await self._evaluate(task)
                case _:
                    raise ProtocolError(f"{type(task).__name__.lower()} came where an assignment was due")

    async def _next_in_time(self) -> Welcome | Assign | Evaluate | Accepted | Rejected:
        """What the coordinator wants next; a device whose patience has an end leaves when there is nothing."""
        guard = self._device.guard
        try:
            async with asyncio.timeout(guard.patience_seconds):
                return await self._next()
        except TimeoutError:
            reason = f"the coordinator gave no work within {guard.patience_seconds:g} s"
            raise ComeBack(Later(guard.away_seconds, reason)) from None

    async def _evaluate(self, evaluate: Evaluate) -> None:
        """How well a version does on this device's own samples; nothing but the means is told."""
        self._listener(Evaluating(evaluate.evaluation, evaluate.version))
        try:
            await self._download(evaluate)
            engine, weights = await self._offload(self._device.prepare, evaluate)
            samples = await self._offload(self._device.samples, engine, evaluate.manifest.sha256)
            count, metrics = await self._offload(evaluate_dataset, engine, weights, samples)
        except SelfCheckFailed as error:
            self._link.session.decline(evaluate.evaluation, "self-check", str(error))
            await self._link.flush()
            raise  # the device can do nothing with this program
        except (DataError, PayloadError, ProgramError) as error:
            self._link.session.decline(evaluate.evaluation, "evaluation", str(error))
        else:
            self._link.session.evaluated(evaluate.evaluation, count, metrics)
        await self._link.flush()

    async def _do(self, assign: Assign) -> PendingUpdate | None:
        """Download, train and keep the update; none if the assignment was given back."""
        trace = TripTrace.of(assign.signature, assign.assignment)
        self._listener(Assigned(assign.assignment, assign.version, trace.parent))
        try:
            settings = TrainingSettings.from_json(assign.settings)
            packing = UpdateFormat.from_json(assign.payload)  # before the work, not after it
            await self._download(assign)
            engine, weights = await self._offload(self._device.prepare, assign)
            check_packing(packing, engine.manifest.subset)
            samples = await self._offload(self._device.samples, engine, assign.manifest.sha256)
            self._tell_skipped(samples)
            await self._offload(self._storage.update.reserve, most_bytes(engine.manifest.subset, packing))
            async with self._device.guard.turn(self._listener):
                began, cpu = self._device.clock.monotonic(), self._device.process.cpu_seconds()
                result = await self._device.execute(
                    engine,
                    weights,
                    samples,
                    settings,
                    assign.seed,
                    Checkpoints(self._storage, assign, len(samples)),
                    lambda step, steps, loss: self._listener(Training(step, steps, loss)),
                )
                seconds = self._device.clock.monotonic() - began
                cpu = self._device.process.cpu_seconds() - cpu
            personal = await self._offload(self._device.judge, engine, assign, result, samples)
            if personal is not None:
                self._listener(personal)
        except (Diverged, DataError, PayloadError, ProgramError) as error:
            await self._decline(assign, error)
            return None
        return await self._keep(assign, result, personal, seconds, cpu)

    def _tell_skipped(self, samples: Usable) -> None:
        """Of samples that are left out, once for each set of them."""
        if samples.skipped and list(samples.skipped) != self._device.told_skipped:
            first = next(iter(samples.skipped.values()))
            self._listener(SamplesSkipped(tuple(samples.skipped), len(samples), first))
        self._device.told_skipped = list(samples.skipped)

    async def _keep(
        self, assign: Assign, result: TrainingResult, personal: Personal | None, seconds: float, cpu: float
    ) -> PendingUpdate:
        """Write the update down; a full disk must not cost the work that is done."""
        for wait in delays(self._device.rng):
            try:
                update: PendingUpdate = await self._offload(self._device.keep, assign, result, personal, seconds, cpu)
            except OSError as error:
                self._listener(Disconnected(f"the update cannot be kept: {error}", wait))
                await asyncio.sleep(wait)
            else:
                return update
        raise AssertionError("the waits never end")

    async def _decline(self, assign: Assign, error: FtteError) -> None:
        """Give an assignment back; only divergence is worth another try on this device."""
        code = {
            Diverged: "diverged",
            DataError: "data",
            PayloadError: "weights",
            ProgramRejected: "program-rejected",
            SelfCheckFailed: "self-check",
        }
        self._storage.drop_training()
        self._listener(Declined(assign.assignment, str(error)))
        self._link.session.decline(assign.assignment, code.get(type(error), "program"), str(error))
        await self._link.flush()
        self._device.failed += 1
        if isinstance(error, DataError) and self._device.data_may_change:
            raise ComeBack(Later(DATA_SECONDS, f"{error}; the samples are looked at again then"))
        if isinstance(error, ProgramRejected | PayloadError):
            self.progressed = False  # what was fetched is of no use
        if not isinstance(error, Diverged):
            raise error
        self._leave_if_of_no_help(str(error))

    async def _download(self, assign: Assign | Evaluate) -> None:
        """Fetch what is missing of the assignment, and forget what belongs to none."""
        refs = [*assign.weights]
        if self._storage.program_folder(assign.manifest.sha256) is None:
            refs += [assign.manifest, assign.program]
        shorter = [step.artifact for step in assign.differences]
        check_sizes([*assign.weights, assign.manifest, assign.program, *shorter])
        await self._offload(self._storage.keep_artifacts, [ref.sha256 for ref in (*refs, *shorter)])
        steps = {step.target: step for step in assign.differences}
        for ref in refs:
            if ref.sha256 not in steps or not await self._rebuild(ref, steps[ref.sha256]):
                await self._fetch(ref)

    async def _rebuild(self, ref: ArtifactRef, step: Difference) -> bool:
        """Make a file of weights of the one that is here; false if it has to be fetched as a whole."""
        has = self._storage.artifacts.has
        if await self._offload(has, ref.sha256):
            return True
        if step.base and not await self._offload(has, step.base):
            return False
        await self._fetch(step.artifact)
        return bool(await self._offload(self._storage.artifacts.rebuild, step.base, step.artifact.sha256, ref))

    async def _fetch(self, ref: ArtifactRef) -> None:
        """Bring one artifact here, as far as it is not."""
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
        session, content = self._link.session, None
        if session.is_short(update.artifact.size):
            content = await self._offload(self._storage.update.content, update.artifact)
        session.offer(update.assignment, update.artifact, update.report, content, self._link.now())
        await self._link.flush()
        answer = await self._next()
        if not isinstance(answer, Accepted | Rejected) or answer.assignment != update.assignment:
            raise ProtocolError(f"{answer} does not answer the update of {update.assignment}")
        accepted = isinstance(answer, Accepted)
        await self._offload(self._storage.update.accept if accepted else self._storage.update.drop)
        self.progressed = True
        if isinstance(answer, Accepted):
            self._device.failed = 0
            self._listener(UpdateAccepted(answer.assignment, answer.staleness, self._cost(update)))
        else:
            self._listener(UpdateRejected(answer.assignment, answer.code, answer.message))
            self._device.failed += answer.code in ("not-finite", "magnitude", "payload", "steps", "report")
            self._leave_if_of_no_help(answer.message)

    def _leave_if_of_no_help(self, why: str) -> None:
        """Come back later after too many assignments in a row that came to nothing."""
        if self._device.failed >= MAX_DIVERGED:
            raise ComeBack(Later(DIVERGED_SECONDS, f"{self._device.failed} assignments in a row failed: {why}"))

    def _cost(self, update: PendingUpdate) -> Cost:
        """What the acknowledged update took; the bytes of the next one count from here."""
        device, link = self._device, self._link
        cost = Cost(
            seconds=float(update.report.get("seconds", 0.0)),
            cpu_seconds=float(update.report.get("cpu_seconds", 0.0)),
            bytes_up=device.bytes_up + link.sent,
            bytes_down=device.bytes_down + link.received,
        )
        device.bytes_up, device.bytes_down = -link.sent, -link.received
        return cost

    async def _send(self, event: FetchRequested) -> None:
        """Send the pending update; it is the only thing that ever leaves a device."""
        update = await self._offload(self._storage.update.pending)
        if update is None or update.artifact.sha256 != event.sha256:
            raise ProtocolError(f"the coordinator asked for {event.sha256}, which was not offered")
        content = await self._offload(self._storage.update.content, update.artifact)
        self._link.session.send_artifact(event.sha256, content, event.offset, self._link.now())
        await self._link.flush()
