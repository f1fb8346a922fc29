"""A real Prometheus watches a run with the lines of the documentation."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from .conftest import PATIENCE, Process, Site

OPERATING = Path(__file__).parents[2] / "docs" / "how-to" / "operate.md"
SETTINGS = """
[merge]
buffer = 2
[stop]
versions = 1000
[admin]
port = {port}
"""

pytestmark = pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs apt-get install prometheus")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def ask(port: int, query: str) -> list[dict[str, Any]]:
    """Prometheus' answer to a query, as it is now."""
    url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=PATIENCE) as answer:
        found: list[dict[str, Any]] = json.loads(answer.read())["data"]["result"]
        return found


@pytest.mark.full
def test_prometheus_scrapes_what_the_documentation_says(site: Site, tmp_path: Path) -> None:
    admin, port = free_port(), free_port()
    site.serve(SETTINGS.format(port=admin))
    site.device("phone-0", 0)
    (lines,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", OPERATING.read_text(), re.DOTALL)
    token = site.folder / ".ftte" / "admin.token"
    assert "/run/ftte/admin.token" in lines
    assert "127.0.0.1:9100" in lines
    lines = lines.replace("/run/ftte/admin.token", str(token)).replace("127.0.0.1:9100", f"127.0.0.1:{admin}")
    (tmp_path / "prometheus.yml").write_text("global: {scrape_interval: 1s}\n" + lines)
    prometheus = site.keep(
        Process(
            *("prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"),
            f"--web.listen-address=127.0.0.1:{port}",
            log=tmp_path / "prometheus.log",
        )
    )
    prometheus.wait_for("Server is ready")
    deadline = time.monotonic() + PATIENCE
    while not any(int(row["value"][1]) > 0 for row in ask(port, "ftte_version")):
        assert time.monotonic() < deadline, prometheus.output
        time.sleep(0.2)  # Prometheus scrapes once a second and tells nobody
    (up,) = ask(port, "up")
    assert up["value"][1] == "1"
    documented = re.findall(r"`(ftte_\w+)(?:\{\w+\})?`", OPERATING.read_text())
    assert len(documented) > 10
    missing = [name for name in documented if not ask(port, name)]
    # These have no value before a failure, or an evaluation by devices.
    assert set(missing) <= {"ftte_federated_metric"}
