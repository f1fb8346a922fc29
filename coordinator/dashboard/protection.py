"""What every request has to pass: the right host, the right origin, a session, and its role."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from ..admin.routes import OPERATOR
from .sessions import Session, Sessions, form_token

__all__ = ["FORM_HEADER", "SECRET", "SESSION", "add_security_headers", "protect"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

FORM_HEADER = "X-FTTE-Form"

# Where handlers find who asks.
SESSION = web.RequestKey("session", Session)
SECRET = web.RequestKey("secret", str)

# Scripts, styles and data come from here alone; nothing is embedded, and nothing embeds this.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_READING = ("GET", "HEAD")


async def add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    """To be called for every response, errors included."""
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


def protect(sessions: Sessions, cookie: str, names: Collection[str], public: Collection[str]) -> Middleware:
    """
    Refuse what must not be answered.

    The host is checked against DNS rebinding: a page of another site whose name was made to point here still calls
    itself by that name. Requests that change something must come from this origin and carry what only this page knows.

    Args:
        sessions: who is logged in.
        cookie: the name of the cookie that holds a session's secret.
        names: host names by which browsers may call this server.
        public: paths that are answered without a session: the page itself, which holds nothing, and the log-in.

    """
    known = {name.lower() for name in names}

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _hostname(request.host) not in known:
            return _refused(421, "the dashboard is not called by this name: see dashboard.names in the run file")
        if not _same_origin(request):
            return _refused(403, "the request comes from a page of another site")
        if request.path in public:
            return await handler(request)
        secret = request.cookies.get(cookie, "")
        session = sessions.find(secret) if secret else None
        if session is None:
            return _refused(401, "nobody is logged in: `ftte dashboard` gives an address")
        if request.method not in _READING:
            given = request.headers.get(FORM_HEADER, "").encode(errors="replace")
            if not hmac.compare_digest(given, form_token(secret).encode()):
                return _refused(403, "the request does not come from the dashboard's page: load it again")
            if session.role != "operator" and request.path != "/api/logout":
                return _refused(403, "this session may look only: `ftte dashboard` gives an operator's address")
        request[SESSION] = session
        request[SECRET] = secret
        request[OPERATOR] = session.by
        return await handler(request)

    return check


def _same_origin(request: web.Request) -> bool:
    """Whether a request comes from this server's own page, or, where it only reads, from the address bar."""
    site = request.headers.get("Sec-Fetch-Site", "same-origin")
    if request.method in _READING:
        # The page itself may be opened from anywhere; what it holds is asked for by the page.
        return not request.path.startswith("/api/") or site in ("same-origin", "none")
    origin = urlsplit(request.headers.get("Origin", ""))
    return site == "same-origin" and origin.scheme in ("http", "https") and origin.netloc == request.host


def _hostname(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _refused(status: int, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status)
