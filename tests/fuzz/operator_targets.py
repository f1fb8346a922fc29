"""What people open or send: invitations, run files, scenarios, requests to the admin API."""

from __future__ import annotations

import asyncio
import functools
import io
import logging
import shutil
import tempfile
from pathlib import Path

from aiohttp import web

from coordinator.admin.answers import answer_errors
from coordinator.admin.routes import Api
from coordinator.admin.server import MAX_BODY_BYTES
from coordinator.cli.logs import is_ours
from coordinator.config import load_config
from coordinator.errors import ConfigError
from coordinator.runs.served_run import open_run
from coordinator.runs.service import Service
from coordinator.simulation.world.scenario import load_scenario
from mobile_sdk.errors import InviteError
from mobile_sdk.invite import Invite

from ..coordinator.small_run import make_run
from .target import Target

__all__ = ["TARGETS", "close"]

_ROOT = Path(__file__).parents[2]


@functools.cache
def _folder() -> Path:
    """In memory where there is such a place: the disk would set the pace."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="ftte-fuzz-", dir=memory if memory.is_dir() else None))
    return folder


def close() -> None:
    """Stop what a target has started, and remove its files."""
    if _requests.cache_info().currsize:
        _requests().close()
        _requests.cache_clear()
    if _folder.cache_info().currsize:
        shutil.rmtree(_folder(), ignore_errors=True)
        _folder.cache_clear()


def _parse_invite(data: bytes) -> None:
    invite = Invite.parse(data.decode("utf-8", "replace"))
    assert Invite.parse(str(invite)) == invite
    if invite.url.startswith("wss:"):
        assert Invite.parse(invite.page) == invite


def _invites() -> dict[str, bytes]:
    key = "ab" * 32
    fields = f"v=1&url=wss://example.org:8765&run=small&key={key}&token=t%20t&cert={key}"
    return {
        "link": f"ftte://join?{fields}".encode(),
        "page": f"https://example.org:8765/join#{fields}".encode(),
        "bracket": b"ftte://[",
        "url-bracket": f"ftte://join?v=1&url=wss://[&run=small&key={key}".encode(),
        "port": f"ftte://join?v=1&url=wss://a:99999&run=small&key={key}".encode(),
    }


class _File(type(Path())):  # type: ignore[misc]
    """A file that is in memory alone: writing one takes longer than parsing it."""

    content = b""

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        with io.TextIOWrapper(io.BytesIO(self.content), encoding, errors) as file:
            return file.read()

    def read_bytes(self) -> bytes:
        return self.content


def _file(name: str, content: bytes) -> Path:
    file = _File(_folder() / name)
    file.content = content
    return file


def _parse_run_file(data: bytes) -> None:
    load_config(_file("run.toml", data))


def _run_files() -> dict[str, bytes]:
    demo = (_ROOT / "coordinator" / "cli" / "demo.toml").read_bytes()
    start = b'[run]\nname = "a"\ntask = "a:b"\n[budgets]\nsmall = "1MB"\n'
    return {
        "demo": demo,
        "deep": start + b"[training]\nepochs = " + b"[" * 2000 + b"]" * 2000,
        "long-number": start + b"[training]\nepochs = " + b"9" * 5000,
        "not-text": b"\xff\xfe",
        "nul": start.replace(b"a:b", b"a\\u0000:b") + b'[server]\ncertificate = "a\\u0000"\n',
    }


def _parse_scenario(data: bytes) -> None:
    load_scenario(_file("scenario.toml", data))


def _scenarios() -> dict[str, bytes]:
    folder = _ROOT / "scenarios"
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.toml"))[:3]}


class _Wire(asyncio.Transport):
    """A connection in memory, on which a server writes its answer; ``closed`` when it has closed it."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self.answer = bytearray()
        self.closed = asyncio.get_running_loop().create_future()
        self._protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.answer += data

    def is_closing(self) -> bool:
        return self.closed.done()

    def close(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
            self._protocol.connection_lost(None)

    abort = close

    def pause_reading(self) -> None:
        """All has come."""

    resume_reading = pause_reading


class _Requests:
    """An admin API over a real run; requests are the bytes of a connection to it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._start())

    async def _start(self) -> None:
        logging.getLogger("aiohttp.server").addFilter(is_ours)
        small = make_run(_folder())
        small.store.close()
        self._running = open_run(small.config, lambda text: None)
        self._running.start()
        service = Service(small.config.server)
        service._runs["small"] = self._running
        app = web.Application(middlewares=[answer_errors], client_max_size=MAX_BODY_BYTES)
        Api(service).add_to(app.router)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()

    def close(self) -> None:
        """Stop serving."""
        self._loop.run_until_complete(self._stop())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._running.close()

    def send(self, data: bytes) -> bytes:
        """The answer to a request."""
        return self._loop.run_until_complete(self._send(data))

    async def _send(self, data: bytes) -> bytes:
        server = self._runner.server
        assert server is not None
        protocol = server()
        wire = _Wire(protocol)
        protocol.connection_made(wire)
        protocol.data_received(data)
        protocol.eof_received()
        await asyncio.wait_for(wire.closed, 20)
        return bytes(wire.answer)


@functools.cache
def _requests() -> _Requests:
    return _Requests()


def _request(data: bytes) -> None:
    """The first line is method and path, the second the value of the operator's header, the rest the body."""
    first, _, rest = data.partition(b"\n")
    operator, _, body = rest.partition(b"\n")
    operator = operator.translate(None, b"\r\n\0")
    head = b"%b HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-FTTE-Operator: %b\r\nContent-Length: %d\r\n\r\n"
    answer = _requests().send(head % (first.strip(), operator, len(body)) + body)
    assert not answer.startswith(b"HTTP/1.1 5"), answer[:500]


def _admin() -> dict[str, bytes]:
    return {
        "rollback": b'POST /runs/small/rollback\nanna\n{"version": 0, "why": "because"}',
        "token": b'POST /runs/small/tokens\nanna\n{"uses": 1, "seconds": 3.5, "note": "n"}',
        "invite": b'POST /runs/small/invite\nanna\n{"url": "wss://a:1", "uses": null}',
        "create": b'POST /runs\nanna\n{"file": "/nowhere/run.toml"}',
        "create-long": b'POST /runs\nanna\n{"file": "/' + b"a" * 5000 + b'"}',
        "create-unusable": b'POST /runs\nanna\n{"file": "/a\\ud800"}',
        "weights": b"GET /runs/small/weights?version=0\nanna\n",
        "devices": b"GET /runs/small/devices\nanna\n",
        "revoke": b"POST /runs/small/devices/phone-1/revoke\nanna\n",
        "withdraw": b"DELETE /runs/small/devices/phone-1\nanna\n",
        "revoke-token": b"DELETE /runs/small/tokens/abc\nanna\n",
        "list": b"GET /runs\n\n",
        "audit": b"GET /runs/small/audit\n\xff\xfe\n",
        "pause": b"POST /runs/small/pause\nanna\n",
        "start": b"POST /runs/small/start\nanna\n",
    }


_TOML = tuple(
    word.encode()
    for word in (
        *("[run]", "[budgets]", "[training]", "[merge]", "[merge.staleness]", "[payload]", "[stop]", "[server]"),
        *("[admin]", "[tracking]", "[planning]", "[devices.a]", "[simulation]", "[data]", "[stragglers]"),
        *("name = ", "task = ", "seconds = ", "buffer = ", '"1MB"', '"1.5MB"', "inf", "nan", "1979-05-27", "\n"),
    )
)

TARGETS = (
    Target(
        "invitations",
        _parse_invite,
        (InviteError,),
        4,
        1024,
        (b"ftte://join?", b"url=", b"run=", b"key=", b"%00"),
        _invites,
    ),
    Target("run_files", _parse_run_file, (ConfigError,), 16, 8192, _TOML, _run_files),
    Target("scenarios", _parse_scenario, (ConfigError,), 16, 8192, _TOML, _scenarios),
    Target(
        "requests",
        _request,
        (),
        16,
        8192,
        (b"POST /runs/small/", b"GET ", b"DELETE ", b'{"file": "', b"\\u0000"),
        _admin,
        _requests,
    ),
)
