"""What the pages ask for; all of it below ``/api``."""

from __future__ import annotations

from typing import Any, get_args

from aiohttp import web

from ..admin.routes import Api
from ..errors import ConfigError, NotFoundError
from ..programs.convert import Format, convert_weights
from ..runs.served_run import ServedRun
from ..runs.service import Service
from .devices import device_page, device_story
from .joining import qr_rows
from .layers import plans
from .looks import run_card
from .protection import SESSION

__all__ = ["Pages"]


class Pages:
    """
    Handlers over a service.

    Args:
        service: the runs.

    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._api = Api(service)

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register every path."""
        self._api.add_decisions(router, "/api")
        router.add_get("/api/runs", self._runs)
        router.add_get("/api/runs/{run}/plans", self._plans)
        router.add_get("/api/runs/{run}/devices", self._devices)
        router.add_get("/api/runs/{run}/devices/{device}", self._device)
        router.add_get("/api/runs/{run}/download", self._download)
        router.add_post("/api/runs/{run}/join", self._join)

    async def _runs(self, request: web.Request) -> web.Response:
        return web.json_response({"runs": [run_card(running) for running in self._service.runs.values()]})

    async def _plans(self, request: web.Request) -> web.Response:
        return web.json_response(plans(self._running(request).coordinator.state.tiers))

    async def _devices(self, request: web.Request) -> web.Response:
        return web.json_response(await device_page(self._running(request), request))

    async def _device(self, request: web.Request) -> web.Response:
        return web.json_response(await device_story(self._running(request), request.match_info["device"]))

    async def _download(self, request: web.Request) -> web.Response:
        if request[SESSION].role != "operator":
            return web.json_response({"error": "this session may look only: it gets no weights"}, status=403)
        form = request.query.get("format", "safetensors")
        if form not in ("safetensors", *get_args(Format)):
            raise ConfigError(f"there is no format {form[:20]!r}: ask for safetensors, pt or pte")
        running = self._running(request)
        number, content = await self._api.weights(request)
        if form != "safetensors":
            content = await convert_weights(running.config.run.task, _format(form), content)
        name = f"{running.name}-{number}.{form}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return web.Response(body=content, content_type="application/octet-stream", headers=headers)

    async def _join(self, request: web.Request) -> web.Response:
        made: dict[str, Any] = await self._api.invite(request)
        return web.json_response(made | qr_rows(made["link"]), status=201)

    def _running(self, request: web.Request) -> ServedRun:
        name = request.match_info["run"]
        running = self._service.runs.get(name)
        if running is None:
            raise NotFoundError(f"there is no run {name!r} here")
        return running


def _format(text: str) -> Format:
    return "pt" if text == "pt" else "pte"
