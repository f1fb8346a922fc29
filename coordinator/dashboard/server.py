"""The dashboard's listener, and the addresses that let people in."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from mobile_sdk.net.loopback import is_loopback
from mobile_sdk.system.support import is_windows

from ..admin.answers import answer_errors
from ..admin.files import TOKEN_FILE
from ..admin.routes import Body, operator_name, parse_body
from ..config import DashboardSection
from ..errors import ConfigError
from ..net.tls import server_context
from ..runs.service import Service
from .assets import Assets
from .login import LOGIN_PATH, Login
from .pages import Pages
from .protection import add_security_headers, protect
from .sessions import Role, Sessions
from .stream import Streams

__all__ = ["SESSIONS_FILE", "Dashboard", "open_dashboard"]

# Where the dashboard is unless the run file says otherwise; where that is taken, anywhere.
USUAL_PORT = 8766

# Keeps who is logged in over a restart, in the admin folder.
SESSIONS_FILE = "dashboard.sessions"

MAX_BODY_BYTES = 65_536
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


class _Wanted(Body):
    role: Role = "operator"


class Dashboard:
    """
    A dashboard that listens.

    ``url`` is where it is; it lets nobody in without an address of :meth:`address`.
    """

    def __init__(self, url: str, sessions: Sessions) -> None:
        self.url = url
        self._sessions = sessions

    def address(self, role: Role = "operator", by: str = "dashboard") -> str:
        """
        An address that lets somebody in once, within ten minutes.

        The secret stands behind the ``#``: browsers do not send that, so that it comes into no log on the way.
        """
        return f"{self.url}/#/login/{self._sessions.link(role, by)}"

    def add_to_admin(self, router: web.UrlDispatcher) -> None:
        """Let the admin API give addresses: ``POST /dashboard``."""
        router.add_post("/dashboard", self._give_address)

    async def _give_address(self, request: web.Request) -> web.Response:
        wanted = await parse_body(request, _Wanted)
        address = self.address(wanted.role, operator_name(request))
        return web.json_response({"address": address, "url": self.url}, status=201)


@contextlib.asynccontextmanager
async def open_dashboard(
    service: Service, section: DashboardSection, admin_folder: Path | None
) -> AsyncIterator[Dashboard]:
    """
    Serve the dashboard for as long as the context lasts.

    Args:
        service: whose runs are shown.
        section: where to listen.
        admin_folder: keeps sessions, and has the admin token that lets one in, too; none: there is neither.

    Raises:
        ConfigError: if the address cannot be listened on, or the certificate cannot be used.

    """
    tls = server_context(section)
    seconds = section.hours * 3_600
    file = None if admin_folder is None else admin_folder / SESSIONS_FILE
    sessions = Sessions(time.time, seconds, file)
    streams, assets = Streams(service, sessions), Assets()
    names = {section.host, *section.names, *(LOOPBACK_NAMES if is_loopback(section.host) else ())}
    listening = _bind(section)
    port = listening.getsockname()[1]
    cookie = f"ftte-{port}"  # cookies do not tell ports apart, and a machine may have several dashboards
    app = web.Application(
        middlewares=[protect(sessions, cookie, names, assets.paths | {LOGIN_PATH}), answer_errors],
        client_max_size=MAX_BODY_BYTES,
    )
    app.on_response_prepare.append(add_security_headers)
    app.on_shutdown.append(lambda app: streams.close())
    assets.add_to(app.router)
    token = None if admin_folder is None else admin_folder / TOKEN_FILE
    Login(sessions, cookie, secure=tls is not None, seconds=seconds, admin_token=token).add_to(app.router)
    streams.add_to(app.router)
    Pages(service).add_to(app.router)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listening, ssl_context=tls).start()
        name = section.names[0] if section.names else section.host
        host = f"[{name}]" if ":" in name else name
        yield Dashboard(f"{'https' if tls else 'http'}://{host}:{port}", sessions)
    finally:
        await runner.cleanup()


def _bind(section: DashboardSection) -> socket.socket:
    """
    A socket on the dashboard's port; on any free one where none is named and the usual one is taken.

    Raises:
        ConfigError: if there is no such address here, or it is taken.

    """
    family = socket.AF_INET6 if ":" in section.host else socket.AF_INET
    ports = (section.port,) if section.port is not None else (USUAL_PORT, 0)
    for port in ports:
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            if not is_windows():  # there, it would let others take the port
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((section.host, port))
            listening.listen()
            return listening
        except OSError as error:
            listening.close()
            if error.errno != errno.EADDRINUSE or port == ports[-1]:
                raise ConfigError(
                    f"the dashboard cannot listen on {section.host}:{port}: {error.strerror or error}; "
                    "set dashboard.port in the run file"
                ) from error
    raise AssertionError("the last port has returned or raised")
