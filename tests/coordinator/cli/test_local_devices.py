"""Devices that ``ftte run`` and ``ftte demo`` start on this machine."""

from __future__ import annotations

import asyncio
import sys

import pytest

from coordinator.cli import local_devices
from coordinator.cli.local_devices import failed_devices


async def start(code: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE)


def test_a_device_has_failed_if_it_ended_badly() -> None:
    async def main() -> list[str]:
        codes = {"well": "pass", "slow": "import sys; sys.stdin.read()", "badly": "import sys; sys.exit(3)"}
        processes = {name: await start(code) for name, code in codes.items()}
        for name in ("well", "badly"):
            await processes[name].wait()
        judged = asyncio.create_task(failed_devices(processes))
        await asyncio.sleep(0)  # it waits for the slow one now
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.close()
        return await judged

    assert asyncio.run(main()) == ["badly"]


def test_a_device_that_does_not_end_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[str]:
        process = await start("import sys; sys.stdin.read()")
        try:
            return await failed_devices({"hangs": process})
        finally:
            await process.communicate(b"")

    monkeypatch.setattr(local_devices, "ENDING_SECONDS", 0.01)
    assert asyncio.run(main()) == ["hangs"]
