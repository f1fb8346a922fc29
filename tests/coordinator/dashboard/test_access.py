"""Who gets into the dashboard, and what is refused: over a real loopback server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

from coordinator.admin.client import AdminClient
from coordinator.dashboard.pages import Pages
from coordinator.dashboard.server import SESSIONS_FILE
from coordinator.dashboard.sessions import Sessions
from coordinator.dashboard.stream import Streams
from coordinator.net.tls import make_certificate
from mobile_sdk.net.loopback import is_loopback

from .served import Served, with_dashboard

READ = ["/api/session", "/api/runs", "/api/events", "/api/runs/small/events", "/api/runs/small/devices"]
READ += ["/api/runs/small/versions", "/api/runs/small/plans", "/api/runs/small/tokens", "/api/runs/small/download"]
CHANGE = [
    ("POST", "/api/runs/small/pause"),
    ("POST", "/api/runs/small/start"),
    ("POST", "/api/runs/small/resume"),
    ("POST", "/api/runs/small/drain"),
    ("POST", "/api/runs/small/finish"),
    ("POST", "/api/runs/small/rollback"),
    ("POST", "/api/runs/small/join"),
    ("POST", "/api/runs/small/devices/phone-1/revoke"),
    ("DELETE", "/api/runs/small/devices/phone-1"),
    ("DELETE", "/api/runs/small/tokens/abc"),
]


def phase(served: Served) -> str:
    """Of the run."""
    return served.app.only.coordinator.state.phase


def test_nothing_is_shown_without_a_session(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.browser(None) as stranger:
            for path in [*READ, "/api", "/nothing-is-here"]:
                assert (await stranger.get(path)).status == 401, path
            for method, path in CHANGE:
                assert (await stranger.send(method, path)).status == 401, path
        assert phase(served) == "running"

    with_dashboard(tmp_path, test)


def test_every_path_that_changes_something_needs_what_only_the_page_knows(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        router = web.UrlDispatcher()
        Pages(served.app.service).add_to(router)
        Streams(served.app.service, Sessions(lambda: 0.0, 1.0)).add_to(router)
        names = {"run": "small", "device": "phone-1", "token": "abc"}
        there = {
            (route.method, route.resource.canonical.format(**names))
            for route in router.routes()
            if route.resource is not None and route.method not in ("GET", "HEAD")
        }
        assert there == set(CHANGE)
        async with served.browser() as anna:
            for method, path in CHANGE:
                answer = await anna.send(method, path, X_FTTE_Form="")
                assert answer.status == 403, path
                assert "load it again" in (await answer.json())["error"]

    with_dashboard(tmp_path, test)


def test_an_address_lets_in_once(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        secret = served.dashboard.address().rpartition("/")[2]
        async with served.browser(None) as anna, served.browser(None) as thief:
            answer = await anna.log_in(secret)
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
            assert (await anna.get("/api/runs")).status == 200
            assert (await thief.log_in(secret)).status == 401
            assert (await thief.get("/api/runs")).status == 401

    with_dashboard(tmp_path, test)


def test_the_admin_token_lets_in_and_others_do_not(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        token = (tmp_path / ".ftte" / "admin.token").read_text()
        async with served.browser(None) as anna:
            for wrong in ("", "x", token[:-1], token + "x", "é" * 43):
                assert (await anna.log_in(wrong)).status == 401
            assert (await anna.log_in(token)).status == 200
            assert (await (await anna.get("/api/session")).json())["role"] == "operator"

    with_dashboard(tmp_path, test)


def test_a_page_of_another_site_changes_nothing(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.browser() as anna:
            for wrong in (
                {"Origin": "https://evil.example"},
                {"Origin": "null"},
                {"Origin": ""},
                {"Origin": served.url.replace("127.0.0.1", "localhost")},  # another origin than the one that is asked
                {"Sec_Fetch_Site": "cross-site"},
                {"Sec_Fetch_Site": "same-site"},
                {"X_FTTE_Form": "guessed"},
            ):
                assert (await anna.send("POST", "/api/runs/small/pause", **wrong)).status == 403, wrong
            assert phase(served) == "running"
            assert (await anna.get("/api/runs", **{"Sec-Fetch-Site": "cross-site"})).status == 403
            assert (await anna.send("POST", "/api/runs/small/pause")).status == 200
            assert phase(served) == "paused"

    with_dashboard(tmp_path, test)


def test_another_site_logs_nobody_in(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        secret = served.dashboard.address().rpartition("/")[2]
        async with served.browser(None) as anna:
            assert (await anna.log_in(secret, Origin="https://evil.example")).status == 403
            form = {"Content-Type": "text/plain", "Origin": served.url}
            plain = await anna.session.post(f"{served.url}/api/login", data=f'{{"secret":"{secret}"}}', headers=form)
            assert plain.status == 415
            assert (await anna.log_in(secret)).status == 200

    with_dashboard(tmp_path, test)


def test_a_host_that_is_not_the_dashboards_is_refused(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        port = served.url.rpartition(":")[2]
        async with served.browser() as anna:
            for host in (f"evil.example:{port}", "evil.example", "127.0.0.1.evil.example", "127.0.0.2", "[", ""):
                for path in ("/", "/app.js", "/api/runs"):
                    assert (await anna.get(path, Host=host)).status in (400, 421), (host, path)
            for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "LOCALHOST"):
                assert (await anna.get("/", Host=host)).status == 200, host

    with_dashboard(tmp_path, test)


def test_a_viewer_looks_and_changes_nothing(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.browser("viewer") as eve:
            for path in ("/api/runs", "/api/runs/small/devices", "/api/runs/small/versions", "/api/runs/small/plans"):
                assert (await eve.get(path)).status == 200, path
            assert (await eve.get("/api/runs/small/download")).status == 403
            for method, path in CHANGE:
                answer = await eve.send(method, path)
                assert answer.status == 403, path
                assert "may look only" in (await answer.json())["error"]
            assert phase(served) == "running"
            assert (await eve.send("POST", "/api/logout")).status == 200
            assert (await eve.get("/api/runs")).status == 401

    with_dashboard(tmp_path, test)


def test_what_an_operator_does_is_in_the_audit_log_under_the_name_that_asked_for_the_address(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.browser() as anna:
            answer = await anna.send("POST", "/api/runs/small/pause", X_FTTE_Operator="mallory")
            assert answer.status == 200
        last = served.app.only.store.audit.entries()[-1]
        assert (last.actor, last.action) == ("anna", "paused")

    with_dashboard(tmp_path, test)


def test_a_session_that_is_ended_is_ended_for_its_stream_too(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.browser() as anna:
            stream = await anna.get("/api/runs/small/events")
            assert stream.headers["Content-Type"] == "text/event-stream"
            assert (await anna.send("POST", "/api/logout")).status == 200
            served.app.only.coordinator.state.notice = "something has changed"
            async with asyncio.timeout(10):
                text = (await stream.content.read()).decode()
            assert text.rstrip().endswith("event: expired\ndata: {}")

    with_dashboard(tmp_path, test)


def test_every_answer_has_the_headers_that_browsers_heed(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        async with served.browser() as anna:
            for path in ("/", "/app.js", "/api/runs", "/api/runs/none/devices", "/nothing"):
                headers = (await anna.get(path)).headers
                policy = headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert "frame-ancestors 'none'" in policy
                assert headers["X-Content-Type-Options"] == "nosniff"
                assert headers["Referrer-Policy"] == "no-referrer"
                assert headers["Cache-Control"] == ("no-store" if path.startswith("/api") else "no-cache") or (
                    path == "/nothing"
                )

    with_dashboard(tmp_path, test)


def test_sessions_outlast_a_restart_and_their_file_lets_nobody_in(tmp_path: Path) -> None:
    kept: dict[str, str] = {}

    async def log_in(served: Served) -> None:
        async with served.browser() as anna:
            (cookie,) = anna.session.cookie_jar
            kept["cookie"], kept["port"] = cookie.value, served.url.rpartition(":")[2]
        file = tmp_path / ".ftte" / SESSIONS_FILE
        assert file.stat().st_mode & 0o077 == 0
        assert kept["cookie"] not in file.read_text()
        (digest,) = json.loads(file.read_text())
        async with served.browser(None) as thief:
            name = f"ftte-{kept['port']}"
            assert (await thief.get("/api/runs", Cookie=f"{name}={digest}")).status == 401

    async def come_back(served: Served) -> None:
        async with served.browser(None) as anna:
            name = f"ftte-{served.url.rpartition(':')[2]}"
            assert (await anna.get("/api/runs", Cookie=f"{name}={kept['cookie']}")).status == 200

    with_dashboard(tmp_path, log_in)
    with_dashboard(tmp_path, come_back)


def test_ftte_dashboard_gives_an_address_with_a_role(tmp_path: Path) -> None:
    async def test(served: Served) -> None:
        client = AdminClient(tmp_path / ".ftte")
        made = await asyncio.to_thread(lambda: client.post("dashboard", role="viewer"))
        assert made["address"].startswith(f"{served.url}/#/login/")
        async with served.browser(None) as eve:
            assert (await eve.log_in(made["address"].rpartition("/")[2])).status == 200
            assert (await (await eve.get("/api/session")).json())["role"] == "viewer"

    with_dashboard(tmp_path, test)


def test_off_loopback_the_dashboard_speaks_tls_alone(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    make_certificate(["dash.example"], certificate, key)
    section = {"host": "0.0.0.0", "names": ["dash.example"], "port": 0}
    section |= {"certificate": str(certificate), "private_key": str(key)}

    async def test(served: Served) -> None:
        port = served.url.rpartition(":")[2]
        assert served.url == f"https://dash.example:{port}"
        async with served.browser(None) as anna:
            address = f"https://127.0.0.1:{port}"
            secret = served.dashboard.address().rpartition("/")[2]
            headers = {"Host": f"dash.example:{port}", "Origin": served.url}
            answer = await anna.session.post(
                f"{address}/api/login", json={"secret": secret}, headers=headers, ssl=False
            )
            assert answer.status == 200
            assert "Secure" in answer.headers["Set-Cookie"]
            with pytest.raises(Exception):  # noqa: B017, PT011
                await anna.session.get(f"http://127.0.0.1:{port}/")

    assert not is_loopback("0.0.0.0")
    with_dashboard(tmp_path, test, dashboard=section)
