"""Several runs behind one port: the first message says which one a device wants."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from coordinator.config import Config, ServerSection, parse_config
from coordinator.errors import ConfigError, ConflictError, StoreError
from coordinator.runs.service import Service
from coordinator.simulation.virtual_time import run
from mobile_sdk.net.connection import ConnectionLost
from mobile_sdk.protocol.decoding import decode
from mobile_sdk.protocol.encoding import encode
from mobile_sdk.protocol.messages import Accepted, Hello, Hex, Later, Name

from ..small_run import Device, SmallRun, make_run, pair, update_bytes


def begun(folder: Path, **sections: Any) -> SmallRun:
    """A run that was planned before; its store is closed, for the service opens it."""
    small = make_run(folder, **sections)
    small.store.close()
    return small


async def first_words(service: Service, frame: str | bytes | None) -> list[Any]:
    """What a peer is told whose first frame is this; none: it says nothing."""
    here, there = pair()
    serving = asyncio.create_task(service.serve(there))
    if frame is not None:
        await here.send(frame)
    await serving
    return [decode(said) for said in there.sent if isinstance(said, str)]


def hello(name: str) -> str:
    return encode(Hello(1, "0", Name(name), Name("phone-1"), Hex("ab" * 32)))


def test_a_device_is_served_by_the_run_that_it_names(tmp_path: Path) -> None:
    async def main() -> None:
        small = begun(tmp_path)
        service = Service(ServerSection())
        running = await service.create(small.config, lambda text: None)
        assert service.runs == {"small": running}
        async with Device(small).connected(service.serve) as device:
            await device.join()
            assign = await device.work()
            assert isinstance(await device.upload(assign, update_bytes("large")), Accepted)
        await service.close()
        assert service.runs == {}

    run(main())


@pytest.mark.parametrize(
    ("frame", "code", "words"),
    [
        (hello("other"), "unknown-run", "there is no run 'other' here: check name and address"),
        (b"\0" * 40, "protocol", "the first message must be hello"),
        ('{"type":"proof","mac":""}', "protocol", "the first message must be hello"),
        ("{", "protocol", "is not JSON"),
        (None, "unavailable", "nothing was said for too long: try again"),
    ],
)
def test_whoever_does_not_greet_a_run_that_there_is_is_refused(
    tmp_path: Path, frame: str | bytes | None, code: str, words: str
) -> None:
    async def main() -> None:
        service = Service(ServerSection())
        await service.create(begun(tmp_path).config, lambda text: None)
        (error,) = await first_words(service, frame)
        assert error.code == code
        assert words in error.message
        await service.close()

    run(main())


def test_a_peer_that_leaves_before_it_says_anything_is_no_error(tmp_path: Path) -> None:
    async def main() -> None:
        service = Service(ServerSection())
        here, there = pair()
        serving = asyncio.create_task(service.serve(there))
        await asyncio.sleep(0.01)
        await here.close()
        await serving

    run(main())


def test_a_name_is_served_once(tmp_path: Path) -> None:
    async def main() -> None:
        service = Service(ServerSection())
        config = begun(tmp_path).config
        opening = asyncio.create_task(service.create(config, lambda text: None))
        await asyncio.sleep(0)
        with pytest.raises(ConflictError, match="a run 'small' is served already"):
            await service.create(config, lambda text: None)
        await opening
        with pytest.raises(ConflictError, match="a run 'small' is served already"):
            await service.create(config, lambda text: None)
        await service.close()

    run(main())


def test_a_run_that_cannot_be_opened_leaves_the_name_free(tmp_path: Path) -> None:
    async def main() -> None:
        service = Service(ServerSection())
        small = begun(tmp_path)
        key = small.config.run.state / "run.key"
        content = key.read_bytes()
        key.write_bytes(b"short")
        with pytest.raises(StoreError, match="not a key of 32"):
            await service.create(small.config, lambda text: None)
        key.write_bytes(content)
        await service.create(small.config, lambda text: None)
        await service.close()

    run(main())


def test_runs_of_one_service_share_how_devices_connect(tmp_path: Path) -> None:
    def config(name: str, server: dict[str, Any]) -> Config:
        return parse_config(
            {"run": {"name": name, "task": "a.b:c"}, "budgets": {"small": 1}, "server": server}, tmp_path
        )

    async def main() -> None:
        service = Service(ServerSection())
        with pytest.raises(ConfigError, match="another \\[server\\] than the one that is served"):
            await service.create(config("other", {"port": 1}), lambda text: None)

    run(main())


def test_while_it_shuts_down_devices_are_told_when_to_come_again(tmp_path: Path) -> None:
    async def main() -> None:
        service = Service(ServerSection(drain_seconds=10))
        small = begun(tmp_path)
        await service.create(small.config, lambda text: None)
        busy, idle = Device(small, "phone-1"), Device(small, "phone-2")
        async with busy.connected(service.serve), idle.connected(service.serve):
            await busy.join()
            await idle.join()
            assign = await busy.work()
            await busy.offer(assign, update_bytes("large"))
            await asyncio.sleep(0.1)
            closing = asyncio.create_task(service.close())
            await asyncio.sleep(0.1)
            assert await first_words(service, hello("small")) == [Later(15.0, "the coordinator restarts")]
            assert not closing.done(), "an update is on its way"
            await closing
            assert asyncio.get_running_loop().time() >= 10
            for device in (busy, idle):
                await device.served()
                assert device.heard[-1]["message"] == "the coordinator restarts"
        make_run(tmp_path).store.close()  # the state directory was given back

    run(main())


def test_a_connection_that_breaks_while_it_is_refused_is_no_error(tmp_path: Path) -> None:
    async def main() -> None:
        service = Service(ServerSection())
        here, there = pair()
        await here.send("{")

        async def broken(frame: str | bytes) -> None:
            raise ConnectionLost("the link broke")

        there.send = broken  # type: ignore[method-assign]
        await service.serve(there)

    run(main())
