"""The dashboard in a real browser."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ..small_run import make_run
from .browsers import Watched, chromium, needs_browser, violations
from .filled import add_devices, train
from .served import Served, with_dashboard

pytestmark = needs_browser

PAGES = {"": "small", "/devices": "Devices", "/devices/phone-1": "phone-1", "/versions": "Versions"}
PAGES |= {"/plans": "Plans", "/join": "Join a device"}
BUFFER: dict[str, Any] = {"merge": {"buffer": 1}}


def phase(served: Served) -> str:
    """Of the run."""
    return served.app.only.coordinator.state.phase


def test_a_run_is_followed_paused_and_rolled_back(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        await train(served, "phone-1", 2)
        async with chromium(viewport={"width": 1280, "height": 900}) as browser:
            page = await browser.new_page()
            watched = Watched(page)
            await page.goto(served.dashboard.address())
            await page.get_by_role("link", name="small", exact=True).click()
            await page.locator(".tile", has_text="version").get_by_text("2", exact=True).wait_for()
            await train(served, "phone-2")
            await page.locator(".tile", has_text="version").get_by_text("3", exact=True).wait_for()
            await page.get_by_text("phone-2 sent an update of version").wait_for()
            assert "login" not in page.url
            await page.get_by_role("button", name="Pause").click()
            await page.get_by_role("dialog").get_by_text("No work is given out").wait_for()
            await page.keyboard.press("Escape")
            assert phase(served) == "running"
            await page.get_by_role("button", name="Pause").click()
            await page.get_by_role("dialog").get_by_role("button", name="Pause").click()
            await page.locator(".phase.paused").wait_for()
            assert phase(served) == "paused"
            await page.get_by_role("link", name="Versions").click()
            await page.get_by_role("button", name="Roll back to version 1").click()
            await page.get_by_label("Why").fill("it was better")
            await page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
            await page.get_by_role("rowheader", name="4", exact=True).wait_for()
            assert served.app.only.store.versions.latest().parent == 1
            assert watched.wrong == []

    with_dashboard(tmp_path, test, **BUFFER)


def test_the_first_paint_takes_little_over_the_wire_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        await train(served, "phone-1", 2)
        async with chromium() as browser:
            page = await browser.new_page()
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            await page.goto(served.dashboard.address())
            await page.get_by_role("link", name="small", exact=True).click()
            await page.locator(".tile", has_text="version").get_by_text("2", exact=True).wait_for()
            moved = await page.evaluate(
                "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
                ".reduce((sum, entry) => sum + entry.transferSize, 0)"
            )
            assert 20_000 < moved <= 100_000
            assert all(url.startswith(served.url) for url in asked)

    with_dashboard(tmp_path, test, **BUFFER)


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_every_page_is_accessible_and_fits(tmp_path: Path, scheme: str, width: int) -> None:
    async def test(served: Served) -> None:
        await train(served, "phone-1", 3)
        async with chromium(viewport={"width": width, "height": 800}, color_scheme=scheme) as browser:
            page = await browser.new_page()
            watched = Watched(page)
            await page.goto(served.url)
            await page.get_by_role("heading", name="Log in").wait_for()
            assert await violations(page) == []
            await page.goto(served.dashboard.address())
            await page.get_by_role("heading", name="Runs").wait_for()
            await page.get_by_role("link", name="small", exact=True).wait_for()
            assert await violations(page) == []
            for path, heading in PAGES.items():
                await page.goto(f"{served.url}/#/runs/small{path}")
                await page.get_by_role("heading", name=heading, exact=True).first.wait_for()
                if path == "/join":
                    await page.get_by_role("button", name="Make an invitation").click()
                    await page.get_by_role("img", name="QR code").wait_for()
                if path == "/versions":
                    for version in (1, 3):
                        await page.get_by_label(f"Compare version {version}").check()
                    await page.get_by_role("heading", name="Version 1 and version 3").wait_for()
                assert await violations(page) == [], path
                if path == "":
                    await page.get_by_role("button", name="Finish").click()
                    await page.get_by_role("dialog").wait_for()
                    assert await violations(page) == [], "the dialog"
                    await page.keyboard.press("Escape")
                assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
            assert watched.wrong == []

    with_dashboard(tmp_path, test, **BUFFER)


@pytest.mark.full
def test_a_session_that_ends_in_one_tab_shows_the_log_in_in_the_other(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        async with chromium() as browser:
            page, other = await browser.new_page(), await browser.new_page()
            await page.goto(served.dashboard.address())
            await page.get_by_role("link", name="small", exact=True).click()
            await page.locator(".link[data-state=live]").wait_for()
            await other.goto(served.url)
            await other.get_by_role("button", name="Log out").click()
            await other.get_by_role("heading", name="Log in").wait_for()
            served.app.only.coordinator.state.notice = "something has changed"
            await page.get_by_text("Your session has ended.").wait_for()
            await page.get_by_label("Address or admin token").fill(served.dashboard.address())
            await page.keyboard.press("Enter")
            await page.get_by_role("heading", name="small").wait_for()  # where one was

    with_dashboard(tmp_path, test, **BUFFER)


@pytest.mark.full
def test_a_session_whose_time_is_over_shows_the_log_in(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        async with chromium() as browser:
            page = await browser.new_page()
            await page.goto(served.dashboard.address())
            await page.get_by_role("link", name="small", exact=True).click()
            await page.locator(".link[data-state=live]").wait_for()
            await page.get_by_text("Your session has ended.").wait_for(timeout=60_000)  # by itself
            assert await page.get_by_text("Buffer").count() == 0
            await page.get_by_label("Address or admin token").fill(served.dashboard.address())
            await page.keyboard.press("Enter")
            await page.get_by_role("heading", name="small").wait_for()

    with_dashboard(tmp_path, test, **BUFFER, dashboard={"port": 0, "hours": 8 / 3600})


def test_a_run_is_paused_from_the_list_of_runs(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        await train(served, "phone-1", 2)
        async with chromium() as browser:
            page = await browser.new_page()
            watched = Watched(page)
            await page.goto(served.dashboard.address())
            await page.get_by_text("2 merged; 2 a minute").wait_for()
            await page.get_by_role("button", name="Pause small").click()
            await page.get_by_role("dialog").get_by_role("button", name="Pause").click()
            await page.get_by_role("button", name="Resume small").wait_for()
            assert phase(served) == "paused"
            assert watched.wrong == []

    with_dashboard(tmp_path, test, **BUFFER)


@pytest.mark.full
def test_a_page_outlasts_a_restart_of_the_coordinator_and_catches_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with chromium() as browser:
            page = await browser.new_page()
            ports: list[int] = []

            async def before(served: Served) -> None:
                await train(served, "phone-1", 2)
                ports.append(int(served.url.rpartition(":")[2]))
                await page.goto(served.dashboard.address())
                await page.get_by_role("link", name="small", exact=True).click()
                await page.locator(".tile", has_text="version").get_by_text("2", exact=True).wait_for()

            async def after(served: Served) -> None:
                await train(served, "phone-1", 1)
                await page.locator(".tile", has_text="version").get_by_text("3", exact=True).wait_for(timeout=30_000)
                await page.locator(".link[data-state=live]").wait_for()
                assert await page.locator(".lines p.version").count() == 4  # none is missing, none is twice

            await serve_in(tmp_path, before, 0)
            await page.get_by_text("disconnected, trying again").wait_for()
            await serve_in(tmp_path, after, ports[0])

    asyncio.run(main())


async def serve_in(folder: Path, test: object, port: int) -> None:
    """A dashboard in the event loop that runs already."""
    import io

    from rich.console import Console

    from coordinator.app import open_app

    small = make_run(folder, server={"port": 0}, dashboard={"port": port}, **BUFFER)
    small.store.close()
    async with open_app([small.config], Console(file=io.StringIO())) as app:
        await test(Served(app, small))  # type: ignore[operator]


@pytest.mark.full
def test_five_thousand_devices_are_browsed(tmp_path: Path) -> None:
    make_run(tmp_path, **BUFFER).store.close()
    add_devices(tmp_path / "state", 5_000)

    async def test(served: Served) -> None:
        async with chromium() as browser:
            page = await browser.new_page()
            await page.goto(served.dashboard.address())
            await page.get_by_role("link", name="small", exact=True).wait_for()
            await page.goto(f"{served.url}/#/runs/small/devices")
            await page.get_by_text("1 to 50 of 5,000").wait_for()
            assert await page.locator("tbody tr").count() == 50
            await page.get_by_role("button", name="updates").click()
            await page.get_by_role("rowheader", name="phone-00096").wait_for()
            assert await page.get_by_role("columnheader", name="updates").get_attribute("aria-sort") == "descending"
            await page.get_by_label("Search").fill("phone-0499")
            await page.get_by_text("1 to 10 of 10").wait_for()

    with_dashboard(tmp_path, test, **BUFFER)


@pytest.mark.full
def test_a_page_of_an_attacker_in_the_same_browser_can_do_nothing(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        async with chromium() as browser:
            mine = await browser.new_page()
            await mine.goto(served.dashboard.address())
            await mine.get_by_role("heading", name="Runs").wait_for()
            evil = await browser.new_page()
            await evil.route(
                "http://evil.example/", lambda route: route.fulfill(body="<h1>hello</h1>", content_type="text/html")
            )
            await evil.goto("http://evil.example/")
            tried = await evil.evaluate(
                """async (url) => {
                    const results = [];
                    for (const mode of ["cors", "no-cors"]) {
                        for (const [method, path] of [["POST", "/api/runs/small/pause"], ["GET", "/api/runs"]]) {
                            try {
                                const answer = await fetch(url + path, {method, mode, credentials: "include"});
                                results.push(await answer.text());
                            } catch (error) { results.push("refused"); }
                        }
                    }
                    const form = document.createElement("form");
                    form.method = "POST"; form.action = url + "/api/runs/small/finish"; form.target = "_blank";
                    document.body.append(form); form.submit();
                    return results;
                }""",
                served.url,
            )
            assert all(each in ("refused", "") for each in tried), tried
            frame = await evil.evaluate(
                "(url) => new Promise((done) => { const frame = document.createElement('iframe'); frame.src = url;"
                " frame.onload = () => done(frame.contentDocument === null); document.body.append(frame); })",
                served.url,
            )
            assert frame
            for inner in evil.frames[1:]:
                assert "FTTE" not in await inner.content()
            assert phase(served) == "running"
            # Its own page still works.
            await mine.reload()
            await mine.get_by_role("heading", name="Runs").wait_for()

    with_dashboard(tmp_path, test, **BUFFER)
