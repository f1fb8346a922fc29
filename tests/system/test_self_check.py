"""A device whose runtime computes other numbers than the program says gives the work back, and operators see it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import platform
import urllib.request
from pathlib import Path

import pytest

from exporters.zoo.digits_data import part
from mobile_sdk import Client
from mobile_sdk.errors import SelfCheckFailed
from mobile_sdk.events import Event, UpdateAccepted
from mobile_sdk.manifest import Manifest

from .conftest import PATIENCE, Operator, Site
from .test_tampering import Tamper

SETTINGS = "[merge]\nbuffer = 2\n[stop]\nversions = 100000\n[admin]\nport = 0\n"


def disagree(site: Site) -> None:
    """Let the small tier's program promise a loss that no device computes: to a device, its runtime is wrong."""
    tamper = Tamper(site)
    manifest = Manifest.from_bytes(tamper.manifest())
    assert manifest.check is not None
    check = dataclasses.replace(manifest.check, loss=1.5 * manifest.check.loss)
    content = dataclasses.replace(manifest, check=check).to_bytes()
    tamper.replace("manifest", content)
    tamper.sign(content)


def test_a_device_that_fails_a_self_check_says_so_and_trains_nothing(site: Site, operator: Operator) -> None:
    disagree(site)
    server = site.serve(SETTINGS)
    small = str(site.query("SELECT budget_bytes FROM tiers WHERE name = 'small'")[0][0])
    wrong = site.device("phone-1", 0, "--budget", small)
    assert wrong.wait() == 1
    assert "computes wrong numbers: the loss is" in wrong.output
    right = site.device("phone-2", 1)
    operator.wait_until(lambda run: run["version"] >= 1)

    server.wait_for(r"phone-1 gave .* back: .*computes wrong numbers")
    devices = {device["id"]: device for device in operator.json("devices")}
    assert devices["phone-1"]["model"] == platform.machine()
    assert f"native {platform.machine()} ExecuTorch" in devices["phone-1"]["self_check"]
    assert (devices["phone-1"]["updates"], devices["phone-1"]["failures"]) == (0, 1)
    assert devices["phone-2"]["self_check"] == ""
    assert devices["phone-2"]["updates"] > 0
    listed = operator("devices")
    assert f"phone-1 ({platform.machine()}): this device's runtime" in " ".join(listed.split())

    folder = site.folder / ".ftte"
    headers = {"Authorization": f"Bearer {(folder / 'admin.token').read_text()}"}
    request = urllib.request.Request((folder / "admin.url").read_text() + "/metrics", headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    assert 'ftte_self_check_failures_total{run="digits"} 1.0' in lines
    kind = f'engine="native",model="{platform.machine()}",run="digits"'
    assert f"ftte_devices_failing_self_check{{{kind}}} 1.0" in lines

    # It is still known after a restart, until the device passes.
    right.kill()
    server.stop()
    profile = json.loads(site.query("SELECT profile FROM devices WHERE id = 'phone-1'")[0][0])
    assert "computes wrong numbers" in profile["self_check"]
    again = site.serve(SETTINGS)
    assert {d["id"] for d in operator.json("devices") if d["self_check"]} == {"phone-1"}
    again.stop()


def test_a_device_that_fails_in_one_run_goes_on_with_its_other_one(
    site: Site, tmp_path_factory: pytest.TempPathFactory, planned: Path
) -> None:
    """The same process, with a client for each run: the one is told, the other trains."""
    disagree(site)
    other = Site(tmp_path_factory.mktemp("other"), planned)
    budget = site.query("SELECT budget_bytes FROM tiers WHERE name = 'small'")[0][0]
    accepted: list[Event] = []

    async def take_part() -> None:
        failed, trained = asyncio.Event(), asyncio.Event()

        def listen(event: Event) -> None:
            if isinstance(event, UpdateAccepted) and failed.is_set():
                accepted.append(event)
                trained.set()

        clients = [
            Client(
                each.url,
                run="digits",
                key=each.key,
                name="phone",
                dataset=part(0, of=4),
                storage=each.folder / "phone",
                budget=budget,
            )
            for each in (site, other)
        ]
        wrong, right = asyncio.create_task(clients[0].run()), asyncio.create_task(clients[1].run(listen))
        try:
            with pytest.raises(SelfCheckFailed, match="computes wrong numbers"):
                await asyncio.wait_for(wrong, PATIENCE)
            failed.set()
            await asyncio.wait_for(trained.wait(), PATIENCE)
        finally:
            right.cancel()
            await asyncio.gather(right, return_exceptions=True)
            for client in clients:
                client.close()

    try:
        server = site.serve(SETTINGS)
        other.serve(SETTINGS.replace("buffer = 2", "buffer = 1"))
        asyncio.run(take_part())
        server.wait_for(r"phone gave .* back: .*computes wrong numbers")
    finally:
        other.close()
    assert accepted
