"""The coordinator runs on uvloop, and without it."""

from __future__ import annotations

import asyncio
import sys

import pytest

from coordinator.cli.event_loop import run


async def loop_module() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_uvloop_is_used_where_there_is_one() -> None:
    assert run(loop_module()).startswith("uvloop" if sys.platform != "win32" else "asyncio")


def test_without_uvloop_it_is_asyncios_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run(loop_module()).startswith("asyncio")
