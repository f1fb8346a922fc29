"""What a device may fetch: the files of its assignment, from any byte on, and shorter ways to them."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest

from coordinator.programs.tiers import Tier
from coordinator.run_state import RunState
from coordinator.sessions.downloads import Downloads
from coordinator.simulation.virtual_time import run
from coordinator.status import DeviceStatus
from coordinator.versions.differences import Downlink
from coordinator.versions.retention import prune
from mobile_sdk.errors import ProtocolError, Refused
from mobile_sdk.payload import apply_difference
from mobile_sdk.protocol.coordinator_session import CoordinatorSession
from mobile_sdk.protocol.frames import Chunk
from mobile_sdk.protocol.messages import Assign, Hex, Name
from mobile_sdk.protocol.session import FetchRequested, SendProgress, State

from ..small_run import SmallRun, make_run


def work(state: RunState, tier: Tier) -> Assign:
    """An assignment of the newest version."""
    newest = state.versions.newest
    files = (tier.record.manifest, Hex(tier.record.signature), tier.program, newest.weights)
    return Assign(Name("a00000001"), newest.version, *files, {}, 1)


class Desk:
    """The downloads of a device that is in."""

    def __init__(self, small: SmallRun) -> None:
        self.state = small.state()
        self.session = CoordinatorSession(run="small", key=small.key.public)
        self.session.state = State.OPEN
        self.status = DeviceStatus("phone-1")
        self.downloads = Downloads(self.state, self.session, self.status, lambda: 0.0)
        self.assign = work(self.state, small.tiers[1])

    def sent(self) -> bytes:
        """What was sent of files."""
        frames = self.session.frames_to_send()
        return b"".join(bytes(Chunk.from_bytes(frame).data) for frame in frames if isinstance(frame, bytes))


def test_every_file_of_an_assignment_can_be_fetched_and_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        desk = Desk(small)
        weights = desk.assign.weights
        with pytest.raises(Refused, match="is not part of this device's assignment"):
            await desk.downloads.send(FetchRequested(weights[0].sha256, 0))
        await desk.downloads.allow(desk.assign)
        for ref in (desk.assign.manifest, desk.assign.program, *weights):
            await desk.downloads.send(FetchRequested(ref.sha256, 0))
            assert desk.sent() == small.store.artifacts.path(ref.sha256).read_bytes()
        other = small.tiers[0].record.manifest.sha256  # of the run, but of another tier
        with pytest.raises(Refused) as refused:
            await desk.downloads.send(FetchRequested(other, 0))
        assert refused.value.code == "unknown-artifact"

    run(main())


def test_a_new_assignment_ends_what_the_last_one_allowed(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        desk = Desk(small)
        await desk.downloads.allow(desk.assign)
        await desk.downloads.allow(work(desk.state, small.tiers[0]))
        with pytest.raises(Refused):
            await desk.downloads.send(FetchRequested(desk.assign.manifest.sha256, 0))

    run(main())


def test_a_download_goes_on_where_it_stopped_but_not_beyond_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        desk = Desk(small)
        ref = desk.assign.manifest
        content = small.store.artifacts.path(ref.sha256).read_bytes()
        await desk.downloads.allow(desk.assign)
        await desk.downloads.send(FetchRequested(ref.sha256, 100))
        assert desk.sent() == content[100:]
        await desk.downloads.send(FetchRequested(ref.sha256, ref.size))
        assert desk.sent() == b""
        with pytest.raises(ProtocolError, match=f"offset {ref.size + 1} of an artifact of {ref.size} bytes"):
            await desk.downloads.send(FetchRequested(ref.sha256, ref.size + 1))

    run(main())


def test_the_device_downloads_until_the_last_byte_of_the_last_file_and_then_trains(tmp_path: Path) -> None:
    async def main() -> None:
        desk = Desk(make_run(tmp_path))
        await desk.downloads.allow(desk.assign)
        first, second = desk.assign.weights
        for ref in (first, second):
            await desk.downloads.send(FetchRequested(ref.sha256, 0))
        shown = []
        for ref, sent in ((first, 10), (first, first.size), (second, second.size - 1), (second, second.size)):
            desk.downloads.progressed(SendProgress(ref.sha256, sent, ref.size))
            shown.append(desk.status.state)
        assert shown == ["downloading", "downloading", "downloading", "training"]

    run(main())


def test_a_device_that_holds_the_last_version_gets_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        desk = Desk(small)
        held = desk.assign.weights
        versions = desk.state.versions
        versions.commit(versions.with_trained(versions.trained.gather(versions.vector) + 1), {}, {}, [], [], 0.0)
        desk.downloads.holds = [ref.sha256 for ref in held]
        assign = work(desk.state, small.tiers[1])
        (way,) = await desk.downloads.allow(assign)
        assert (str(way.target), str(way.base)) == (assign.weights[-1].sha256, held[-1].sha256)
        await desk.downloads.send(FetchRequested(way.artifact.sha256, 0))
        base = small.store.artifacts.path(way.base).read_bytes()
        whole = io.BytesIO()
        apply_difference(base, desk.sent(), 1_000_000, whole)
        assert whole.getvalue() == small.store.artifacts.path(way.target).read_bytes()
        monkeypatch.setattr(Downlink, "differences", None)  # known by now: nothing is made a second time
        assert await desk.downloads.allow(assign) == (way,)

    run(main())


def test_a_shorter_way_is_looked_for_before_the_work_is_there(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        desk = Desk(small)
        desk.downloads.holds = [ref.sha256 for ref in desk.assign.weights]
        versions = desk.state.versions
        versions.commit(versions.with_trained(versions.trained.gather(versions.vector) + 1), {}, {}, [], [], 0.0)
        assign = work(desk.state, small.tiers[1])
        assert desk.downloads.allow_at_once(assign) is None
        desk.downloads.expect(assign.weights)
        await asyncio.gather(*desk.state.downlink._asked.values())
        found = desk.downloads.allow_at_once(assign)
        assert found is not None
        assert [way.target for way in found] == [assign.weights[-1].sha256]

    run(main())


def test_without_differences_files_are_sent_whole(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, payload={"differences": False})
        desk = Desk(small)
        desk.downloads.holds = [ref.sha256 for ref in desk.assign.weights]
        assert await desk.downloads.allow(desk.assign) == ()

    run(main())


def test_a_version_that_was_pruned_on_its_way_sends_the_device_back_for_a_newer_one(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, retention={"versions": 1, "held_days": 0})
        desk = Desk(small)
        await desk.downloads.allow(desk.assign)
        old = desk.assign.weights[-1].sha256
        versions = desk.state.versions
        versions.commit(versions.vector + 1, {}, {}, [], [], 0.0)
        assert prune(small.store, small.config.retention, None, 1.0) == [0]
        with pytest.raises(Refused, match="come again") as refused:
            await desk.downloads.send(FetchRequested(old, 0))
        assert refused.value.code == "unavailable"

    run(main())
