"""A dashboard over a small run, on a real loopback port, and browsers that are HTTP clients."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console

from coordinator.app import App, open_app
from coordinator.dashboard.sessions import Role

from ..small_run import SmallRun, make_run

__all__ = ["Browser", "Served", "with_dashboard"]


class Served:
    """An app with one small run, and its dashboard."""

    def __init__(self, app: App, small: SmallRun) -> None:
        assert app.dashboard is not None
        self.app = app
        self.small = small
        self.dashboard = app.dashboard

    @property
    def url(self) -> str:
        """Where the dashboard is."""
        return self.dashboard.url

    @contextlib.asynccontextmanager
    async def browser(self, role: Role | None = "operator") -> AsyncIterator[Browser]:
        """A browser, logged in with this role, or not at all."""
        jar = aiohttp.CookieJar(unsafe=True)  # it keeps cookies of addresses, too
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            browser = Browser(session, self.url)
            if role is not None:
                answer = await browser.log_in(self.dashboard.address(role, "anna").rpartition("/")[2])
                assert answer.status == 200
                browser.form = (await (await browser.get("/api/session")).json())["form"]
            yield browser


class Browser:
    """What the page's own requests look like."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url
        self.form = ""

    async def log_in(self, secret: str, **headers: str) -> aiohttp.ClientResponse:
        """Redeem an address, or give the admin token."""
        given = {"Origin": self.url, **headers}
        return await self.session.post(f"{self.url}/api/login", json={"secret": secret}, headers=given)

    async def get(self, path: str, **headers: str) -> aiohttp.ClientResponse:
        """Read."""
        return await self.session.get(self.url + path, headers=headers)

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> aiohttp.ClientResponse:
        """Change something, as the page does it, but for ``headers``; an empty one is left out."""
        given = {"Origin": self.url, "X-FTTE-Form": self.form, "Sec-Fetch-Site": "same-origin"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        kept = {name: value for name, value in given.items() if value}
        return await self.session.request(method, self.url + path, json=body or {}, headers=kept)


def with_dashboard(
    folder: Path, test: Callable[[Served], Coroutine[Any, Any, None]], *, admin: bool = True, **sections: Any
) -> None:
    """Run ``test`` on a dashboard; ``sections`` are of the run file."""

    async def main() -> None:
        small = make_run(folder, server={"port": 0}, **({"dashboard": {"port": 0}} | sections))
        small.store.close()
        async with open_app([small.config], Console(file=io.StringIO()), admin=admin) as app:
            await test(Served(app, small))

    asyncio.run(main())
