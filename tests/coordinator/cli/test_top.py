"""``ftte top`` and ``ftte dashboard``, as processes would run them, on a coordinator that runs."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from coordinator.cli.main import main

from ..dashboard.filled import train
from ..dashboard.served import Served, with_dashboard


def test_top_shows_the_runs_and_who_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def test(served: Served) -> None:
        await train(served, "phone-1", 1)
        capsys.readouterr()
        admin = str(tmp_path / ".ftte")
        assert await asyncio.to_thread(main, ["top", "--admin", admin]) == 0  # no terminal: it prints once
        words = capsys.readouterr().out
        assert re.search(r"^small +running", words, re.MULTILINE)
        assert re.search(r"version +1", words)
        assert re.search(r"phone-1 +offline +large +1 ", words)
        assert "none is connected" in words
        assert await asyncio.to_thread(main, ["top", "--json", "--admin", admin]) == 0
        (run,) = json.loads(capsys.readouterr().out)
        assert [device["id"] for device in run["devices"]] == ["phone-1"]

    with_dashboard(tmp_path, test, merge={"buffer": 1})


def test_dashboard_prints_an_address_and_opens_no_browser_where_nobody_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def test(served: Served) -> None:
        capsys.readouterr()
        assert await asyncio.to_thread(main, ["dashboard", "--read-only", "--admin", str(tmp_path / ".ftte")]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith(f"{served.url}/#/login/")
        async with served.browser(None) as eve:
            assert (await eve.log_in(line.rpartition("/")[2])).status == 200
            assert (await (await eve.get("/api/session")).json())["role"] == "viewer"

    with_dashboard(tmp_path, test)
