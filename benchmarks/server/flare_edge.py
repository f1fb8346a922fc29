"""
NVIDIA FLARE's edge path, run here: bytes and server CPU per update, for :mod:`benchmarks.server.update_cost`.

Its own example, provisioned and started by its own tools: a server, two relays, six clients of which four serve
phones, and the proxy that phones talk to; each job adds processes of its own. The phones are threads of one process
that speak its protocol (JSON over HTTP) and send an update of the right shape at once, as Android's Gson prints it,
without training.
They ask for tasks without the cookie of the last one: with it, FLARE 2.9.0 stops giving out work after a while when as
many devices are selected as there are.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.simulation.peers import PROGRAMS, environment

__all__ = ["FLARE", "measured"]

FLARE = "nvflare==2.9.0"
MARK = "FTTE_BENCHMARK"
START_SECONDS, WAIT_SECONDS = 300.0, 600.0
POLL_SECONDS = 0.2
# Two below the server, and two below each of them.
CLIENTS = 6
PORT = 4321
PROJECT = """\
api_version: 3
name: edge
description: edge
edge: {{analyze: false, lcp_only: false, root_dir: "{root}", depth: 1, width: 2, max_sites: 100, clients: 2, rp: 4321}}
participants:
  - {{name: admin@nvidia.com, type: admin, org: nvidia, role: project_admin}}
builders:
  - path: nvflare.lighter.impl.workspace.WorkspaceBuilder
    args: {{template_file: [master_template.yml, aws_template.yml, azure_template.yml]}}
  - path: nvflare.lighter.impl.static_file.StaticFileBuilder
    args: {{config_folder: config}}
  - path: nvflare.lighter.impl.cert.CertBuilder
  - path: nvflare.lighter.impl.signature.SignatureBuilder
  - path: nvflare.lighter.impl.edge.EdgeBuilder
"""
SHAPES = {
    "conv1.weight": (6, 3, 5, 5),
    "conv1.bias": (6,),
    "conv2.weight": (16, 6, 5, 5),
    "conv2.bias": (16,),
    "fc1.weight": (120, 400),
    "fc1.bias": (120,),
    "fc2.weight": (84, 120),
    "fc2.bias": (84,),
    "fc3.weight": (10, 84),
    "fc3.bias": (10,),
}


def measured(devices: int, buffer: int, updates: int) -> dict[str, float]:
    """
    One job, until so many updates were accepted.

    Returns:
        Median bytes down and up of an update, headers not counted, CPU seconds per update, with those of the system's
        start and those since the first update, and processes.

    Raises:
        RuntimeError: if the updates do not come.

    """
    python = environment(FLARE, "executorch==1.5.1", "flask")
    with tempfile.TemporaryDirectory() as name, _system(python, Path(name)) as (kit, usage):
        # As many versions as updates: it does not end before.
        job = subprocess.run(
            [python, PROGRAMS / "flare_job.py", kit, str(devices), str(buffer), str(updates)],
            check=False,
            cwd=name,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if job.returncode:
            raise RuntimeError(f"FLARE's job was not taken:\n{job.stdout[-2000:]}")
        phones = [_Phone(number) for number in range(devices)]
        for phone in phones:
            threading.Thread(target=phone.live, daemon=True).start()
        until, processes, start = time.monotonic() + WAIT_SECONDS, 0, 0.0
        while (uploads := sum(len(phone.uploads) for phone in phones)) < updates and time.monotonic() < until:
            processes = max(processes, usage.look())
            start = start if uploads else usage.seconds()
            time.sleep(0.5)
        usage.look()
        for phone in phones:
            phone.stop = True
    if uploads < updates:
        raise RuntimeError(f"FLARE took {uploads} updates in {WAIT_SECONDS:.0f} s, not {updates}")
    downloads = [size for phone in phones for size in phone.downloads]
    return {
        "updates": uploads,
        "bytes_down": statistics.median(downloads),
        "bytes_up": statistics.median(size for phone in phones for size in phone.uploads),
        "cpu_seconds": usage.seconds() / uploads,
        "cpu_seconds_serving": (usage.seconds() - start) / uploads,
        "processes": processes,
    }


class _Phone:
    """A device of FLARE's protocol."""

    def __init__(self, number: int) -> None:
        self._headers = {"Content-Type": "application/json", "X-Flare-Device-ID": f"phone-{number}"}
        rng = np.random.default_rng(number)
        self._update = {
            f"net.{name}": {
                # The shortest text of a float32, as Gson prints it.
                "data": [float(str(value)) for value in rng.normal(0, 1e-3, np.prod(shape)).astype(np.float32)],
                "sizes": list(shape),
            }
            for name, shape in SHAPES.items()
        }
        self.downloads: list[int] = []
        self.uploads: list[int] = []
        self.stop = False

    def live(self) -> None:
        """Ask for the job, then for tasks, again and again."""
        job = None
        while not self.stop:
            with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
                if job is None:
                    answer, _ = self._post("/job", {"job_name": "convnet", "capabilities": {"methods": ["edge"]}})
                    job = answer.get("job_id")
                else:
                    answer, size = self._post(f"/task?job_id={job}", {})
                    if answer["status"] == "OK":
                        self.downloads.append(size)
                        self._upload(job, answer)
            time.sleep(POLL_SECONDS)

    def _upload(self, job: str, task: dict[str, Any]) -> None:
        path = f"/result?job_id={job}&task_id={task['task_id']}&task_name={task['task_name']}"
        result = {"meta": task["task_data"]["meta"], "data": self._update, "kind": "et_tensor_diff"}
        body = {"status": "OK", "task_name": task["task_name"], "result": result, "cookie": task["cookie"]}
        answer, _ = self._post(path, body)
        if answer.get("status") == "OK":
            self.uploads.append(self._sent)

    def _post(self, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """The answer and its size, headers not counted."""
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
        try:
            text = json.dumps(body, separators=(",", ":"))
            self._sent = len(text)
            connection.request("POST", path, text, self._headers)
            content = connection.getresponse().read()
        finally:
            connection.close()
        answer: dict[str, Any] = json.loads(content)
        return answer, len(content)


class _Usage:
    """CPU time of all processes that have a mark in their environment, those included that have ended since."""

    def __init__(self, mark: str) -> None:
        self._mark = f"{MARK}={mark}".encode()
        self._used: dict[int, float] = {}

    def look(self) -> int:
        """How many there are now."""
        found = self.processes()
        for pid in found:
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                self._used[pid] = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
        return len(found)

    def seconds(self) -> float:
        return sum(self._used.values())

    def processes(self) -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                command = (entry.parent / "comm").read_text().strip()
                if command.startswith("python") and self._mark in entry.read_bytes().split(b"\0"):
                    found.append(int(entry.parent.name))
        return found


@contextlib.contextmanager
def _system(python: Path, folder: Path) -> Iterator[tuple[Path, _Usage]]:
    """A provisioned and started system: the admin's start-up kit, and what it uses."""
    mark = uuid.uuid4().hex
    bin_path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": bin_path, MARK: mark, "PYTHONWARNINGS": "ignore"}
    (folder / "project.yml").write_text(PROJECT.format(root=folder))
    production = folder / "edge" / "prod_00"
    usage = _Usage(mark)
    with (folder / "system.log").open("wb") as log:
        run = functools.partial(subprocess.run, check=True, env=env, stdout=log, stderr=log)
        try:
            run([python.parent / "nvflare", "provision", "-s", "-p", "project.yml"], cwd=folder)
            run(["bash", "start_all.sh"], cwd=production)
            subprocess.Popen(["bash", "start_rp.sh"], cwd=production / "scripts", env=env, stdout=log, stderr=log)
            _wait_for_clients(production / "server" / "log.txt")
            yield production / "admin@nvidia.com", usage
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                for pid in usage.processes():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                time.sleep(2)


def _wait_for_clients(log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if log.exists() and f"Total clients: {CLIENTS}" in log.read_text():
            return
        time.sleep(1)
    raise RuntimeError(f"FLARE's {CLIENTS} clients were not there after {START_SECONDS:.0f} s")
