"""A connection without a socket: two ends of a pipe in memory, and a coordinator that serves one program on it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mobile_sdk import safetensors
from mobile_sdk.clock import SystemClock
from mobile_sdk.layout import Arrays
from mobile_sdk.net.connection import Connect, Connection, ConnectionLost
from mobile_sdk.net.link import Link
from mobile_sdk.protocol.coordinator_session import CoordinatorSession
from mobile_sdk.protocol.messages import (
    ArtifactRef,
    Assign,
    Enrol,
    Evaluate,
    Hello,
    Hex,
    Name,
    Proof,
    Ready,
    Sha256,
)
from mobile_sdk.protocol.session import Event, FetchRequested, Received, SendProgress
from mobile_sdk.signing import signed_bytes
from mobile_sdk.training.settings import TrainingSettings

from ..engines import native_program

__all__ = ["Served", "Talk", "connect_to"]

RUN = "digits"


class End:
    """One end of a pipe."""

    def __init__(self) -> None:
        self.arriving: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.other = self

    async def send(self, frame: str | bytes) -> None:
        self.other.arriving.put_nowait(bytes(frame) if not isinstance(frame, str) else frame)

    async def receive(self) -> str | bytes:
        frame = await self.arriving.get()
        if frame is None:
            self.arriving.put_nowait(None)
            raise ConnectionLost("the other end was closed")
        return frame

    async def close(self, reason: str = "") -> None:
        self.arriving.put_nowait(None)
        self.other.arriving.put_nowait(None)


class Served:
    """A run's key, one program of it, signed, the weights of version 0, and the secrets of devices that enrolled."""

    def __init__(self, serial: int = 1) -> None:
        self.private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
        self.key = self.private.public_key().public_bytes_raw().hex()
        content = native_program.program_bytes()
        manifest_for = native_program.manifest_for(content)
        with tempfile.TemporaryDirectory() as folder:
            checked = native_program.checked(content, manifest_for, Path(folder))
        self.manifest = dataclasses.replace(checked, run=RUN, serial=serial)
        self.weights: Arrays = native_program.example()[3]
        manifest = self.manifest.to_bytes()
        self.signature = self.private.sign(signed_bytes(manifest)).hex()
        self.contents: dict[str, bytes] = {}
        self.secrets: dict[str, bytes] = {}
        self.manifest_ref = self.put(manifest)
        self.program_ref = self.put(content)
        self.weights_ref = self.put(safetensors.dumps(self.weights))

    def put(self, content: bytes) -> ArtifactRef:
        sha256 = Sha256(hashlib.sha256(content).hexdigest())
        self.contents[sha256] = content
        return ArtifactRef(sha256, len(content))

    def assign(self, number: int, settings: TrainingSettings, *, version: int = 0) -> Assign:
        return Assign(
            Name(f"a{number:08d}"),
            version,
            self.manifest_ref,
            Hex(self.signature),
            self.program_ref,
            (self.weights_ref,),
            settings.to_json(),
            number,
        )

    def evaluate(self, number: int) -> Evaluate:
        return Evaluate(
            Name(f"e{number:08d}"), 0, self.manifest_ref, Hex(self.signature), self.program_ref, (self.weights_ref,)
        )


class Talk:
    """The coordinator's end: greets the device, sends what it fetches, and gathers the rest."""

    def __init__(self, connection: Connection, served: Served, secrets: dict[str, bytes]) -> None:
        self.served = served
        self.fetched: list[str] = []
        self.private = served.private
        self.session = CoordinatorSession(run=RUN, key=served.key)
        self.link = Link(connection, self.session, SystemClock())
        self._events = self.link.events()
        self._secrets = secrets

    async def next(self) -> Event:
        """What the device says next, beyond greeting and fetching; what the session wants sent goes out first."""
        await self.link.flush()
        async for event in self._events:
            match event:
                case Hello():
                    signature = self.private.sign(self.session.challenge_bytes).hex()
                    self.session.challenge(self._secrets.get(event.device), signature)
                case Enrol():
                    secret = bytes.fromhex(event.secret)
                    self._secrets[self.session.device] = secret
                    self.session.enrolled(secret)
                case Proof():
                    assert self.session.prove(event, 0)
                case FetchRequested():
                    self.fetched.append(event.sha256)
                    content = memoryview(self.served.contents[event.sha256])
                    self.session.send_artifact(event.sha256, content, event.offset, self.link.now())
                case SendProgress():
                    pass
                case _:
                    await self.link.flush()
                    return event
            await self.link.flush()
        raise AssertionError("the device left")

    async def ready(self) -> Ready:
        """The device's description of itself."""
        event = await self.next()
        assert isinstance(event, Ready), event
        return event

    async def update(self, ref: ArtifactRef, *, follows: bool) -> bytes:
        """The bytes of an offered update."""
        if not follows:
            self.session.fetch(ref, 0)
            await self.link.flush()
        content = b""
        while True:
            event = await self.next()
            if isinstance(event, Received):
                content += event.chunk.data
                if not follows:
                    self.session.acknowledge(ref.sha256, len(content))
                    await self.link.flush()
                if event.last:
                    return content


def connect_to(served: Served, script: Callable[[Talk], Awaitable[None]]) -> Connect:
    """Opens connections to a coordinator that does ``script`` on each of them."""

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[Connection]:
        near, far = End(), End()
        near.other, far.other = far, near
        task = asyncio.ensure_future(_run(script, Talk(far, served, served.secrets), far))
        try:
            yield near
        finally:
            await near.close()
            with contextlib.suppress(ConnectionLost, asyncio.CancelledError):
                await task

    return connect


async def _run(script: Callable[[Talk], Awaitable[None]], talk: Talk, end: End) -> None:
    try:
        await script(talk)
    finally:
        await end.close()
