"""The page that hands an invitation on to the app."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import ssl
import urllib.request
from collections.abc import Callable
from pathlib import Path

from coordinator.config import ServerSection
from coordinator.net.listener import listen
from coordinator.net.tls import certificate_fingerprint, make_certificate
from coordinator.net.traffic import Traffic
from mobile_sdk.net.connection import Connection, Transport, websocket


class Greeter:
    """Serves devices by a word."""

    async def serve(self, connection: Connection, traffic: Traffic, proven: Callable[[], None]) -> None:
        await connection.send("welcome")


def test_a_coordinator_with_tls_serves_the_page_beside_its_devices(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    make_certificate(["127.0.0.1"], certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))

    def get(url: str) -> tuple[dict[str, str], str]:
        with urllib.request.urlopen(url, context=trusting) as answer:
            return dict(answer.headers), answer.read().decode()

    async def main() -> tuple[dict[str, str], str, str | bytes]:
        section = ServerSection(host="127.0.0.1", port=0, certificate=certificate, private_key=key)
        async with listen(Greeter(), section) as url:
            headers, page = await asyncio.to_thread(get, url.replace("wss:", "https:") + "/join?from=camera")
            transport = Transport(certificate=certificate_fingerprint(certificate)[0])
            async with websocket(url, transport)() as connection:
                return headers, page, await connection.receive()

    headers, page, word = asyncio.run(main())
    assert word == "welcome"
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Referrer-Policy"] == "no-referrer"
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in headers["Content-Security-Policy"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "#Intent;scheme=ftte;package=org.ftte.demo;end" in page
