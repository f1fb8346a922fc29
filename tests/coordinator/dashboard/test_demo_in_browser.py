"""A whole run in a real browser, while eight real devices train."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest

from .browsers import Watched, chromium, needs_browser

FTTE = Path(sys.executable).with_name("ftte")
PLANNING_SECONDS = 600.0
RUN_SECONDS = 180.0


@pytest.mark.full
@needs_browser
def test_the_demo_is_watched_from_its_first_version_to_its_end(tmp_path: Path) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            FTTE, "demo", "--stay", "--out", tmp_path / "demo", stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(PLANNING_SECONDS):
                async for line in process.stdout:
                    if address := re.search(r"http://\S+/#/login/\S+", line.decode()):
                        break
            assert address is not None
            draining = asyncio.create_task(process.stdout.read())  # a full pipe would stop the demo
            async with chromium(viewport={"width": 1280, "height": 900}) as browser:
                page = await browser.new_page()
                watched = Watched(page)
                await page.goto(address[0])
                await page.get_by_role("link", name="digits", exact=True).click()
                await page.get_by_text("8 of 8").wait_for(timeout=RUN_SECONDS * 1000)
                await page.get_by_text(re.compile("^The run has ended")).wait_for(timeout=RUN_SECONDS * 1000)
                summary = json.loads((tmp_path / "demo" / "state" / "summary.json").read_text())
                newest = page.locator(".tile", has_text="version").get_by_text(str(summary["versions"]), exact=True)
                await newest.wait_for()
                chart = page.get_by_role("img", name=re.compile("^Metrics, "))
                points = re.search(r"(\d+) points", await chart.get_attribute("aria-label") or "")
                assert points is not None
                assert int(points[1]) == summary["versions"] + 1  # version 0, and no gap
                await page.get_by_role("link", name="Devices").click()
                await page.get_by_role("rowheader").nth(7).wait_for()
                await page.get_by_role("link", name="old-phone-1").click()
                await page.get_by_role("heading", name="Its plan").wait_for()
                assert watched.wrong == []
            draining.cancel()
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    asyncio.run(main())
