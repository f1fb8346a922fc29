"""The devices of a run: a page of a list of thousands, and one device's story."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..admin.operations import device_values
from ..errors import ConfigError, NotFoundError
from ..runs.served_run import ServedRun
from ..status import DeviceState
from ..store.interface import DeviceOrder
from .trips import trip_values

__all__ = ["device_page", "device_story"]

STORY_TRIPS = 100


class _Wanted(BaseModel):
    model_config = ConfigDict(extra="forbid")

    search: str = Field("", max_length=100)
    order: DeviceOrder = "id"
    descending: bool = False
    offset: int = Field(0, ge=0, le=10_000_000)
    limit: int = Field(50, ge=1, le=200)
    state: str = Field("", max_length=20)


async def device_page(running: ServedRun, request: web.Request) -> dict[str, Any]:
    """
    The part of the list that a query asks for, as JSON values.

    Raises:
        ConfigError: if the query is none.

    """
    try:
        wanted = _Wanted.model_validate(dict(request.query))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"the query's {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    run = running.coordinator.state
    among = None
    if wanted.state:
        if wanted.state not in (*get_args(DeviceState), "connected"):
            raise ConfigError(f"there is no state {wanted.state!r} of a device")
        among = [
            device.id
            for device in run.status().devices
            if device.state == wanted.state or (wanted.state == "connected" and device.state != "offline")
        ]
    total, records = await run.offload(
        lambda: running.store.devices.page(
            wanted.search,
            wanted.order,
            descending=wanted.descending,
            offset=wanted.offset,
            limit=wanted.limit,
            among=among,
        )
    )
    return {"total": total, "offset": wanted.offset, "devices": [device_values(running, record) for record in records]}


async def device_story(running: ServedRun, name: str) -> dict[str, Any]:
    """
    All that is known of one device, as JSON values.

    Raises:
        NotFoundError: if there is no such device.

    """
    run, store = running.coordinator.state, running.store
    record = await run.offload(lambda: store.devices.find(name))
    if record is None:
        raise NotFoundError(f"there is no device {name!r} in this run")
    trips = await run.offload(lambda: store.updates.trips(STORY_TRIPS, device=name))
    tier = next((tier for tier in run.tiers if tier.name == record.tier), None)
    return {
        **device_values(running, record),
        "report": dict(record.report),
        "plan": None
        if tier is None
        else {**dataclasses.asdict(tier.manifest.memory), "trained": len(tier.positions), "tier": tier.name},
        "trips": [trip_values(trip) for trip in reversed(trips)],
    }
