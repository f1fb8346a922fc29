"""The admin API's socket and its bearer token."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import IO

from aiohttp import web
from aiohttp.typedefs import Middleware

from mobile_sdk.system.locks import Locked, take_lock
from mobile_sdk.system.secret_files import replace_secret

from ..config import AdminSection
from ..errors import ConfigError, FolderInUse
from ..net.admission import ConnectionLimits
from ..runs.service import Service
from .answers import answer_errors
from .files import LOCK_FILE, SOCKET_FILE, TOKEN_FILE, URL_FILE
from .metrics import metrics_text
from .routes import Api

__all__ = ["claim_admin_folder", "open_admin"]

# Linux takes no longer path of a Unix socket.
MAX_SOCKET_PATH = 107
MAX_BODY_BYTES = 65_536

Extension = Callable[[web.UrlDispatcher], None]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def claim_admin_folder(section: AdminSection) -> IO[bytes]:
    """
    Take the admin folder for this process until the file that is returned is closed; made if it is missing.

    Raises:
        FolderInUse: if another coordinator has it.
        ConfigError: if it cannot be used, or its path is too long for a socket.

    """
    folder = section.folder
    if section.port is None and len(os.fsencode(socket_path(folder))) > MAX_SOCKET_PATH:
        raise ConfigError(
            f"the path {socket_path(folder)} has {len(os.fsencode(socket_path(folder)))} bytes, and a Unix socket's "
            f"has at most {MAX_SOCKET_PATH}: set admin.folder to a shorter one, or admin.port"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return take_lock(folder / LOCK_FILE)
    except Locked:
        raise FolderInUse(
            f"another coordinator uses the admin folder {folder}: set admin.folder in the run file to another one, "
            "or serve both runs with one `ftte serve`"
        ) from None
    except OSError as error:
        raise ConfigError(f"admin.folder {folder} cannot be used: {error.strerror}") from error


def socket_path(folder: Path) -> Path:
    """Where the Unix socket of an admin folder is."""
    return folder.absolute() / SOCKET_FILE


@contextlib.asynccontextmanager
async def open_admin(
    service: Service, gate: ConnectionLimits, section: AdminSection, *extensions: Extension
) -> AsyncIterator[None]:
    """
    Answer operators for as long as the context lasts; the folder was claimed by :func:`claim_admin_folder`.

    ``GET /healthz`` is open to whoever reaches the socket; everything else needs the token in the file
    ``admin.token``, which is made anew at every start and readable by its owner alone.

    Args:
        service: whose runs are asked about.
        gate: counts the device port's connections, for the metrics.
        section: where to listen.
        extensions: register further paths.

    Raises:
        ConfigError: if the folder or the port cannot be used.

    """
    folder = section.folder
    token = secrets.token_urlsafe(32)
    try:
        replace_secret(folder / TOKEN_FILE, token.encode())
    except OSError as error:
        raise ConfigError(f"admin.folder {folder} cannot be used: {error.strerror}") from error
    app = web.Application(middlewares=[_authenticated(token), answer_errors], client_max_size=MAX_BODY_BYTES)
    Api(service).add_to(app.router)
    for extend in extensions:
        extend(app.router)

    async def health(request: web.Request) -> web.Response:
        return await _health(service)

    async def metrics(request: web.Request) -> web.Response:
        return await _metrics(service, gate)

    app.router.add_get("/healthz", health)
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await _listen(runner, section)
        yield
    finally:
        await runner.cleanup()
        for name in (SOCKET_FILE, URL_FILE, TOKEN_FILE):
            (folder / name).unlink(missing_ok=True)


async def _listen(runner: web.AppRunner, section: AdminSection) -> None:
    folder = section.folder
    if section.port is not None:
        site = web.TCPSite(runner, "127.0.0.1", section.port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(f"admin.port {section.port} cannot be listened on: {error.strerror}") from error
        port = runner.addresses[0][1]
        replace_secret(folder / URL_FILE, f"http://127.0.0.1:{port}".encode())
        return
    path = socket_path(folder)
    path.unlink(missing_ok=True)  # of a coordinator that was killed: this one has the folder's lock
    mask = os.umask(0o177)
    try:
        await web.UnixSite(runner, str(path)).start()
    except OSError as error:
        raise ConfigError(f"cannot listen on {path}: {error.strerror}") from error
    finally:
        os.umask(mask)


def _authenticated(token: str) -> Middleware:
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode(errors="replace")
        if request.path != "/healthz" and not hmac.compare_digest(expected, given):
            return web.json_response({"error": f"give the token of the file {TOKEN_FILE} as bearer"}, status=401)
        return await handler(request)

    return check


async def _health(service: Service) -> web.Response:
    """200 while every run is served, 503 while one has stopped by an error; the reason needs the token."""
    failed = [name for name, running in service.runs.items() if running.failed]
    status = {"healthy": not failed, "runs": len(service.runs), "failed": failed}
    return web.json_response(status, status=503 if failed else 200)


async def _metrics(service: Service, gate: ConnectionLimits) -> web.Response:
    return web.Response(text=metrics_text(service, gate), content_type="text/plain")
