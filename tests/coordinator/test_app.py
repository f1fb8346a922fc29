"""From run files to summaries: planned before, served, ended, and closed in this order."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from coordinator.app import open_app
from coordinator.config import parse_config
from coordinator.errors import ConfigError
from mobile_sdk.net.connection import websocket

from .small_run import Device, make_run, update_bytes


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_an_app_serves_its_run_to_the_end_and_gives_its_summary(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, merge={"buffer": 1}, stop={"versions": 1}, server={"port": 0})
        small.store.close()
        async with open_app([small.config], console()) as app:
            assert (tmp_path / ".ftte" / "admin.sock").exists()
            assert app.only.name == "small"
            ended = asyncio.create_task(app.run())
            async with Device(small).connected(app.service.serve) as device:
                await device.join()
                await device.upload(await device.work(), update_bytes("large"))
            (summary,) = await ended
            async with websocket(app.url)() as connection:
                await connection.close()
        assert summary["ended"] == "version 1 has reached the limit of 1"
        assert json.loads((tmp_path / "state" / "summary.json").read_text()) == summary
        make_run(tmp_path).store.close()  # the state directory was given back

    asyncio.run(main())


def test_an_app_that_stays_is_ended_from_outside(tmp_path: Path) -> None:
    async def main() -> None:
        small = make_run(tmp_path, server={"port": 0})
        small.store.close()
        async with open_app([small.config], console(), admin=False) as app:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await app.stay()
        assert not (tmp_path / ".ftte").exists()

    asyncio.run(main())


def test_run_files_with_different_servers_are_refused(tmp_path: Path) -> None:
    def config(name: str, port: int) -> object:
        data = {"run": {"name": name, "task": "a.b:c"}, "budgets": {"small": 1}, "server": {"port": port}}
        return parse_config(data, tmp_path)

    async def main() -> None:
        with pytest.raises(ConfigError, match="different \\[server\\] tables"):
            async with open_app([config("a", 1), config("b", 2)], console()):  # type: ignore[list-item]
                pass

    asyncio.run(main())
