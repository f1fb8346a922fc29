"""
What open pages of the dashboard cost a run, and how soon a page is there.

A coordinator with its dashboard in one process, devices that train nothing in another, and in a third as many readers
of the live stream as pages are open. Rounds without and with pages alternate; medians of updates per second, of the
event loop's delay, and of the server's processor time per update. Then Debian's Chromium opens the dashboard cold, ten
times: first paint on loopback, and bytes that were transferred.

    python -m benchmarks.dashboard             # about four minutes
    python -m benchmarks.dashboard --quick     # half a minute

Writes benchmarks/results/dashboard.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.server.load import HERE, RESULTS, Devices, machine, percentiles

PAGES = 20
DEVICES = 100
UPDATE_BYTES = 10_000
BUFFER = 25


class Server:
    """A coordinator with its dashboard, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._process = _start("serve", folder)
        self.hello = self.say("")

    def say(self, line: str = "look") -> dict[str, Any]:
        """Let it answer a line."""
        return _ask(self._process, line)

    def close(self) -> None:
        """End it."""
        _end(self._process)


class Pages:
    """So many readers of the run's stream, in a process of their own."""

    def __init__(self, address: str, count: int) -> None:
        self._process = _start("read", address, count)
        _ask(self._process, "")

    def events(self) -> float:
        """How many events each has got since the last time."""
        return float(_ask(self._process, "look")["events"])

    def close(self) -> None:
        """End them."""
        _end(self._process)


def _start(role: str, *options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.dashboard", role, *map(str, options)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=HERE.parents[1])


def _ask(process: subprocess.Popen[str], line: str) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError("a process has ended: see its error above")
    result: dict[str, Any] = json.loads(answer)
    return result


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    if process.poll() is None:
        process.kill()
        process.wait()


async def serve(folder: Path) -> None:
    """The coordinator's process."""
    from benchmarks.server.load_server import LoopDelay, begin, lines
    from coordinator.app import open_app
    from coordinator.config import parse_config
    from coordinator.programs.run_key import RunKey
    from coordinator.store.sqlite import SqliteStore

    data = {
        "run": {"name": "load", "task": "load:task", "state": "state"},
        "server": {"port": 0, "handshakes": 10_000, "handshakes_per_address": 10_000},
        "dashboard": {"port": 0},
        "budgets": {"all": 1},
        "merge": {"buffer": BUFFER, "flush_seconds": 0},
        "limits": {"messages_per_second": 100_000},
        "retention": {"versions": 2, "held_days": 0},
    }
    config = parse_config(data, folder)
    store = SqliteStore(config.run.state)
    begin(config, store, RunKey.load_or_create(config.run.state / "run.key"), UPDATE_BYTES // 4)
    store.close()
    delay = LoopDelay()
    reader = await lines()
    await reader.readline()
    async with open_app([config], Console(file=io.StringIO()), admin=False) as app:
        assert app.dashboard is not None
        watching = asyncio.create_task(delay.watch())
        state = app.only.coordinator.state
        print(json.dumps({"url": app.url, "key": state.key.public}), flush=True)
        while line := await reader.readline():
            usage, status = resource.getrusage(resource.RUSAGE_SELF), app.only.coordinator.status()
            seen: dict[str, Any] = {"merged": status.merged, "version": status.version, "at": time.perf_counter()}
            seen |= {"cpu": usage.ru_utime + usage.ru_stime, "delays": delay.take()}
            if line.strip() == b"address":
                seen["address"] = app.dashboard.address()
            print(json.dumps(seen), flush=True)
        watching.cancel()


async def read(address: str, count: int) -> None:
    """The readers' process."""
    import aiohttp

    from benchmarks.server.load_server import lines

    url, _, secret = address.partition("/#/login/")
    counts = [0] * count
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        answer = await session.post(f"{url}/api/login", json={"secret": secret}, headers={"Origin": url})
        answer.raise_for_status()

        async def follow(number: int) -> None:
            timeout = aiohttp.ClientTimeout(total=None)
            async with session.get(f"{url}/api/runs/load/events", timeout=timeout) as stream:
                async for line in stream.content:
                    counts[number] += line.startswith(b"event: look")

        tasks = [asyncio.create_task(follow(number)) for number in range(count)]
        reader = await lines()
        while await reader.readline():
            print(json.dumps({"events": statistics.fmean(counts)}), flush=True)
            counts[:] = [0] * count
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def working() -> Iterator[Server]:
    """A server whose devices hand in updates as fast as it takes them."""
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        server = Server(Path(folder))
        try:
            fleet = Devices("coordinator", server, DEVICES, UPDATE_BYTES)  # type: ignore[arg-type]
            try:
                fleet.work()
                while server.say()["merged"] < 2 * DEVICES:
                    time.sleep(0.1)
                yield server
            finally:
                fleet.close()
        finally:
            server.close()


def measure(server: Server, pages: int, seconds: float) -> dict[str, Any]:
    """One round with so many pages open."""
    opened = Pages(server.say("address")["address"], pages) if pages else None
    try:
        time.sleep(1.0)  # a page begins with the past
        if opened is not None:
            opened.events()
        before = server.say()
        time.sleep(seconds)
        after = server.say()
        events = 0.0 if opened is None else opened.events()
    finally:
        if opened is not None:
            opened.close()
    elapsed, merged = after["at"] - before["at"], after["merged"] - before["merged"]
    return {
        "updates_per_second": merged / elapsed,
        "versions_per_second": (after["version"] - before["version"]) / elapsed,
        "cpu_ms_per_update": 1e3 * (after["cpu"] - before["cpu"]) / max(merged, 1),
        "events_per_second": events / elapsed,
        "delays": after["delays"],
    }


def summarise(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians, and the spread of the rate."""
    result: dict[str, Any] = {
        name: round(statistics.median(one[name] for one in rounds), 3) for name in rounds[0] if name != "delays"
    }
    rates = sorted(one["updates_per_second"] for one in rounds)
    delays = np.array([delay for one in rounds for delay in one["delays"]])
    return result | {
        "rate_from": round(rates[0], 1),
        "rate_to": round(rates[-1], 1),
        "loop_delay_ms": percentiles(delays),
    }


async def first_paint(server: Server, times: int) -> dict[str, Any]:
    """Cold loads of a run's page in Chromium: median and worst first contentful paint, and bytes transferred."""
    from playwright.async_api import async_playwright

    paints, moved = [], []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(times):
            context = await browser.new_context()
            page = await context.new_page()
            await page.goto(server.say("address")["address"])
            await page.get_by_role("link", name="load", exact=True).click()
            await page.locator(".tile").first.wait_for()
            paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            paints.append(await page.evaluate(paint))
            transferred = (
                "['resource', 'navigation'].flatMap(kind => performance.getEntriesByType(kind))"
                ".reduce((sum, entry) => sum + entry.transferSize, 0)"
            )
            moved.append(await page.evaluate(transferred))
            await context.close()
        await browser.close()
    return {
        "loads": times,
        "first_paint_ms": round(statistics.median(paints)),
        "worst_ms": round(max(paints)),
        "bytes": max(moved),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="What open pages cost a run, and how soon a page is there.")
    parser.add_argument("role", nargs="?", choices=["serve", "read"], help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=RESULTS / "dashboard.json")
    options = parser.parse_args()
    if options.role == "serve":
        return asyncio.run(serve(Path(options.rest[0])))
    if options.role == "read":
        return asyncio.run(read(options.rest[0], int(options.rest[1])))
    rounds, seconds, loads = (1, 3.0, 2) if options.quick else (options.rounds, options.seconds, 10)
    seen: dict[int, list[dict[str, Any]]] = {0: [], PAGES: []}
    with working() as server:
        for number in range(rounds):
            for pages in (0, PAGES) if number % 2 == 0 else (PAGES, 0):
                seen[pages].append(measure(server, pages, seconds))
    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        idle = Server(Path(folder))  # a page is opened on a machine that does nothing else
        try:
            paint = asyncio.run(first_paint(idle, loads))
        finally:
            idle.close()
    result: dict[str, Any] = {
        "machine": machine(),
        "devices": DEVICES,
        "update_bytes": UPDATE_BYTES,
        "buffer": BUFFER,
        "rounds": rounds,
        "seconds": seconds,
        "pages": {str(pages): summarise(found) for pages, found in seen.items()},
        "browser": paint,
    }
    ratio = result["pages"][str(PAGES)]["updates_per_second"] / result["pages"]["0"]["updates_per_second"]
    result["ratio"] = round(ratio, 3)
    Console().print_json(json.dumps(result))
    if not options.quick:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
