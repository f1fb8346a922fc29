"""A coordinator that is told to stop while it plans."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import BIN, PATIENCE, Site

RUN = """\
[run]
name = "digits"
task = "exporters.zoo.digits:task"
[server]
port = 0
[budgets]
small = "1.5MB"
large = "4MB"
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=["terminated", "interrupted"])
def test_a_coordinator_that_is_stopped_while_it_plans_ends_with_all_its_processes(tmp_path: Path, signum: Any) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    log = tmp_path / "serve.log"
    # No export of an earlier test: planning must take a while.
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [BIN / "ftte", "serve", tmp_path / "run.toml"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    deadline = time.monotonic() + PATIENCE
    while not (re.search("searching", log.read_text()) and _workers(process.pid) > 2):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)  # another process's children: there is nothing to await
    process.send_signal(signum)
    process.wait(PATIENCE)
    assert "waits for devices" not in log.read_text()
    while _workers(process.pid):
        assert time.monotonic() < deadline, "processes were left behind"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["terminated", "Ctrl-C"]
)
def test_a_coordinator_that_serves_ends_as_its_service_manager_expects(site: Site, signum: int, status: int) -> None:
    """SIGTERM is the proper end of a service: anything but 0 would be a failed unit."""
    server = site.serve("[stop]\nversions = 1000\n")
    os.kill(server.pid, signum)
    assert server.wait() == status
    assert "The same command goes on from there." in server.output


def _workers(session: int) -> int:
    """Living processes of a session."""
    count = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            count += int(fields[3]) == session and fields[0] != "Z"
    return count
