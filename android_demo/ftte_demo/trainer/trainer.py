"""
The trainer: takes part in a run while it may, and answers the screens, which come and go.

Everything here runs in one event loop; the SDK trains in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import zlib
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
from ..words import preferred, words
from . import engines
from .conditions import provider
from .joined import Joined, forget, load, save
from .limit import DailyLimit
from .memory import Gauge, read
from .pixels import picture
from .progress import apply, given
from .samples import Samples
from .server import Server
from .shown import Shown
from .when import When

__all__ = ["Trainer"]

log = logging.getLogger(__name__)

Message = dict[str, Any]
Answer = Callable[[Message], None]

_TELL_SECONDS = 0.1
# How often service time is written down.
_NOTE_SECONDS = 30.0
# With no run and no screen there is nothing to stay for.
_LINGER_SECONDS = 60.0


class Trainer:
    """
    One phone's training process.

    Args:
        folder: the app's private folder.
        shown: where the system shows what goes on, or nothing.

    """

    def __init__(self, folder: Path, shown: Shown | None = None) -> None:
        self._folder = folder
        self._shown = shown
        self._clock = SystemClock()
        self._status = Status()
        self._told = ""
        self._server = Server(folder, self._answer, self._greeting)
        self._gauge = Gauge()
        self._limit = DailyLimit(folder / "service_time.json")
        self._samples = Samples(folder / "samples", zlib.crc32(str(folder).encode()))
        self._client: Client | None = None
        self._work: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()
        self._paused = False
        self._when = When(folder)
        self._conditions = provider()

    def stop(self) -> None:
        """End the process in good order."""
        self._stopped.set()

    async def run(self) -> None:
        """Serve the screens and take part until stopped."""
        since = self._clock.wall()
        async with self._server.serving():
            joined = load(self._folder / "joined.json")
            if joined is not None:
                self._join(joined)
            tasks = [asyncio.create_task(work) for work in (self._tell(), self._keep_time(since), self._linger())]
            try:
                await self._stopped.wait()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._halt()
                self._close_client()
                self._samples.close()

    # The run.

    def _join(self, joined: Joined) -> None:
        """Make a client for the run, and start. Raises what :class:`Client` raises."""
        invite, engine = joined.invite, engines.best()
        self._close_client()
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
            surroundings=Surroundings(conditions=self._conditions),
        )
        self._client = client
        self._status = Status(
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
        if self._client is not None and self._work is None and not self._paused:
            self._gauge.rest()
            self._work = asyncio.create_task(self._take_part(self._client))

    async def _take_part(self, client: Client) -> None:
        status = self._status
        status.phase, status.reason = Phase.CONNECTING, ""
        try:
            await client.run(self._heard)
        except asyncio.CancelledError:
            raise
        except FtteError as error:
            log.error("%s", error)
            status.phase, status.reason = Phase.FAILED, str(error)
        except Exception as error:
            log.exception("training ended")
            status.phase, status.reason = Phase.FAILED, f"{type(error).__name__}: {error}"
        finally:
            self._work = None

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
        self._gauge.look()
        if self._client is not None and not self._status.layers and self._status.phase == Phase.TRAINING:
            given(self._client.manifest, self._status)

    # The screens.

    def _snapshot(self) -> Status:
        status = self._status
        status.memory, status.memory_peak = self._gauge.now, self._gauge.peak
        status.process_memory = read("VmRSS")
        status.samples, status.drawn = len(self._samples), self._samples.drawn
        status.policies = {**self._when.on, "paused": self._paused}
        if self._paused and status.joined and status.phase not in (Phase.FINISHED, Phase.FAILED):
            status.phase = Phase.PAUSED
        return status

    def _greeting(self) -> Message:
        return {"is": "status", "status": self._as_data()}

    def _as_data(self) -> Any:
        return json.loads(self._snapshot().to_json())

    async def _tell(self) -> None:
        """Tell the screens what has changed, some times a second."""
        while True:
            self._gauge.look()
            text = self._snapshot().to_json()
            if text != self._told:
                self._told = text
                self._server.tell({"is": "status", "status": self._as_data()})
                self._show()
            await asyncio.sleep(_TELL_SECONDS)

    def _show(self) -> None:
        if self._shown is None:
            return
        texts, status = words(preferred()), self._status
        steps = status.training if status.phase == Phase.TRAINING else (0, 0)
        self._shown.show(texts[f"phase_{status.phase}"], *steps, texts["about_stop"])

    async def _answer(self, message: Message, answer: Answer) -> None:
        what = message.get("do")
        try:
            match what:
                case "join":
                    await self._halt()
                    joined = _accepted(message)
                    self._join(joined)
                    save(self._folder / "joined.json", joined)
                case "leave":
                    await self._halt()
                    self._close_client()
                    forget(self._folder / "joined.json")
                    self._status = Status()
                case "policy":
                    self._when.switch(str(message["name"]), bool(message["on"]))
                    await self._begin_again()
                case "pause":
                    self._paused = True
                    await self._halt()
                case "resume":
                    self._paused = False
                    self._start()
                case "predict":
                    await self._predict(message, answer)
                case "keep":
                    self._samples.keep(picture(message["strokes"]), _digit(message["label"]))
                    answer({"is": "kept", "samples": len(self._samples)})
                case "stop":
                    self.stop()
                case _:
                    raise ValueError(f"the trainer does not know {what!r}")
        except (FtteError, OSError, ValueError, KeyError, TypeError) as error:  # OSError: a full disk, say
            log.warning("%s: %s", what, error)
            answer({"is": "error", "about": what, "message": str(error)})

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

    async def _keep_time(self, since: float) -> None:
        """Count service time, and stop before the system does."""
        while True:
            now = self._clock.wall()
            self._limit.note(now, since)
            if self._shown is not None and self._limit.left(now) <= 0:
                log.info("the day's service time is used up; free again in %.0f s", self._limit.free_again(now))
                self.stop()
                return
            await asyncio.sleep(min(_NOTE_SECONDS, max(1.0, self._limit.left(now))))

    async def _linger(self) -> None:
        """Leave when there is no run, and no screen for a while."""
        while True:
            await self._server.alone.wait()
            await asyncio.sleep(_LINGER_SECONDS)
            if self._server.alone.is_set() and not self._status.joined:
                self.stop()
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
