"""What the pages ask for, over a real loopback server and a run with a past."""

from __future__ import annotations

import asyncio
import io
import json
import select
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import torch

from coordinator.dashboard import feed as feed_module
from coordinator.dashboard import stream as stream_module
from coordinator.dashboard.trips import PARTS
from coordinator.errors import CoordinatorError
from coordinator.programs.convert import convert_weights
from exporters.task import load_task
from mobile_sdk import safetensors
from mobile_sdk.invite import Invite

from ..small_run import make_run
from .filled import add_devices, train
from .served import Browser, Served, with_dashboard


async def read(browser: Browser, path: str) -> Any:
    answer = await browser.get(path)
    assert answer.status == 200, await answer.text()
    return await answer.json()


class Stream:
    """Server-sent events, as a browser reads them."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.last = ""

    async def look(self) -> dict[str, Any]:
        """The next look."""
        name = ""
        async with asyncio.timeout(20):
            while True:
                line = (await self._answer.content.readline()).decode().rstrip("\n")
                key, _, value = line.partition(": ")
                if key == "id":
                    self.last = value
                elif key == "event":
                    name = value
                elif key == "data" and name == "look":
                    result: dict[str, Any] = json.loads(value)
                    return result


def test_thousands_of_devices_are_searched_sorted_and_paged_by_the_server(tmp_path: Path) -> None:
    make_run(tmp_path).store.close()
    add_devices(tmp_path / "state", 5_000)

    async def test(served: Served) -> None:
        async with served.browser() as anna:
            page = await read(anna, "/api/runs/small/devices?limit=50&offset=4990")
            assert (page["total"], len(page["devices"]), page["devices"][0]["id"]) == (5_000, 10, "phone-04990")
            most = await read(anna, "/api/runs/small/devices?order=updates&descending=true&limit=3")
            assert [device["updates"] for device in most["devices"]] == [96, 96, 96]
            assert [device["id"] for device in most["devices"]] == ["phone-00096", "phone-00193", "phone-00290"]
            found = await read(anna, "/api/runs/small/devices?search=pixel%203&limit=1")
            assert (found["total"], found["devices"][0]["model"]) == (5_000 // 9 + 1, "Pixel 3")
            assert (await read(anna, "/api/runs/small/devices?search=PHONE-0004"))["total"] == 10
            for nothing in ("%25", "_", "'; --", "\\"):
                assert (await read(anna, f"/api/runs/small/devices?search={nothing}"))["total"] == 0
            assert (await read(anna, "/api/runs/small/devices?state=connected"))["total"] == 0
            assert (await read(anna, "/api/runs/small/devices?state=offline&search=phone-0000"))["total"] == 10
            for wrong in ("order=secret", "limit=5000", "offset=-1", "state=gone", "more=1"):
                assert (await anna.get(f"/api/runs/small/devices?{wrong}")).status == 400, wrong

    with_dashboard(tmp_path, test)


def test_a_stream_begins_with_the_past_and_goes_on_from_where_a_page_was(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        await train(served, "phone-1", 2)
        async with served.browser() as anna:
            stream = Stream(await anna.get("/api/runs/small/events"))
            look = await stream.look()
            assert [point["version"] for point in look["versions"]][:3] == [0, 1, 2]
            assert look["versions"][2]["updates"] == 1
            assert sum("phone-1 sent an update" in line["words"] for line in look["lines"]) == 2
            words = [line["words"] for line in look["lines"]]
            assert "coordinator created the run small" in words
            assert "the run is running, by coordinator (started)" in words
            assert any(each.startswith("a device enrolled with open enrolment: ") for each in words)
            assert look["run"]["states"] == {"offline": 1}
            assert look["run"]["classes"][0]["updates"] == 2
            assert look["run"]["coverage"] == [0.0, 1.0, 1.0]
            times = look["run"]["times"]
            assert (times["trips"], times["training"]) == (2, 0.25)
            assert all(times[name] is not None and times[name] >= 0 for name in PARTS)
            await train(served, "phone-2", 1)
            seen: list[int] = []
            while 3 not in seen:
                seen += [point["version"] for point in (await stream.look())["versions"]]
            assert seen == [3]
            middle = stream.last
            await train(served, "phone-3", 1)
            again = Stream(await anna.get("/api/runs/small/events", **{"Last-Event-ID": middle}))
            seen = []
            while 4 not in seen:
                seen += [point["version"] for point in (await again.look())["versions"]]
            assert seen == [4]

    with_dashboard(tmp_path, test, merge={"buffer": 1})


def test_a_run_that_waits_says_for_what(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.browser() as anna:
            (run,) = (await read(anna, "/api/runs"))["runs"]
            assert run["waiting"] == "No device has joined yet."
            await train(served, "phone-1", 1, merged=False)
            (run,) = (await read(anna, "/api/runs"))["runs"]
            assert (run["buffered"], run["capacity"]) == (1, 2)
            assert run["waiting"] == "The next version waits for devices: none is connected."

    with_dashboard(tmp_path, test, merge={"buffer": 2})


def test_a_devices_story_has_its_trips(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        await train(served, "phone-1", 2)
        async with served.browser() as anna:
            story = await read(anna, "/api/runs/small/devices/phone-1")
            assert (story["id"], story["updates"], story["plan"]["tier"]) == ("phone-1", 2, "large")
            assert [trip["merged_into"] for trip in story["trips"]] == [2, 1]
            assert all(trip["training_seconds"] == 0.25 and 0 < trip["weight"] <= 1 for trip in story["trips"])
            assert (await anna.get("/api/runs/small/devices/phone-9")).status == 404
            assert (await anna.send("DELETE", "/api/runs/small/devices/phone-1")).status == 200
            assert (await anna.get("/api/runs/small/devices/phone-1")).status == 404

    with_dashboard(tmp_path, test, merge={"buffer": 1})


def test_versions_are_rolled_back_and_downloaded(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        await train(served, "phone-1", 2)
        async with served.browser() as anna:
            answer = await anna.send("POST", "/api/runs/small/rollback", {"version": 1, "why": "it was better"})
            assert answer.status == 200
            versions = await read(anna, "/api/runs/small/versions")
            assert [(each["version"], each["kind"]) for each in versions][-1] == (3, "rollback")
            answer = await anna.get("/api/runs/small/download?version=1&format=safetensors")
            assert answer.headers["Content-Disposition"] == 'attachment; filename="small-1.safetensors"'
            arrays, notes = safetensors.loads(await answer.read())
            assert notes["version"] == "1"
            assert set(arrays) == {"frozen", "body", "head"}
            assert (await anna.get("/api/runs/small/download?format=exe")).status == 400

    with_dashboard(tmp_path, test, merge={"buffer": 1})


def test_versions_come_in_pages(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        await train(served, "phone-1", 5)
        async with served.browser() as anna:
            newest = await read(anna, "/api/runs/small/versions?limit=2")
            assert [each["version"] for each in newest] == [4, 5]
            older = await read(anna, "/api/runs/small/versions?limit=3&before=4")
            assert [each["version"] for each in older] == [1, 2, 3]
            assert [each["version"] for each in await read(anna, "/api/runs/small/versions?limit=9&before=1")] == [0]
            assert len(await read(anna, "/api/runs/small/versions")) == 6
            for wrong in ("limit=many", "before=-1", f"limit={'9' * 19}"):
                assert (await anna.get(f"/api/runs/small/versions?{wrong}")).status == 400, wrong

    with_dashboard(tmp_path, test, merge={"buffer": 1})


def test_a_page_that_does_not_read_is_let_go_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "WRITE_SECONDS", 0.2)
    monkeypatch.setattr(feed_module, "REFRESH_SECONDS", 0.01)
    monkeypatch.setattr(feed_module, "LOOP_SHARE", 1.0)

    async def test(served: Served) -> None:
        state = served.app.only.coordinator.state
        async with served.browser() as anna:
            cookies = "; ".join(f"{cookie.key}={cookie.value}" for cookie in anna.session.cookie_jar)
            with socket.socket() as lazy:
                lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                lazy.connect(("127.0.0.1", int(served.url.rpartition(":")[2])))
                host = served.url.removeprefix("http://")
                lazy.sendall(
                    f"GET /api/runs/small/events HTTP/1.1\r\nHost: {host}\r\nCookie: {cookies}\r\n\r\n".encode()
                )
                hung_up = select.poll()
                hung_up.register(lazy, 0)  # an abort is told of even to those who ask for nothing
                gone = asyncio.create_task(asyncio.to_thread(hung_up.poll, 60_000))
                stream = Stream(await anna.get("/api/runs/small/events"))
                look = await stream.look()
                while not gone.done():  # more than the system's buffers hold
                    state.notice = f"{len(look)} {state.clock.wall()} " + "x" * 400_000
                    while look["run"]["notice"] != state.notice:
                        look = await stream.look()
                assert gone.result(), "the page that does not read is still open after a minute"
            state.notice = "the others go on"
            while look["run"]["notice"] != state.notice:
                look = await stream.look()

    with_dashboard(tmp_path, test)


def test_an_invitation_is_a_link_with_its_code(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.browser() as anna:
            body = {"uses": 10, "seconds": 3600, "note": "the lab"}
            made = await (await anna.send("POST", "/api/runs/small/join", body)).json()
            assert Invite.parse(made["link"]).run == "small"
            rows = made["rows"]
            assert len(rows) >= 21
            assert all(len(row) == len(rows) and set(row) <= {"0", "1"} for row in rows)
            assert rows[0].startswith("1111111")  # the code's corner
            (token,) = await read(anna, "/api/runs/small/tokens")
            assert (token["uses_left"], token["note"]) == (10, "the lab")
            assert "digest" not in token

    with_dashboard(tmp_path, test)


def test_plans_say_which_layers_each_tier_trains(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.browser() as anna:
            plans = await read(anna, "/api/runs/small/plans")
            assert [layer["name"] for layer in plans["layers"]] == ["frozen", "body", "head"]
            assert {tier["name"]: tier["shares"] for tier in plans["tiers"]} == {"small": [0, 0, 1], "large": [0, 1, 1]}

    with_dashboard(tmp_path, test)


@pytest.mark.full
def test_weights_become_files_of_torch_in_a_process_of_its_own(tmp_path: Path) -> None:
    model = load_task("exporters.zoo.digits:task").model
    weights = safetensors.dumps({name: value.detach().numpy() for name, value in model.state_dict().items()})
    content = asyncio.run(convert_weights("exporters.zoo.digits:task", "pt", weights))
    found = torch.load(io.BytesIO(content), weights_only=True)
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())
    with pytest.raises(CoordinatorError, match=r"the \.pte file cannot be made: .*nowhere"):
        asyncio.run(convert_weights("nowhere:task", "pte", weights))
