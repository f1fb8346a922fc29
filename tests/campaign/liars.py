"""A device that keeps to the protocol and lies within it: others' assignments, replays, wrong sizes and hashes."""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import Any

import numpy as np

from mobile_sdk import safetensors
from mobile_sdk.errors import FtteError
from mobile_sdk.manifest import EXECUTORCH_VERSION, Manifest
from mobile_sdk.net.connection import ConnectionLost
from mobile_sdk.net.link import Link
from mobile_sdk.payload import UpdateFormat, encode_update
from mobile_sdk.protocol.device_session import DeviceSession
from mobile_sdk.protocol.messages import (
    Accepted,
    ArtifactRef,
    Assign,
    Finished,
    Later,
    Name,
    Ready,
    Rejected,
    Sha256,
    Welcome,
)
from mobile_sdk.protocol.session import FetchRequested, PeerError

from .ledger import Acknowledged, Ledger
from .links import Network
from .machines import MachineClock

__all__ = ["Stranger"]

_PATIENCE = 30.0


class Stranger:
    """
    Enrols, gets work, and hands in what it should not.

    Args:
        name: what it calls itself.
        network: leads to the coordinator.
        ledger: is told what it hears; others' assignments are taken from it.
        rng: draws its lies.
        run: the run's name.
        key: the run's first public key.
        token: what it enrols with.
        manifests: of the tiers, by name: it never downloads any.

    """

    def __init__(
        self,
        name: str,
        network: Network,
        ledger: Ledger,
        rng: random.Random,
        *,
        run: str,
        key: str,
        token: str,
        manifests: dict[str, Manifest],
    ) -> None:
        self.name = name
        self.finished = False
        self._connect = network.connect(name)
        self._ledger = ledger
        self._rng = rng
        self._run, self._key, self._token = run, key, token
        self._secret = rng.randbytes(32)
        self._manifests = manifests
        self._enrolled = False
        self._handed_in: list[tuple[str, bytes, dict[str, Any]]] = []

    async def live(self) -> None:
        """Until the run has ended."""
        while not self.finished:
            try:
                async with self._connect() as connection, asyncio.timeout(_PATIENCE * 4):
                    await self._visit(connection)
            except (FtteError, TimeoutError):
                pass
            await asyncio.sleep(self._rng.uniform(1.0, 20.0))

    async def _visit(self, connection: Any) -> None:
        session = DeviceSession(
            run=self._run,
            device=self.name,
            secret=self._secret,
            token=self._token,
            key=self._key,
            enrolled=self._enrolled,
        )
        clock = MachineClock(asyncio.get_running_loop())
        link = Link(connection, session, clock)
        content = b""
        assigned: Assign | None = None
        async for event in link.events():
            match event:
                case Welcome():
                    self._enrolled = True
                    session.ready(self._ready())
                case Assign():
                    assigned = event
                    assignment, content, report = self._lie(event)
                    ref = ArtifactRef(Sha256(self._hash(content)), len(content) + self._rng.choice((0, 0, 0, 1, -1)))
                    self._ledger.made.add(ref.sha256)
                    session.offer(assignment, ref, report)
                case FetchRequested():
                    offset = min(event.offset, len(content))
                    session.send_artifact(event.sha256, memoryview(content), offset, clock.monotonic())
                case Accepted():
                    now = asyncio.get_running_loop().time()
                    self._ledger.acknowledged.setdefault(event.assignment, Acknowledged(self.name, now))
                    self._ledger.note(now, f"{self.name} was told that {event.assignment} is accepted")
                    if assigned is not None and event.assignment == assigned.assignment:
                        self._handed_in.append((event.assignment, content, {"version": assigned.version, "samples": 9}))
                    session.ready(self._ready())
                case Rejected():
                    session.ready(self._ready())
                case Finished():
                    self.finished = True
                    return
                case PeerError() | Later():
                    return
            await link.flush()
            if self._rng.random() < 0.05:
                raise ConnectionLost("the stranger leaves without a word")

    def _ready(self) -> Ready:
        return Ready(
            0,
            samples=self._rng.choice((10, 0, 10**6)),
            engine=Name("native"),
            executorch=EXECUTORCH_VERSION,
            serial=0,
            peak_rss_bytes=1,
            torch_loaded=False,
        )

    def _hash(self, content: bytes) -> str:
        right = hashlib.sha256(content).hexdigest()
        return right if self._rng.random() < 0.8 else hashlib.sha256(b"another").hexdigest()

    def _lie(self, assign: Assign) -> tuple[str, bytes, dict[str, Any]]:
        """An assignment, an update's bytes, and a report, of which something may be wrong."""
        manifest = self._manifests[self._rng.choice(sorted(self._manifests))]
        value = self._rng.choice((0.01, 0.01, 1e7, float("nan"), 0.0))
        arrays = {name: np.full(manifest.trained.shape(name), value, np.float32) for name in manifest.trained}
        for array in arrays.values():
            array += np.random.default_rng(self._rng.getrandbits(32)).normal(0, 1e-3, array.shape).astype(np.float32)
        content = safetensors.dumps(*encode_update(arrays, UpdateFormat(), 0))
        report: dict[str, Any] = {"version": assign.version, "samples": 9}
        match self._rng.randrange(8):
            case 0 if self._ledger.acknowledged:
                return self._rng.choice(sorted(self._ledger.acknowledged)), content, report
            case 1 if self._handed_in:
                return self._rng.choice(self._handed_in)
            case 2:
                report["version"] = max(assign.version - 1, 0)
            case 3:
                report["samples"] = self._rng.choice((-1, 0, 10**12, "many", True))
            case 4:
                content = content[: self._rng.randrange(len(content))] or b"x"
            case 5:
                return "a99999999", content, report
            case 6:
                content = self._rng.randbytes(self._rng.choice((10, 1_000, 100_000)))
        return assign.assignment, content, report
