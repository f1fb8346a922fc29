"""The tutorial works as it is written: every file, every command."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from .conftest import BIN, Process
from .test_documentation import ROOT, blocks
from .test_prometheus import free_port


@pytest.mark.full
def test_a_first_run_with_an_own_model(tmp_path: Path) -> None:
    page = ROOT / "docs" / "tutorial" / "first-run.md"
    port = str(free_port())  # the only thing that differs from the page, beside the fingerprint
    for language in ("python", "toml"):
        for block in blocks(page, language):
            (name,) = re.findall(r"\A# (\S+\.\w+)\n", block)
            (tmp_path / name).write_text(block.replace("8765", port))
    commands = [block.strip().replace("8765", port) for block in blocks(page, "console")]
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    server: Process | None = None
    devices: list[Process] = []
    key = ""
    try:
        for command in commands:
            program, *arguments = shlex.split(command.replace("FINGERPRINT", key))
            if command.startswith("ftte serve"):
                arguments = [str(tmp_path / one) if one.endswith(".toml") else one for one in arguments]
                server = Process(BIN / program, *arguments, log=tmp_path / "serve.log", environment=environment)
                key = server.wait_for(r"--key[\s\\]+([0-9a-f]{64})")[1]
            elif command.startswith("ftte-device"):
                place = arguments.index("--storage") + 1
                arguments[place] = str(tmp_path / arguments[place])
                log = tmp_path / f"{len(devices)}.log"
                devices.append(Process(BIN / program, *arguments, log=log, environment=environment))
            else:
                if command.startswith("python") and server is not None:
                    assert [device.wait() for device in devices] == [0, 0, 0]
                    assert server.wait() == 0
                done = subprocess.run(
                    ["/bin/sh", "-c", command],
                    cwd=tmp_path,
                    env=environment,
                    check=False,
                    capture_output=True,
                    text=True,
                )
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                if "100KB" in command:
                    assert re.search(r"set at least\s+that", done.stdout + done.stderr)
    finally:
        for process in [*devices, *([server] if server else [])]:
            process.stop()
    assert len(devices) == 3
    right = re.match(r"(0\.\d+) of the held-out samples are right", done.stdout)
    assert right is not None
    assert float(right[1]) >= 0.95
    assert "version 20 has reached the limit of 20" in done.stdout
