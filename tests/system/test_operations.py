"""An operator's day: two runs, invitations, a pause, a way back, a key, a device that must go."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobile_sdk.invite import Invite
from mobile_sdk.safetensors import loads

from .conftest import BIN, PATIENCE, Operator, Process, Site

SETTINGS = """
[training]
learning_rate = 0.02
[merge]
buffer = 2
[scheduling]
retry_seconds = 0.2
[retention]
versions = 100000
"""


def join(site: Site, link: str, name: str, part: int) -> Process:
    """A device that was given a link."""
    return site.keep(
        Process(
            *(BIN / "ftte-device", "join", link, "--name", name, "--storage", site.folder / name),
            *("--data", f"exporters.zoo.digits_data:part({part}, of=4)"),
            log=site.folder / f"{name}.log",
        )
    )


def test_an_operator_runs_a_run(site: Site, operator: Operator, tmp_path: Path) -> None:
    """Invite, join, pause, resume, roll back, export, rotate the key, revoke, finish: with nothing but commands."""
    server = site.serve(SETTINGS + "[admin]\n", server="open_enrolment = false\n")

    # A one-time invitation lets one device in, and no second one.
    link = operator("invite", "--no-qr", "--note", "Ann's phone").strip()
    assert Invite.parse(link).url == site.url
    first = join(site, link, "phone-1", 0)
    first.wait_for("connected as phone-1")
    second = join(site, link, "phone-2", 1)
    assert second.wait() == 1
    assert "used up" in second.output
    group = operator.json("invite", "--uses", "any", "--valid", "1h")["link"]
    second = join(site, group, "phone-2", 1)
    second.wait_for("accepted")
    assert "█" in operator("invite")
    assert [token["uses_left"] for token in operator.json("tokens")] == [0, None, 1]

    # Paused: work is handed in, nothing is merged, and who asks for more is sent away and comes back.
    operator.wait_until(lambda run: run["version"] >= 2)
    operator("runs", "pause", "digits")
    first.wait_for(r"the run is paused; coming back in")
    overview = operator.wait_until(lambda run: run["working"] == 0)
    assert overview["phase"] == "paused"
    operator("runs", "resume", "digits")
    operator.wait_until(lambda run: run["version"] > overview["version"])

    # Rolled back: a new version repeats the old one, and numbers go on.
    operator("runs", "drain")
    drained = operator.wait_until(lambda run: run["phase"] == "paused")
    assert drained["buffered"] == 0
    assert f"version {drained['version'] + 1} repeats version 1" in operator("rollback", "1", "--why", "a trial")
    versions = operator.json("versions")
    assert versions[-1] | {"created_at": 0} == {
        "version": drained["version"] + 1,
        "parent": 1,
        "kind": "rollback",
        "metrics": versions[1]["metrics"],
        "created_at": 0,
        "pruned": False,
        "best": False,
        "current_line": True,
    }
    assert [v["version"] for v in versions if not v["current_line"]] == list(range(2, drained["version"] + 1))
    assert "no ancestor" in operator("rollback", "2", code=1)

    # The key is replaced; devices that pin the old one follow.
    old = json.loads((site.folder / "phone-1" / "device.json").read_text())
    key = operator("rotate-key").split()[4]
    operator("runs", "start")
    operator.wait_until(lambda run: run["version"] > drained["version"] + 1)
    assert "followers" not in old
    followers = json.loads((site.folder / "phone-1" / "device.json").read_text())["followers"]
    assert followers == {site.key: key}
    assert Invite.parse(operator("invite", "--no-qr").strip()).key == key

    # Revoked: it is sent away, and stays out.
    operator("devices", "revoke", "phone-2")
    assert second.wait() == 1
    assert "revoked this device" in second.output
    assert join(site, group, "phone-2", 1).wait() == 1
    states = {device["id"]: device["state"] for device in operator.json("devices")}
    assert states.pop("phone-2") == "revoked"
    assert "no device" in operator("devices", "revoke", "nobody", code=1)
    assert {row["tier"] for row in operator.json("devices", "classes")} == {"large"}

    # Exported, in three formats that agree; finished.
    for name in ("model.safetensors", "model.pt", "model.pte"):
        operator("export-model", "-o", str(tmp_path / "made" / name), "--version", "1")
    arrays, metadata = loads((tmp_path / "made" / "model.safetensors").read_bytes())
    assert metadata == {"run": "digits", "version": "1"}
    import torch

    state = torch.load(tmp_path / "made" / "model.pt", weights_only=True)
    assert all(np.array_equal(state[name].numpy(), array) for name, array in arrays.items())
    assert (tmp_path / "made" / "model.pte").stat().st_size > 1000
    operator("runs", "finish")
    assert server.wait() == 0
    assert first.wait() == 0
    actions = [row["action"] for row in json.loads(audit(site))]
    for action in ("created", "enrolled", "paused", "rolled back", "rotated", "revoked", "exported", "finished"):
        assert any(action in each for each in actions), (action, actions)

    # No secret of anybody is in what was printed and logged.
    spoken = server.output + first.output + second.output
    secrets = [
        json.loads((site.folder / name / "device.json").read_text())["secret"] for name in ("phone-1", "phone-2")
    ]
    for secret in (*secrets, Invite.parse(link).token, Invite.parse(group).token):
        assert secret not in spoken


def audit(site: Site) -> str:
    """The audit log of a run that is not served any more."""
    rows = site.query("SELECT action FROM audit ORDER BY number")
    return json.dumps([{"action": row[0]} for row in rows])


@pytest.fixture
def two_runs(site: Site) -> Process:
    """The planned run, served by a process that stays when it has ended."""
    return site.serve(SETTINGS + "[stop]\nversions = 2\n", options=("--stay",))


def test_two_runs_share_a_process_and_a_port(two_runs: Process, site: Site, operator: Operator) -> None:
    other = site.folder / "other.toml"
    other.write_text(
        '[run]\nname = "other"\ntask = "exporters.zoo.digits:task"\nstate = "other-state"\nhold = true\n'
        f'[budgets]\nsmall = "1.5MB"\n[planning]\nselector = "last-layers"\n{SETTINGS}[stop]\nversions = 1\n'
    )
    operator("runs", "create", str(other))
    assert "served already" in operator("runs", "create", str(other), code=1)
    phone = site.device("phone-1", 0)
    assert phone.wait() == 0  # the first run has ended with version 2; the second is held
    assert operator.wait_until(lambda run: True, "other")["phase"] == "created"
    link = operator("invite", "--no-qr", "--run", "other").strip()
    guest = join(site, link, "guest", 1)
    guest.wait_for("the run is created; coming back in")
    operator("runs", "start", "other")
    second = join(site, operator("invite", "--no-qr", "--run", "other").strip(), "guest-2", 2)
    assert guest.wait() == 0
    assert second.wait() == 0
    runs = {run["name"]: run for run in operator.json("runs")["runs"]}
    assert {name: run["phase"] for name, run in runs.items()} == {"digits": "finished", "other": "finished"}
    assert runs["other"]["version"] == 1
    assert "there are digits, other" in operator("versions", code=1)
    stranger = site.keep(
        Process(
            *(BIN / "ftte-device", "join", site.url, "--run", "third", "--key", site.key),
            *("--data", "exporters.zoo.digits_data:part(0, of=4)", "--storage", site.folder / "stranger"),
            log=site.folder / "stranger.log",
        )
    )
    assert stranger.wait() == 1
    assert "there is no run 'third' here" in stranger.output
    metrics = operator("metrics")
    assert 'ftte_version{run="other"} 1.0' in metrics
    assert 'ftte_run_phase{phase="finished",run="digits"} 1.0' in metrics
    two_runs.stop()
    assert "Stopping" in two_runs.output
    assert not (site.folder / ".ftte" / "admin.sock").exists()


def test_the_admin_api_takes_nobody_without_the_token(site: Site) -> None:
    server = site.serve(SETTINGS + "[admin]\nport = 0\n")
    folder = site.folder / ".ftte"
    assert stat.S_IMODE((folder / "admin.token").stat().st_mode) == 0o600
    url = (folder / "admin.url").read_text()
    assert fetch(url, "/healthz") == (200, {"healthy": True, "runs": 1, "failed": []})
    for headers in ((), ("Authorization: Bearer x",)):
        status, answer = fetch(url, "/runs", *headers)
        assert status == 401
        assert "admin.token" in answer["error"]
    token = (folder / "admin.token").read_text()
    assert fetch(url, "/runs", f"Authorization: Bearer {token}")[0] == 200
    status, answer = fetch(url, "/runs/none/versions", f"Authorization: Bearer {token}")
    assert (status, answer["error"]) == (404, "there is no run 'none' here; there are digits")
    server.stop()


def fetch(url: str, path: str, *headers: str) -> tuple[int, Any]:
    import urllib.error
    import urllib.request

    request = urllib.request.Request(url + path, headers=dict(line.split(": ") for line in headers))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_the_doctor_finds_what_is_wrong(site: Site, operator: Operator) -> None:
    site.serve(SETTINGS).stop()
    run_file = site.folder / "run.toml"
    assert re.search(r"ok +the run is \w+", operator("doctor", str(run_file)))
    ((weights,),) = site.query("SELECT json_extract(weights, '$[0].sha256') FROM versions")
    (site.state / "artifacts" / weights).write_bytes(b"x")
    assert re.search(rf"error +the file \S*{weights} is damaged", operator("doctor", str(run_file), code=1))
