"""The trainer's process as python-for-android runs it: without assertions and docstrings, and no locale but C's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mobile_sdk.invite import Invite
from tests.system.conftest import PATIENCE, Site

from .rendering import DEMO

if str(DEMO) not in sys.path:
    sys.path.insert(0, str(DEMO))

from ftte_demo.line import Line
from ftte_demo.trainer.joined import Joined, save

ENDLESS = "[merge]\nbuffer = 1\n[stop]\nversions = 100000\n"


def wait_for(line: Line, process: subprocess.Popen[bytes], **fields: Any) -> dict[str, Any]:
    """The first status with these fields, a number being the least."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for message in line.received():
            status = message.get("status", {})
            if status and all(
                status[name] >= value if isinstance(value, int) else status[name] == value
                for name, value in fields.items()
            ):
                return dict(status)
        assert process.poll() is None, f"the trainer ended with {process.returncode}"
        time.sleep(0.05)  # a socket's messages come to a queue: there is nothing to await
    raise AssertionError(f"no status with {fields}")


def test_it_trains_without_assertions_docstrings_and_locales(site: Site, tmp_path: Path) -> None:
    site.serve(ENDLESS)
    save(tmp_path / "joined.json", Joined(Invite(site.url, "digits", site.key)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    environment |= {"LANG": "es_ES.UTF-8", "FTTE_DEMO_ENGINE": "interpreted", "SSL_CERT_FILE": str(tmp_path / "none")}
    command = [sys.executable, "-OO", "-W", "error", "-m", "ftte_demo.trainer", str(tmp_path)]
    process = subprocess.Popen(command, cwd=DEMO, env=environment)
    line = Line(tmp_path)
    try:
        status = wait_for(line, process, merged=1)
        line.say({"do": "predict", "id": 7, "strokes": [[[0.4, 0.2], [0.6, 0.8]]]})
        line.say({"do": "pause"})
        paused = wait_for(line, process, phase="paused")
        line.say({"do": "stop"})
        assert process.wait(PATIENCE) == 0
    finally:
        line.close()
        process.kill()
        process.wait()
    assert status["engine"] == "interpreted"
    assert paused["policies"]["paused"] is True
    assert "Traceback" not in (tmp_path / "trainer.log").read_text("utf-8")
