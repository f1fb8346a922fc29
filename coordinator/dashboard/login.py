"""Log in by an address that is good once or by the admin token, and log out."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mobile_sdk.version import __version__

from .protection import SECRET, SESSION
from .sessions import Sessions, form_token

__all__ = ["LOGIN_PATH", "Login"]

log = logging.getLogger(__name__)

LOGIN_PATH = "/api/login"


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid")

    secret: str = Field(max_length=200)


class Login:
    """
    Handlers of the sessions.

    Args:
        sessions: who is logged in.
        cookie: the name of the cookie.
        secure: whether it travels by TLS alone.
        seconds: how long the cookie lasts.
        admin_token: the file that holds the admin token; none where there is none.

    """

    def __init__(
        self, sessions: Sessions, cookie: str, *, secure: bool, seconds: float, admin_token: Path | None
    ) -> None:
        self._sessions = sessions
        self._cookie = cookie
        self._secure = secure
        self._seconds = seconds
        self._admin_token = admin_token

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register every path."""
        router.add_post(LOGIN_PATH, self._login)
        router.add_get("/api/session", self._session)
        router.add_post("/api/logout", self._logout)

    async def _login(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return web.json_response({"error": "the body must be JSON"}, status=415)
        try:
            given = _Given.model_validate_json(await request.read()).secret.strip()
        except ValidationError:
            return web.json_response({"error": "the body must be an object with a secret"}, status=400)
        secret = self._sessions.redeem(given)
        if secret is None and await asyncio.to_thread(self._is_admin_token, given):
            secret = self._sessions.open("operator", "dashboard")
        if secret is None:
            why = "this address was used before, or is too old: `ftte dashboard` gives a new one"
            return web.json_response({"error": why}, status=401)
        await self._kept(self._sessions.save)
        response = web.json_response({})
        response.set_cookie(
            self._cookie,
            secret,
            max_age=int(self._seconds),
            httponly=True,
            samesite="Strict",
            secure=self._secure,
            path="/",
        )
        return response

    async def _session(self, request: web.Request) -> web.Response:
        session = request[SESSION]
        return web.json_response(
            {
                "role": session.role,
                "by": session.by,
                "expires_at": session.expires_at,
                "form": form_token(request[SECRET]),
                "release": __version__,
            }
        )

    async def _logout(self, request: web.Request) -> web.Response:
        self._sessions.close(request[SECRET])
        await self._kept(self._sessions.save)
        response = web.json_response({})
        response.del_cookie(self._cookie, path="/")
        return response

    def _is_admin_token(self, given: str) -> bool:
        try:
            token = self._admin_token.read_text().strip() if self._admin_token is not None else ""
        except OSError:
            return False
        return bool(token) and hmac.compare_digest(token.encode(), given.encode(errors="replace"))

    async def _kept(self, save: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(save)
        except OSError as error:
            log.warning("the dashboard's sessions will not outlast a restart: %s", error)
