"""What a device sees of a gateway is what it sees of a coordinator, and the weights are the same to the byte."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator.conductor.listener import GatewayConnections, RemoteGateways, listen_for_gateways
from coordinator.config import ServerSection
from coordinator.errors import StoreUnavailable, Superseded
from coordinator.gateway.conductors import LocalConductor, RemoteConductors
from coordinator.gateway.gateway import Gateway
from coordinator.gateway.messages import RELEASE
from coordinator.gateway.pipe import PipeClosed
from coordinator.gateway.process import run_gateway
from coordinator.gateway.remote_store import RemoteStore
from coordinator.gateway.run import read_tiers
from coordinator.net.admission import ConnectionLimits
from coordinator.net.traffic import Traffic
from coordinator.store.records import VersionRecord
from coordinator.store.sqlite.lease import FolderLease
from mobile_sdk.net.connection import ConnectionLost
from mobile_sdk.protocol.frames import Chunk
from mobile_sdk.protocol.messages import Accepted, Announce, Finished, Later, MergedMessage, Rejected
from mobile_sdk.system.sockets import listen_locally

from ..small_run import Device, SmallRun, make_run, update_bytes
from .conducted import SECRET, conduct, make_coordinator

SECTIONS: dict[str, dict[str, Any]] = {
    "merge": {"buffer": 4, "flush_seconds": 0},
    "scheduling": {"concurrency": 0},
    "stop": {"versions": 3},
}
PHONES = [f"phone-{number}" for number in range(1, 5)]

Serve = Callable[..., Any]


async def three_versions(small: SmallRun, door: Callable[[], Serve]) -> None:
    """Four devices hand in three updates each; the order of a round is another every time."""
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        rounds = [asyncio.Barrier(len(PHONES)) for _ in range(3)]

        async def work(name: str, number: int) -> None:
            async with Device(small, name).connected(door()) as device:
                await device.join()
                for turn, barrier in enumerate(rounds):
                    assign = await device.work()
                    await barrier.wait()
                    content = update_bytes("large", number / 7 + turn / 3)
                    assert isinstance(await device.upload(assign, content), Accepted)
                    merged = await device.expect(MergedMessage)
                    assert merged.version == turn + 1
                await device.expect(Finished)

        for number, name in enumerate(PHONES):
            group.create_task(work(name, number))


def hashes(small: SmallRun) -> list[str]:
    """Of the trained weights of every version."""
    return [record.weights[-1].sha256 for record in small.store.versions.all()]


def test_versions_are_the_same_to_the_byte_with_one_process_and_with_three_gateways(tmp_path: Path) -> None:
    async def alone() -> list[str]:
        small = make_run(tmp_path / "alone", **SECTIONS)
        coordinator = make_coordinator(small)
        work = asyncio.create_task(coordinator.run())
        await three_versions(small, lambda: coordinator.serve)
        await work
        coordinator.close()
        return hashes(small)

    async def with_gateways(elsewhere: bool) -> list[str]:
        small = make_run(tmp_path / f"gateways-{elsewhere}", **SECTIONS)
        async with conduct(small, 3, elsewhere=elsewhere) as conducted:
            await three_versions(small, lambda: conducted.next.serve)
        return hashes(small)

    expected = asyncio.run(alone())
    assert len(expected) == 4
    assert asyncio.run(with_gateways(elsewhere=False)) == expected
    assert asyncio.run(with_gateways(elsewhere=True)) == expected


def test_the_conductor_knows_what_a_device_behind_a_gateway_does(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 2, "flush_seconds": 0})
        async with conduct(small, 1) as conducted:
            status = conducted.coordinator.state.device("phone-1")
            async with Device(small).connected(conducted.next.serve, Traffic(up=7, down=9)) as device:
                await device.join()
                assign = await device.work()
                assert (status.state, status.tier, status.samples) == ("training", "large", 10)
                for ref in (assign.manifest, *assign.weights):
                    assert await device.download(ref) == small.store.artifacts.path(ref.sha256).read_bytes()
                assert isinstance(await device.upload(assign, update_bytes("large")), Accepted)
                assert (status.state, status.updates) == ("idle", 1)
            await conducted.coordinator.drained()
            assert status.state == "offline"
            assert (status.bytes_up, status.bytes_down) == (7, 9)
            record = small.store.devices.find("phone-1")
            assert record is not None
            assert (record.bytes_up, record.bytes_down) == (7, 9)
            assert record.profile["samples"] == 10

    asyncio.run(main())


def test_a_gateway_elsewhere_has_copies_of_the_files_that_its_devices_need_and_of_no_key(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 1, "flush_seconds": 0})
        async with conduct(small, 1, elsewhere=True) as conducted:
            folder = conducted.next._folder
            assert folder is not None
            async with Device(small).connected(conducted.next.serve) as device:
                await device.join()
                for _ in range(2):
                    assign = await device.work()
                    for ref in (assign.manifest, assign.program, *assign.weights):
                        expected = small.store.artifacts.path(ref.sha256).read_bytes()
                        assert await device.download(ref) == expected
                        assert (folder / "small" / "artifacts" / ref.sha256).read_bytes() == expected
                    assert isinstance(await device.upload(assign, update_bytes("large")), Accepted)
                    await device.expect(MergedMessage)
            kept = {path.name for path in folder.rglob("*") if path.is_file()}
            assert all(len(name) == 64 for name in kept), kept

    asyncio.run(main())


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one machine", "machines"])
@pytest.mark.parametrize("noticed", [True, False], ids=["has left", "comes again"])
def test_an_upload_that_broke_goes_on_at_another_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool, noticed: bool
) -> None:
    """On another machine, too, and before the first one has noticed that its device has left."""
    monkeypatch.setattr("mobile_sdk.protocol.transfer.LEAST_CHUNK_BYTES", 1)

    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 2, "flush_seconds": 0})
        content = update_bytes("large")
        digest = hashlib.sha256(content).hexdigest()
        async with conduct(small, 2, elsewhere=elsewhere) as conducted:
            one, other = conducted.gateways
            async with contextlib.AsyncExitStack() as stack:
                device = await stack.enter_async_context(Device(small).connected(one.serve))
                await device.join()
                assign = await device.work()
                await device.offer(assign, content)
                await send_part(device, digest, content, 0, 100)
                if noticed:
                    await stack.aclose()
                again = await stack.enter_async_context(Device(small, enrolled=True).connected(other.serve))
                await again.join()
                work = await again.work()
                assert work.assignment == assign.assignment
                assert isinstance(await again.upload(work, content), Accepted)
                fetches = [said for said in again.heard if said["type"] == "fetch"]
                assert [fetch["offset"] for fetch in fetches] == [100]
            left = [path for path in Path(conducted.folder).rglob("*@*")] + list(tmp_path.rglob("*@*"))
            assert not left, "nothing stays of what was taken in"

    asyncio.run(main())


def test_an_upload_that_is_on_its_way_arrives_at_a_gateway_that_is_told_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobile_sdk.protocol.transfer.LEAST_CHUNK_BYTES", 1)
    listening: asyncio.Queue[Gateway] = asyncio.Queue()

    @contextlib.asynccontextmanager
    async def listen(host: Gateway, *arguments: object, **options: object) -> AsyncIterator[str]:
        listening.put_nowait(host)
        yield "an address"

    monkeypatch.setattr("coordinator.gateway.process.listen", listen)

    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 2, "flush_seconds": 0})
        content = update_bytes("large")
        digest = hashlib.sha256(content).hexdigest()
        async with conduct(small, 0, elsewhere=True) as conducted, asyncio.timeout(20):
            process = asyncio.create_task(
                run_gateway(small.config.server, conducted.conductors, Path(conducted.folder) / "process")
            )
            gateway = await listening.get()
            async with Device(small).connected(gateway.serve) as device:
                await device.join()
                await device.offer(await device.work(), content)
                await send_part(device, digest, content, 0, 100)
                process.cancel()
                await asyncio.sleep(0.1)
                assert not process.done()
                await device.wire.send(Chunk(digest, 100, content[100:]).to_bytes())
                await device.served()
                assert [said["type"] for said in device.heard[-2:]] == ["accepted", "error"]
                assert device.heard[-1]["code"] == "unavailable"
            with pytest.raises(asyncio.CancelledError):
                await process
            assert len(conducted.coordinator.state.buffer) == 1

    asyncio.run(main())


async def send_part(device: Device, digest: str, content: bytes, start: int, stop: int) -> None:
    """Send a chunk, and wait until it is acknowledged."""
    while not any(said["type"] == "fetch" for said in device.heard):
        await asyncio.sleep(0.01)
    await device.wire.send(Chunk(digest, start, content[start:stop]).to_bytes())
    while not any(said["type"] == "ack" and said["offset"] == stop for said in device.heard):
        await asyncio.sleep(0.01)


def test_an_update_handed_in_twice_over_two_gateways_is_one(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 2, "flush_seconds": 0})
        content = update_bytes("large")
        async with conduct(small, 2) as conducted:
            async with Device(small).connected(conducted.next.serve) as device:
                await device.join()
                assign = await device.work()
                first = await device.upload(assign, content)
            async with Device(small, enrolled=True).connected(conducted.next.serve) as device:
                await device.join()
                second = await device.upload(assign, content)
            assert isinstance(first, Accepted)
            assert not first.duplicate
            assert isinstance(second, Accepted)
            assert second.duplicate
            assert len(conducted.coordinator.state.buffer) == 1

    asyncio.run(main())


def test_an_update_that_cannot_be_used_is_refused_by_the_gateway(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 2, "flush_seconds": 0})
        async with conduct(small, 1) as conducted, Device(small).connected(conducted.next.serve) as device:
            await device.join()
            assign = await device.work()
            answer = await device.upload(assign, update_bytes("large", float("nan")))
            assert isinstance(answer, Rejected)
            assert answer.code == "not-finite"
            assert (await device.work()).assignment != assign.assignment
            assert conducted.coordinator.state.device("phone-1").failures == 1

    asyncio.run(main())


def test_a_revoked_device_is_sent_away_and_comes_in_at_no_gateway(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        async with conduct(small, 2) as conducted:
            async with Device(small).connected(conducted.next.serve) as device:
                await device.join()
                small.store.devices.revoke("phone-1", 1.0, by="a test")
                await conducted.coordinator.expel("phone-1")
                await device.served()
                assert device.heard[-1]["code"] == "revoked"
            async with Device(small, enrolled=True).connected(conducted.next.serve) as device:
                with pytest.raises(AssertionError, match="revoked"):
                    await device.expect(Finished)

    asyncio.run(main())


def test_a_device_that_connects_to_another_gateway_has_one_connection(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        async with conduct(small, 2) as conducted:
            one, other = conducted.gateways
            async with Device(small).connected(one.serve) as old:
                await old.join()
                async with Device(small, enrolled=True).connected(other.serve) as new:
                    await new.join()
                    await old.served()
                    assert old.heard[-1]["code"] == "replaced"
                    await new.work()

    asyncio.run(main())


def test_versions_are_announced_by_gateways_and_a_late_device_hears_of_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 1, "flush_seconds": 0}, stop={"versions": 1})
        async with conduct(small, 2) as conducted:
            one, other = conducted.gateways
            async with (
                Device(small).connected(one.serve) as worker,
                Device(small, "phone-2").connected(other.serve) as listener,
            ):
                await worker.join()
                await listener.join()
                await worker.upload(await worker.work(), update_bytes("large"))
                assert (await listener.expect(Announce)).version == 1
                assert (await listener.expect(Finished)).version == 1
            async with Device(small, "phone-3").connected(one.serve) as late:
                await late.join()
                await late.ask()
                assert (await late.expect(Finished)).version == 1

    asyncio.run(main())


def test_without_a_conductor_devices_are_told_to_come_again(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        async with conduct(small, 1) as conducted:
            gateway = conducted.next
        async with Device(small).connected(gateway.serve) as device:
            assert (await device.expect(Later)).seconds > 0
            await device.served()
            with pytest.raises(ConnectionLost):
                await device.wire.send("anything")

    asyncio.run(main())


def test_a_device_that_comes_between_two_conductors_waits_for_the_next_one(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        async with conduct(small, 1) as conducted:
            gateway = conducted.next
            gateway.connected.clear()
            async with Device(small).connected(gateway.serve) as device:
                joining = asyncio.create_task(device.join())
                await asyncio.sleep(0)
                gateway.connected.set()
                await joining
                assert (await device.work()).version == 0

    asyncio.run(main())


def test_a_conductor_that_another_leads_instead_of_lets_its_gateways_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        async with conduct(small, 2) as conducted:
            monkeypatch.setattr(FolderLease, "lost", True)
            async with asyncio.timeout(30):
                while any(gateway.connected.is_set() for gateway in conducted.gateways):
                    await asyncio.sleep(0.01)
            assert not conducted.connections.links

    asyncio.run(main())


def test_an_update_that_a_conductor_cannot_take_any_more_is_kept_by_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def superseded(*_: object) -> None:
        raise Superseded("another process leads the run by now")

    async def main() -> None:
        small = make_run(tmp_path)
        async with conduct(small, 1) as conducted, Device(small).connected(conducted.next.serve) as device:
            await device.join()
            assign = await device.work()
            monkeypatch.setattr(small.store.updates, "accept", superseded)
            with pytest.raises(AssertionError, match=r"unavailable: .*try again later"):
                await device.upload(assign, update_bytes("large"))

    asyncio.run(main())
    assert not [record for record in caplog.records if record.exc_info]


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def test_a_gateway_leaves_a_conductor_that_is_stopped_for_the_one_that_listens_on_its_path(tmp_path: Path) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            socket = Path(folder) / "conductor.sock"
            conductors = LocalConductor(socket)
            first = await listen_locally(hang_up, socket)
            pipe = await conductors.connect()
            assert not await conductors.has_successor()
            socket.unlink()
            assert not await conductors.has_successor(), "it may come back"
            second = await listen_locally(hang_up, socket)
            assert await conductors.has_successor()
            await pipe.close()
            first.close()
            second.close()

    asyncio.run(main())


def test_the_places_of_a_gateway_that_dies_are_free(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        async with conduct(small, 1) as conducted:
            async with Device(small).connected(conducted.next.serve) as device:
                await device.join()
                await device.work()
                assert conducted.coordinator.dispatcher.scheduler.training == 1
                (link,) = conducted.connections.links
                await link._pipe.close()  # as the kernel does when a process dies
                await device.served()
                await conducted.coordinator.drained()
                assert conducted.coordinator.dispatcher.scheduler.training == 0
            assert conducted.coordinator.dispatcher.assignment("phone-1") is not None, "it may come back with it"

    asyncio.run(main())


def test_gateways_are_replaced_one_by_one_and_no_device_is_refused(tmp_path: Path) -> None:
    """What a device hears is that it comes again; an upload that is on its way arrives."""

    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 4, "flush_seconds": 0}, scheduling={"concurrency": 0})
        trips: collections.Counter[str] = collections.Counter()
        heard: set[str] = set()
        rotating = asyncio.Event()
        async with conduct(small, 2) as conducted, asyncio.timeout(30):

            async def work(name: str) -> None:
                while not rotating.is_set() or trips[name] < 8:
                    gateway = next(each for each in conducted.gateways if each.is_ready)
                    device = Device(small, name, enrolled=bool(trips[name]))
                    with contextlib.suppress(ConnectionLost, AssertionError):
                        async with device.connected(gateway.serve):
                            await device.join()
                            while not rotating.is_set() or trips[name] < 8:
                                answer = await device.upload(await device.work(), update_bytes("large"))
                                assert isinstance(answer, Accepted)
                                trips[name] += 1
                    heard.update(said["code"] for said in device.heard if said["type"] in ("error", "rejected"))

            async with asyncio.TaskGroup() as group:
                for name in PHONES:
                    group.create_task(work(name))
                for _ in range(4):
                    while min(trips[name] for name in PHONES) < 2:
                        await asyncio.sleep(0.01)
                    trips.clear()
                    conducted.gateways.append(conducted.start())
                    await conducted.gateways.pop(0).close()
                rotating.set()
        assert heard <= {"unavailable"}
        merged = [update.assignment for update in small.store.updates.merged()]
        assert len(merged) == len(set(merged))

    asyncio.run(main())


def test_conductors_are_replaced_and_no_device_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 4, "flush_seconds": 0}, scheduling={"concurrency": 0})
        trips: collections.Counter[str] = collections.Counter()
        heard: set[str] = set()
        address, last = "", False

        async def find() -> str:
            return address

        async def work(name: str, gateway: Gateway) -> None:
            while not last or trips[name] < 2:
                device = Device(small, name, enrolled=small.store.devices.find(name) is not None)
                with contextlib.suppress(ConnectionLost, AssertionError):
                    async with device.connected(gateway.serve):
                        await device.join()
                        while not last or trips[name] < 2:
                            answer = await device.upload(await device.work(), update_bytes("large"))
                            assert isinstance(answer, Accepted)
                            trips[name] += 1
                heard.update(said["code"] for said in device.heard if said["type"] in ("error", "rejected"))

        gateway = Gateway(small.config.server, ConnectionLimits(100, 100, 100), tmp_path / "gateway")
        following = asyncio.create_task(gateway.follow(RemoteConductors(find, SECRET)))
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for name in PHONES:
                group.create_task(work(name, gateway))
            for turn in range(3):
                coordinator, connections = make_coordinator(small), GatewayConnections()
                conducting = asyncio.create_task(coordinator.run())
                trips.clear()
                place = RemoteGateways("127.0.0.1:0", SECRET)
                async with listen_for_gateways(place, {"small": coordinator}.copy, connections) as address:
                    last = turn == 2
                    while min(trips[name] for name in PHONES) < 2:
                        await asyncio.sleep(0.01)
                async with coordinator.version_maker.idle():
                    conducting.cancel()
                await asyncio.gather(conducting, return_exceptions=True)
                await coordinator.drained()
                coordinator.close()
        following.cancel()
        assert heard <= {"unavailable"}
        kept = [update.assignment for update in small.store.updates.merged()]
        kept += [update.assignment for update in small.store.updates.buffered()]
        assert len(kept) == len(set(kept)) >= 3 * 2 * len(PHONES)

    asyncio.run(main())


def test_a_device_that_comes_back_is_looked_up_once_and_anew_after_an_operation_on_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a takeover all devices come back at once."""

    async def main() -> None:
        small = make_run(tmp_path)
        looked_up: list[str] = []
        secret = small.store.devices.secret

        def look_up(device: str) -> bytes | None:
            looked_up.append(device)
            return secret(device)

        async with conduct(small, 1) as conducted:
            async with Device(small).connected(conducted.next.serve) as device:
                await device.join()
            monkeypatch.setattr(small.store.devices, "secret", look_up)
            async with Device(small, enrolled=True).connected(conducted.next.serve) as device:
                await device.join()
            assert looked_up == ["phone-1"]
            (link,) = conducted.connections.links
            run = link._runs["small"]
            assert not run.looked_up, "it is here: nothing is remembered of it"
            assert await run.look_up("phone-1") == (secret("phone-1"), small.store.devices.find("phone-1"))
            small.store.devices.revoke("phone-1", 1.0, by="a test")
            conducted.coordinator.state.membership += 1
            _, record = await run.look_up("phone-1")
            assert record is not None
            assert record.revoked_at == 1.0
            assert await run.look_up("nobody") == (None, None)
            assert list(run.looked_up) == ["phone-1"], "a name that anybody may say is not remembered"

    asyncio.run(main())


def test_a_gateway_has_read_the_programs_of_the_next_conductor_before(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path)
        async with conduct(small, 1) as conducted:
            gateway = conducted.next
            assert set(gateway._manifests) == {tier.record.manifest.sha256 for tier in small.tiers}
            said = {"tiers": [dataclasses.asdict(tier.record) for tier in small.tiers]}
            (pipe,) = [office.pipe for office in gateway._offices.values()]
            store = RemoteStore.of(pipe, "small", tmp_path / "no folder")
            await pipe.close()
            tiers = await asyncio.to_thread(read_tiers, said, store, 1, gateway._manifests)
            assert [tier.manifest for tier in tiers] == [tier.manifest for tier in small.tiers]
            with pytest.raises(StoreUnavailable):
                await asyncio.to_thread(read_tiers, said, store, 1, {})

    asyncio.run(main())


def test_a_rolled_back_version_is_known_to_gateways(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 1, "flush_seconds": 0})
        async with conduct(small, 1) as conducted, Device(small).connected(conducted.next.serve) as device:
            await device.join()
            await device.upload(await device.work(), update_bytes("large"))
            await device.expect(Announce)
            void = await device.work()
            assert void.version == 1
            record: VersionRecord = await conducted.coordinator.version_maker.roll_back(0, "a test", by="a test")
            assert record.kind == "rollback"
            answer = await device.upload(void, update_bytes("large"))
            assert isinstance(answer, Rejected)
            assert answer.code in ("rolled-back", "unknown-assignment")

    asyncio.run(main())


def test_a_gateway_goes_on_with_the_conductor_that_leads_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the old one keeps the connection, as one that was stopped does."""
    monkeypatch.setattr("coordinator.gateway.gateway.REPORT_SECONDS", 0.01)
    monkeypatch.setattr("coordinator.gateway.gateway.RETRY_SECONDS", 0.01)

    async def main() -> None:
        one, other, place = GatewayConnections(), GatewayConnections(), RemoteGateways("127.0.0.1:0", SECRET)
        async with (
            listen_for_gateways(place, dict, one) as first,
            listen_for_gateways(place, dict, other) as second,
            asyncio.timeout(10),
        ):
            leader = first

            async def find() -> str:
                return leader

            gateway = Gateway(ServerSection(), ConnectionLimits(1, 1, 1))
            following = asyncio.create_task(gateway.follow(RemoteConductors(find, SECRET)))
            await gateway.connected.wait()
            assert (len(one.links), len(other.links)) == (1, 0)
            leader = second
            while not other.links or one.links:
                await asyncio.sleep(0.01)
            await gateway.connected.wait()
            following.cancel()

    asyncio.run(main())


def test_a_gateway_of_another_release_says_so_once_and_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("coordinator.gateway.gateway.RELEASE", RELEASE + 1)
    monkeypatch.setattr("coordinator.gateway.gateway.RETRY_SECONDS", 0.001)
    tries = 0

    async def main() -> None:
        async with (
            listen_for_gateways(RemoteGateways("127.0.0.1:0", SECRET), dict, GatewayConnections()) as address,
            asyncio.timeout(10),
        ):

            async def find() -> str:
                nonlocal tries
                tries += 1
                return address

            gateway = Gateway(ServerSection(), ConnectionLimits(1, 1, 1))
            following = asyncio.create_task(gateway.follow(RemoteConductors(find, SECRET)))
            while tries < 4:
                await asyncio.sleep(0.01)
            assert not gateway.is_ready
            following.cancel()

    asyncio.run(main())
    assert caplog.text.count("start all of one release") == 1


def test_a_gateway_that_is_silent_for_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.conductor.gateway_link.SILENT_LOOKS", 2)

    async def main() -> None:
        connections = GatewayConnections()
        async with (
            listen_for_gateways(RemoteGateways("127.0.0.1:0", SECRET), dict, connections) as address,
            asyncio.timeout(10),
        ):

            async def find() -> str:
                return address

            pipe = await RemoteConductors(find, SECRET).connect()
            with pytest.raises(PipeClosed):
                await pipe.receive()
            await pipe.close()

    asyncio.run(main())
