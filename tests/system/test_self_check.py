"""A device whose runtime computes other numbers than the program says gives the work back, and operators see it."""

from __future__ import annotations

import dataclasses
import json
import platform
import urllib.request

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
