"""
The trainer: takes part in a run while it may, and answers the screens, which come and go.

Everything here runs in one event loop; the SDK trains in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mobile_sdk import Client
from mobile_sdk.clock import SystemClock
from mobile_sdk.errors import FtteError, NoModel
from mobile_sdk.events import Event
from mobile_sdk.invite import Invite
from mobile_sdk.net.connection import Transport
from mobile_sdk.participation.surroundings import Surroundings

from ..status import Phase, Status
from ..words import chosen, words
from . import engines
from .conditions import provider
from .joined import Joined, forget, load, save
from .limit import DailyLimit
from .memory import Gauge, GaugedProcess, process_bytes
from .pixels import picture
from .progress import apply, given
from .samples import Samples
from .server import Server
from .system import Desktop, System
from .when import When

__all__ = ["Trainer"]

log = logging.getLogger(__name__)

Message = dict[str, Any]
Answer = Callable[[Message], None]

# Screens are told this often at most, and this often at least while one looks (memory changes by itself).
_TELL_SECONDS = 0.1
_LOOK_SECONDS = 1.0
# The notification: Android drops what is shown more often.
_SHOW_SECONDS = 1.0
# How often service time is written down.
_NOTE_SECONDS = 300.0
# With no run and no screen there is nothing to stay for.
_LINGER_SECONDS = 60.0
# A job has ten minutes; what is not done by then goes on from its checkpoint.
_VISIT_SECONDS = 8.5 * 60
# An assignment that does not move for so long lets the phone sleep; each sign of progress begins anew.
_AWAKE_SECONDS = 180.0
_PROLONG_SECONDS = 60.0


class Trainer:
    """
    One phone's training process.

    Args:
        folder: the app's private folder.
        system: what it runs on.

    """

    def __init__(self, folder: Path, system: System | None = None) -> None:
        self._folder = folder
        self._system = system or Desktop()
        self._clock = SystemClock()
        self._status = Status(visit=self._system.is_visit())
        self._server = Server(folder, self._answer, self._greeting)
        self._gauge = Gauge()
        self._limit = DailyLimit(folder / "service_time.json")
        self._samples = Samples(folder / "samples")
        self._client: Client | None = None
        self._work: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()
        self._why = "stopped"
        self._when = When(folder, self._system.phone)
        self._conditions = provider()
        self._awake_since: float | None = None
        # Set by whatever changes the status: nothing wakes to look whether something did.
        self._to_tell = asyncio.Event()
        self._to_show = asyncio.Event()

    def stop(self, why: str = "stopped") -> None:
        """End the process in good order; ``why`` is one of :data:`ftte_demo.rest.REASONS`."""
        if not self._stopped.is_set():
            self._why = why
            self._stopped.set()

    async def run(self) -> str:
        """
        Serve the screens and take part until stopped.

        Returns:
            Why it ended. What one of its tasks raises ends it, and is raised here.

        """
        async with self._server.serving():
            tasks = [
                asyncio.create_task(work)
                for work in (self._tell(), self._show(), self._keep_time(), self._linger(), self._stopped.wait())
            ]
            try:
                joined = load(self._folder / "joined.json")
                if joined is not None:
                    self._join(joined)
                if self._status.visit and joined is None:
                    self.stop("idle")
                elif self._status.visit and self._when.paused:
                    self.stop()  # a job that began before the pause was known
                self._changed()
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._halt()
                self._close_client()
                self._samples.close()
                if self._why == "stopped":
                    self._system.visit_no_more()  # who stops it does not want it to begin by itself
        return self._why

    # The run.

    def _join(self, joined: Joined) -> None:
        """Make a client for the run, and start. Raises what :class:`Client` raises."""
        invite, engine = joined.invite, engines.best()
        self._close_client()
        engines.prepare(engine)
        client = Client(
            invite.url,
            run=invite.run,
            key=invite.key,
            token=invite.token,
            dataset=self._samples.store,
            storage=self._folder / "runs" / invite.run,
            budget=joined.budget,
            transport=Transport(insecure=joined.insecure, certificate=invite.certificate),
            engine=engine,
            policy=self._when.policy(),
            surroundings=Surroundings(
                conditions=self._conditions,
                load=lambda folder: self._gauge.load(folder, lambda folder: engines.load(folder, engine)),
                process=GaugedProcess(self._gauge),
            ),
        )
        self._client = client
        self._schedule()
        self._status = Status(
            visit=self._status.visit,
            joined=True,
            run=invite.run,
            address=invite.url,
            device=client.device,
            budget=joined.budget,
            engine=engine,
            phase=Phase.CONNECTING,
        )
        self._start()

    def _start(self) -> None:
        if self._client is not None and self._work is None and not self._when.paused:
            self._work = asyncio.create_task(self._take_part(self._client))

    def _schedule(self) -> None:
        """Let the system begin a visit by itself when this process is gone, unless the user paused training."""
        on = self._when.on
        if self._when.paused:
            self._system.visit_no_more()
        else:
            self._system.visit_when(on["charging"], on["wifi"], on["battery"])

    async def _take_part(self, client: Client) -> None:
        status = self._status
        status.phase, status.reason = Phase.CONNECTING, ""
        self._changed()
        why = "visited"
        try:
            finished = None
            if status.visit:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_VISIT_SECONDS):
                        finished = await client.visit(self._heard)
            if self._lasting() and finished is None:
                await client.run(self._heard)
            if status.phase == Phase.FINISHED:
                self._system.visit_no_more()
        except FtteError as error:
            log.error("%s", error)
            status.phase, status.reason, why = Phase.FAILED, str(error), "failed"
        except Exception as error:
            log.exception("training ended")
            status.phase, status.reason, why = Phase.FAILED, f"{type(error).__name__}: {error}", "failed"
        finally:
            self._work = None
            self._rest()
            self._changed()
        if not self._lasting():
            self.stop(why)

    def _lasting(self) -> bool:
        """Whether training goes on after the visit: somebody opened the app meanwhile, and so asked for more."""
        self._status.visit = self._status.visit and self._system.is_visit()
        return not self._status.visit

    async def _halt(self) -> None:
        """Stop taking part; what is finished stays on disk and is handed in next time."""
        work = self._work
        if work is not None:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    async def _begin_again(self) -> None:
        """With a client that keeps the newest rules; what is on disk stays."""
        joined = load(self._folder / "joined.json")
        if joined is None or self._client is None:
            return
        await self._halt()
        status = self._status
        self._join(joined)
        if status.phase not in (Phase.FINISHED, Phase.FAILED):
            status.phase, status.reason = Phase.CONNECTING, ""
        self._status = status

    def _close_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _heard(self, event: Event) -> None:
        apply(event, self._status)
        if self._status.phase == Phase.TRAINING:
            self._gauge.look()
        if self._client is not None and not self._status.layers and self._status.phase == Phase.TRAINING:
            given(self._client.manifest, self._status)
        if self._status.phase in (Phase.DOWNLOADING, Phase.TRAINING, Phase.UPLOADING):
            self._stay_awake()
        else:
            self._rest()
        self._changed()

    def _stay_awake(self) -> None:
        """For an assignment alone: waiting for one costs no battery."""
        now = self._clock.monotonic()
        if self._awake_since is None or now - self._awake_since >= _PROLONG_SECONDS:
            self._awake_since = now
            self._system.work(self._when.on["wifi"], _AWAKE_SECONDS)

    def _rest(self) -> None:
        if self._awake_since is not None:
            self._awake_since = None
            self._system.rest()

    def _changed(self) -> None:
        self._to_tell.set()
        self._to_show.set()

    # The screens.

    def _snapshot(self) -> Status:
        status = self._status
        status.memory_peak = self._gauge.peak
        status.process_memory = process_bytes()
        status.samples, status.drawn = len(self._samples), self._samples.drawn
        status.policies = {**self._when.on, "paused": self._when.paused}
        if self._when.paused and status.joined and status.phase not in (Phase.FINISHED, Phase.FAILED):
            status.phase = Phase.PAUSED
        return status

    def _greeting(self) -> Message:
        return {"is": "status", "status": json.loads(self._snapshot().to_json())}

    async def _tell(self) -> None:
        """Tell the screens what has changed, some times a second, while one looks."""
        told = ""
        while True:
            await self._server.seen.wait()
            if self._status.visit and self._lasting():
                self._changed()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._to_tell.wait()
            self._to_tell.clear()
            text = self._snapshot().to_json()
            if text != told:
                told = text
                self._server.tell({"is": "status", "status": json.loads(text)})
            await asyncio.sleep(_TELL_SECONDS)

    async def _show(self) -> None:
        """Keep the notification true."""
        while True:
            await self._to_show.wait()
            self._to_show.clear()
            status = self._snapshot()
            texts = words(chosen(self._folder, self._system.language()))
            steps = status.training if status.phase == Phase.TRAINING else (0, 0)
            self._system.show(texts[f"phase_{status.phase}"], *steps, texts["about_stop"])
            await asyncio.sleep(_SHOW_SECONDS)

    async def _answer(self, message: Message, answer: Answer) -> None:
        what = message.get("do")
        try:
            match what:
                case "join":
                    await self._halt()
                    joined = _accepted(message)
                    self._when.pause(False)
                    self._join(joined)
                    save(self._folder / "joined.json", joined)
                case "leave":
                    await self._halt()
                    self._close_client()
                    forget(self._folder / "joined.json")
                    self._system.visit_no_more()
                    self._status = Status()
                case "policy":
                    self._when.switch(str(message["name"]), bool(message["on"]))
                    await self._begin_again()
                case "pause":
                    self._when.pause(True)
                    self._system.visit_no_more()
                    await self._halt()
                case "resume":
                    self._when.pause(False)
                    self._schedule()
                    self._start()
                case "predict":
                    await self._predict(message, answer)
                case "keep":
                    self._samples.keep(picture(message["strokes"]), _digit(message["label"]))
                    answer({"is": "kept", "samples": len(self._samples)})
                case "language":
                    pass  # the settings have it; the notification follows
                case "stop":
                    self.stop()
                case _:
                    raise ValueError(f"the trainer does not know {what!r}")
        except (FtteError, OSError, ValueError, KeyError, TypeError) as error:  # OSError: a full disk, say
            log.warning("%s: %s", what, error)
            answer({"is": "error", "about": what, "message": str(error)})
        self._changed()

    async def _predict(self, message: Message, answer: Answer) -> None:
        x = picture(message["strokes"])
        probabilities = None
        if self._client is not None:
            with contextlib.suppress(NoModel):
                logits = await asyncio.to_thread(self._client.predict, x[None])
                powers = np.exp(logits[0] - logits[0].max())
                probabilities = (powers / powers.sum()).tolist()
        answer({"is": "prediction", "id": message.get("id"), "probabilities": probabilities})

    # The system's patience.

    async def _keep_time(self) -> None:
        """Count service time, and stop before the system does."""
        while True:
            await self._server.unseen.wait()
            since = self._clock.wall()
            while not self._server.seen.is_set():
                now = self._clock.wall()
                self._limit.note(now, since)
                left = self._limit.left(now)
                if left <= 0 and self._system.phone and not self._status.visit:
                    log.info("the day's service time is used up; free again in %.0f s", self._limit.free_again(now))
                    self.stop("limit")
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(_NOTE_SECONDS, max(1.0, left))):
                        await self._server.seen.wait()
            self._limit.reset()
            await self._server.unseen.wait()

    async def _linger(self) -> None:
        """Leave when nobody looks and there is nothing to stay for: no run, or a phone's state that a job waits for."""
        while True:
            await self._server.unseen.wait()
            try:
                async with asyncio.timeout(_LINGER_SECONDS):
                    await self._server.seen.wait()
                await self._server.unseen.wait()
            except TimeoutError:
                if self._status.visit:
                    continue
                if not self._status.joined:
                    self.stop("idle")
                    return
                if self._system.phone and self._status.phase == Phase.PAUSED and not self._when.paused:
                    self.stop("conditions")
                    return


def _digit(label: object) -> int:
    """A label that the task knows: another one would end this phone's training."""
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label <= 9:
        raise ValueError(f"the label {label!r} is no digit from 0 to 9")
    return label


def _accepted(message: Message) -> Joined:
    """What the form of the screen says. Raises InviteError or ValueError, in words for the user."""
    if message.get("link"):
        invite = Invite.parse(str(message["link"]))
    else:
        fields = {name: str(message.get(name, "")) for name in ("run", "key", "token")}
        invite = Invite(str(message.get("address", "")), **fields)
    budget = message.get("budget", 0)
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 0:
        raise ValueError(f"the budget {budget!r} is no number of bytes")
    return Joined(invite, bool(message.get("insecure", False)), budget)
