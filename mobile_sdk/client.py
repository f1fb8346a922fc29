"""
The device's side of a run: connect, get work, train, hand the update in, for as long as the run lasts.

Training does not depend on the connection: if the link breaks meanwhile, training goes on, the
update is kept on disk, and it is handed in when the coordinator can be reached again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import re
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .conditions import system_conditions
from .data.convert import as_dataset
from .data.usable import check
from .engines import default_engine, load_engine
from .engines.android import bridge_class
from .errors import PayloadError, ProgramRejected, ProtocolError, Refused, Unproven, VersionMismatch
from .events import Disconnected, Event, Paused, Postponed, RunFinished
from .invite import Invite
from .manifest import InputContract, Manifest
from .net.backoff import delays
from .net.connection import Connect, ConnectionLost, Transport, websocket
from .net.link import Link
from .participation.device import Device
from .participation.model import Model
from .participation.refusals import Refusals
from .participation.surroundings import Surroundings
from .participation.visit import ComeBack, Listener, Visit
from .policy.guard import LOOK_AGAIN_SECONDS, Guard, Stopped
from .policy.rules import Policy
from .protocol.device_session import DeviceSession
from .sizes import parse_bytes
from .storage.device_storage import DeviceStorage

__all__ = ["Client", "arguments_of"]

# A device that was let in before comes back to strangers at its coordinator's address after so many times the usual
# wait: five minutes in the end.
UNPROVEN_WAITS = 5.0


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
        budget: memory that training may take, in bytes or like ``"2MB"``; 0 for no limit.
        transport: how ``url`` is reached and which certificate is trusted: proxies, authorities of your own.
        policy: when the device may connect and train; by default always, but on Android as
            :meth:`~mobile_sdk.policy.rules.Policy.for_phones` says (``Policy()`` allows it always there, too).
        engine: what runs programs: ``"native"``, ``"android"`` or ``"interpreted"``; see :mod:`mobile_sdk.engines`.
            None: ``"native"`` on Linux, ``"interpreted"`` on other systems.
        surroundings: what the simulator replaces: time, threads, chance; and what tells the device's conditions.

    Raises:
        ValueError: if ``url``, ``key`` or ``budget`` is malformed.
        DataError: if ``dataset`` is nothing that can be trained on.
        ProgramError: if the engine is ``"android"`` and its Java class cannot be found.
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
        budget: int | str = 0,
        transport: Transport | None = None,
        policy: Policy | None = None,
        engine: str | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._connect = websocket(url, transport) if isinstance(url, str) else url
        if re.fullmatch("[0-9a-f]{64}", key) is None:
            raise ValueError(f"the key must be 64 hex digits, not {key!r}: the coordinator prints it at its start")
        around = surroundings or Surroundings()
        engine = engine or default_engine()
        if engine == "android" and around.load is None:
            bridge_class()  # training threads could not find it
        if policy is None and hasattr(sys, "getandroidapilevel"):
            policy = Policy.for_phones(Path(storage) / "training.lock")
        self._run = run
        self._token = token
        self._dataset = as_dataset(dataset)
        self._clock = around.clock
        self._offload = around.offload
        self._rng = around.rng
        held_out = None if held_out is None else as_dataset(held_out)
        self._storage = DeviceStorage(Path(storage), run, name)
        self._refusals = Refusals(self._storage.identity)
        self._model = Model(self._storage, around.load or functools.partial(load_engine, engine=engine))
        looks = (around.conditions or system_conditions()) if policy is not None else None
        self._guard = Guard(policy, looks, self._storage, around.clock, around.offload)
        self._device = Device(
            run=run,
            pinned=key,
            dataset=self._dataset,
            held_out=held_out,
            budget=parse_bytes(budget) if budget else 0,
            engine=engine,
            storage=self._storage,
            model=self._model,
            guard=self._guard,
            surroundings=around,
        )

    @classmethod
    def from_invite(cls, link: str | Invite, *, dataset: Any, storage: str | Path, **options: Any) -> Client:
        """
        A client from a ``ftte://join?...`` link.

        Args:
            link: what ``ftte invite`` printed, or its QR code said.
            dataset: this device's samples.
            storage: as in the class.
            options: further arguments of the class. A ``transport`` that names no certificate keeps the invite's.

        Raises:
            InviteError: if the link invites to no run.

        """
        return cls(**arguments_of(link, options), dataset=dataset, storage=storage)

    @property
    def device(self) -> str:
        """The name that this device enrolled with."""
        return self._storage.identity.device

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
            DataError: if ``x`` does not fit the task.

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
            Refused: if the coordinator will not have this device, and why. What a broken link may have changed is final
                the third or the tenth time in a row; what somebody says who has not proved to be the coordinator, the
                third time, and for a new device only.
            ProgramRejected: if it sent, ten times in a row, a program that is not the run's own. None of them was run.
            PayloadError: if it sent weights that do not go with the program, ten times in a row.
            ProgramError: if a program cannot run on this device.
            DataError: if no sample of the dataset keeps the task's input contract, and the dataset cannot grow. Of
                samples that break it among others, :class:`~mobile_sdk.events.SamplesSkipped` tells.

        """
        waits = delays(self._rng)
        while True:
            try:
                await self._guard.wait(listener)
                await self._until_samples(listener)
                async with self._visiting(listener) as visit:
                    try:
                        finished = await self._guard.watch(visit.run())
                    finally:
                        self._note(visit)
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
            except (Refused, VersionMismatch, ProgramRejected, PayloadError) as error:
                seconds = self._weigh(error) * next(waits)
                listener(Disconnected(str(error), seconds))
                await asyncio.sleep(seconds)
            except (ConnectionLost, ProtocolError, OSError) as error:  # the last: a full disk of this device, say
                seconds = next(waits)
                listener(Disconnected(str(error), seconds))
                await asyncio.sleep(seconds)

    async def visit(self, listener: Listener = lambda event: None, *, tries: int = 5) -> RunFinished | None:
        """
        Connect, train one assignment, hand it in and leave; for systems that grant a device some minutes at a time.

        Returns at once where the policy forbids training now or the coordinator has no work. What a cancelled visit has
        trained is in a checkpoint on disk: the next one goes on from it.

        Args:
            listener: as in :meth:`run`.
            tries: connections to make at most, as far as they break.

        Returns:
            The end of the run if it has ended, else none.

        Raises:
            Refused, ProgramRejected, PayloadError, ProgramError, DataError: as :meth:`run`.

        """
        waits, trained = delays(self._rng), False
        for _ in range(tries):
            if not await self._guard.allowed(listener):
                return None
            if await self._offload(len, self._dataset) == 0:
                listener(Paused("there are no samples yet", LOOK_AGAIN_SECONDS))
                return None
            try:
                async with self._visiting(listener, once=True, trained=trained) as visit:
                    try:
                        finished = await self._guard.watch(visit.run())
                    finally:
                        self._note(visit)
                        trained = visit.trained
                if finished is not None:
                    self._storage.drop_training()
                return finished
            except Stopped as stopped:
                listener(Paused(str(stopped), LOOK_AGAIN_SECONDS))
                return None
            except ComeBack as later:
                listener(Postponed(later.reason, later.seconds))
                return None
            except (Refused, VersionMismatch, ProgramRejected, PayloadError) as error:
                seconds = self._weigh(error) * next(waits)
                listener(Disconnected(str(error), seconds))
                await asyncio.sleep(seconds)
            except (ConnectionLost, ProtocolError, OSError) as error:
                seconds = next(waits)
                listener(Disconnected(str(error), seconds))
                await asyncio.sleep(seconds)
        return None

    @contextlib.asynccontextmanager
    async def _visiting(self, listener: Listener, *, once: bool = False, trained: bool = False) -> AsyncIterator[Visit]:
        """A visit on a new connection."""
        async with self._connect() as connection:
            session = DeviceSession(
                run=self._run,
                device=self._storage.identity.device,
                secret=self._storage.identity.secret,
                token=self._token,
                key=self._storage.identity.trusted_key(self._device.pinned),
                enrolled=self._storage.identity.enrolled,
            )
            link = Link(connection, session, self._clock)
            self._guard.link_opened(link)
            yield Visit(self._device, link, listener, once=once, trained=trained)

    def _note(self, visit: Visit) -> None:
        if visit.welcomed:
            self._refusals.welcomed()
        if visit.progressed:
            self._refusals.progressed()

    def _weigh(self, error: Refused | VersionMismatch | ProgramRejected | PayloadError) -> float:
        """How many times the usual wait the device stays away; raises ``error`` if it is final."""
        # The version comes before any proof.
        refused = Unproven("version", str(error)) if isinstance(error, VersionMismatch) else error
        with contextlib.suppress(OSError):  # a full disk: it hears the same again, and remembers it then
            self._refusals.weigh(refused)
        return UNPROVEN_WAITS if isinstance(refused, Unproven) and self._storage.identity.enrolled else 1.0

    async def _until_samples(self, listener: Listener) -> None:
        while await self._offload(len, self._dataset) == 0:
            listener(Paused("there are no samples yet", LOOK_AGAIN_SECONDS))
            await asyncio.sleep(LOOK_AGAIN_SECONDS)


def arguments_of(link: str | Invite, options: Mapping[str, Any]) -> dict[str, Any]:
    """
    The arguments of :class:`Client` that an invite gives, under what ``options`` say.

    A ``transport`` that names no certificate keeps the invite's: who sets a proxy does not stop comparing certificates.

    Raises:
        InviteError: if the link invites to no run.

    """
    invite = Invite.parse(link) if isinstance(link, str) else link
    transport = options.get("transport") or Transport()
    if not transport.certificate:
        transport = dataclasses.replace(transport, certificate=invite.certificate)
    given = {"url": invite.url, "run": invite.run, "key": invite.key, "token": invite.token}
    return {**given, **options, "transport": transport}
