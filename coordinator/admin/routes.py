"""The admin API's paths; ``docs/reference/admin-api.md`` lists them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..config import load_config
from ..errors import ConfigError, NotFoundError
from ..runs.service import Service
from .files import OPERATOR_HEADER
from .operations import Operations

__all__ = ["OPERATOR", "Api", "Body", "operator_name", "parse_body"]

log = logging.getLogger(__name__)


# Where a request keeps who asks, if something else than the header says it.
OPERATOR = web.RequestKey("operator", str)

# Longer than any token is good for; times up to then can be shown.
LONGEST_SECONDS = 100 * 365 * 86_400.0


class Body(BaseModel):
    """What a request says, as JSON; keys that are not known are refused."""

    model_config = ConfigDict(extra="forbid")


class _Create(Body):
    file: Path


class _RollBack(Body):
    version: int = Field(ge=0, lt=2**63)
    why: str = Field("", max_length=1000)


class _Token(Body):
    uses: int | None = Field(1, ge=1, le=1_000_000_000)
    seconds: float | None = Field(None, gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)
    note: str = Field("", max_length=200)


class _Invite(_Token):
    url: str | None = Field(None, pattern=r"^wss?://[^\s]+$")


T = TypeVar("T", bound=Body)
Action = Callable[[Operations], Awaitable[Any]]


class Api:
    """
    Handlers over a service.

    Args:
        service: the runs.

    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register every path."""
        self.add_decisions(router)
        router.add_get("/runs", self._list)
        router.add_post("/runs", self._create)
        router.add_get("/runs/{run}", self._plain(lambda run: _later(run.overview)))
        router.add_get("/runs/{run}/weights", self._weights)
        router.add_get("/runs/{run}/devices", self._plain(lambda run: run.devices()))
        router.add_post("/runs/{run}/tokens", self._create_token)
        router.add_post("/runs/{run}/invite", self._invite)
        router.add_post("/runs/{run}/rotate-key", self._rotate)
        router.add_get("/runs/{run}/audit", self._plain(lambda run: run.audit()))

    def add_decisions(self, router: web.UrlDispatcher, base: str = "") -> None:
        """Register below ``base`` what people decide who look at a run, and what they decide by."""
        for name in ("start", "resume", "pause", "drain", "finish"):
            router.add_post(f"{base}/runs/{{run}}/{name}", self._phase(name))
        router.add_post(f"{base}/runs/{{run}}/rollback", self._roll_back)
        router.add_get(f"{base}/runs/{{run}}/versions", self._versions)
        router.add_post(f"{base}/runs/{{run}}/devices/{{device}}/revoke", self._revoke)
        router.add_delete(f"{base}/runs/{{run}}/devices/{{device}}", self._withdraw)
        router.add_get(f"{base}/runs/{{run}}/tokens", self._plain(lambda run: run.tokens()))
        router.add_delete(f"{base}/runs/{{run}}/tokens/{{token}}", self._revoke_token)

    async def _list(self, request: web.Request) -> web.Response:
        by = operator_name(request)
        overviews = [Operations(running, by).overview() for running in self._service.runs.values()]
        return web.json_response({"url": self._service.url, "runs": overviews})

    async def _create(self, request: web.Request) -> web.Response:
        body = await parse_body(request, _Create)
        if "\0" in str(body.file):
            raise ConfigError("the request's file: a path has no NUL character")
        config = await asyncio.to_thread(load_config, body.file)
        running = await self._service.create(config, lambda text: log.info("%s: %s", config.run.name, text))
        return web.json_response(Operations(running, operator_name(request)).overview(), status=201)

    def _plain(self, action: Action) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            return web.json_response(await action(self.operations(request)))

        return handle

    def _phase(self, name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            operations = self.operations(request)
            await getattr(operations, name)()
            return web.json_response(operations.overview())

        return handle

    async def _versions(self, request: web.Request) -> web.Response:
        operations = self.operations(request)
        before, limit = _number(request, "before"), _number(request, "limit")
        return web.json_response(await operations.versions(before, limit))

    async def _roll_back(self, request: web.Request) -> web.Response:
        body = await parse_body(request, _RollBack)
        return web.json_response(await self.operations(request).roll_back(body.version, body.why))

    async def _weights(self, request: web.Request) -> web.Response:
        version, content = await self.weights(request)
        headers = {"X-FTTE-Version": str(version)}
        return web.Response(body=content, content_type="application/octet-stream", headers=headers)

    async def weights(self, request: web.Request) -> tuple[int, bytes]:
        """
        The version that a request asks for, and its weights as a safetensors file.

        Raises:
            ConfigError: if its query is no number.
            NotFoundError: if there is no such run.

        """
        number = _number(request, "version")
        return await self.operations(request).weights(number)

    async def _revoke(self, request: web.Request) -> web.Response:
        await self.operations(request).revoke(request.match_info["device"])
        return web.json_response({})

    async def _withdraw(self, request: web.Request) -> web.Response:
        stopped = await self.operations(request).withdraw(request.match_info["device"])
        return web.json_response({"stopped_updates": stopped})

    async def _create_token(self, request: web.Request) -> web.Response:
        body = await parse_body(request, _Token)
        token, record = await self.operations(request).create_token(body.uses, body.seconds, body.note)
        return web.json_response({"token": token, **record}, status=201)

    async def _revoke_token(self, request: web.Request) -> web.Response:
        await self.operations(request).revoke_token(request.match_info["token"])
        return web.json_response({})

    async def invite(self, request: web.Request) -> dict[str, Any]:
        """
        A link with a new token, as a request asks for it.

        Raises:
            ConfigError: if the request or its address is not one.
            NotFoundError: if there is no such run.

        """
        body = await parse_body(request, _Invite)
        operations = self.operations(request)
        url = body.url or self._service.section.public_url or self._service.url
        try:
            host = urlsplit(url).hostname
        except ValueError as error:
            raise ConfigError(f"{url!r} is not the address of a coordinator: {error}") from error
        if host in ("0.0.0.0", "::"):
            raise ConfigError(f"devices cannot connect to {url}: give --url, or set server.public_url in the run file")
        token, record = await operations.create_token(body.uses, body.seconds, body.note)
        return {"link": operations.invite(url, token), **record}

    async def _invite(self, request: web.Request) -> web.Response:
        return web.json_response(await self.invite(request), status=201)

    async def _rotate(self, request: web.Request) -> web.Response:
        return web.json_response({"key": await self.operations(request).rotate_key()})

    def operations(self, request: web.Request) -> Operations:
        """
        What can be done to the run that a request names.

        Raises:
            NotFoundError: if there is no such run.

        """
        name = request.match_info["run"]
        running = self._service.runs.get(name)
        if running is None:
            raise NotFoundError(f"there is no run {name!r} here; there are {', '.join(self._service.runs) or 'none'}")
        return Operations(running, operator_name(request))


def _number(request: web.Request, name: str) -> int | None:
    """
    A number of a request's query, if it is there.

    Raises:
        ConfigError: if it is something else.

    """
    text = request.query.get(name, "")
    if text and not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise ConfigError(f"{name} must be a number of at most 18 digits, not {text[:40]!r}")
    return int(text) if text else None


async def _later(function: Callable[[], Any]) -> Any:
    return function()


def operator_name(request: web.Request) -> str:
    """Who asks, for the audit log."""
    name = str(request.get(OPERATOR) or request.headers.get(OPERATOR_HEADER, "operator"))
    return "".join(c for c in name if c.isalnum() or c in "._-@")[:64] or "operator"


async def parse_body(request: web.Request, model: type[T]) -> T:
    """
    The body of a request; an empty one is an empty object.

    Raises:
        ConfigError: if it is not what ``model`` says.

    """
    try:
        return model.model_validate_json(await request.read() or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"the request's {where or 'body'}: {first['msg']}") from error
