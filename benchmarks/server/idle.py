"""
Memory of idle connections over gateways: ``python -m benchmarks.server.idle``.

Real processes: a conductor over SQLite, ``ftte gateway`` four times on one port, and devices in four other processes,
which connect from an address of their own each (127.0.0.2 and on), prove themselves, and then are silent but for
keepalive. Memory is the growth of each gateway's proportional share (PSS) beyond that of the first connections; what
the kernel needs for sockets is not in it. The limit of open files is raised where it is too low, which takes root
beyond the hard limit.

    python -m benchmarks.server.idle                            # 1,000, 5,000 and 20,000 connections
    python -m benchmarks.server.idle --connections 1000 --tls   # over TLS

Writes benchmarks/results/idle.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import resource
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.server.load import HERE, RESULTS, Server, machine
from benchmarks.server.scale import gateways
from coordinator.net.tls import make_certificate

FIRST = 200  # connected before anything is measured: what is loaded at first use is loaded
CLIENTS = 4
UPDATE_BYTES = 10_000
# At once, of each client: few, so that none waits for longer than a peer may take on a machine with other work.
HANDSHAKES = 6

RUN = """
[run]
name = "load"
task = "load:task"
[budgets]
all = 1
[server]
port = {port}
connections = 1000000
handshakes = 10000
handshakes_per_address = 10000
handshake_seconds = 300
{tls}
"""


def pss_bytes(process: int) -> int:
    """A process's proportional share of memory."""
    text = Path(f"/proc/{process}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def raise_limit(files: int) -> None:
    """Let this process, and those that it starts, open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, max(files, hard)))


class Clients:
    """Processes of ``load_devices.py`` that connect and are silent."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._processes: list[subprocess.Popen[str]] = []
        self._connected = 0

    def grow(self, connections: int) -> None:
        """Connect more devices until there are so many; returns when all are in."""
        share, rest = divmod(connections - self._connected, CLIENTS)
        started = []
        for number in range(CLIENTS):
            devices = share + (number < rest)
            if not devices:
                continue
            hello = self._server.hello
            command = [sys.executable, HERE / "load_devices.py", "coordinator", hello["url"], "--key", hello["key"]]
            command += ["--devices", devices, "--first", self._connected, "--update-bytes", UPDATE_BYTES]
            command += ["--address", f"127.0.0.{2 + number}", "--handshakes", HANDSHAKES]
            started.append(
                subprocess.Popen(
                    [*map(str, command)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=HERE.parents[1],
                )
            )
            self._connected += devices
        for process in started:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "connected":
                raise RuntimeError("the devices could not connect: see the error above")
        self._processes += started

    def close(self) -> None:
        """End them."""
        for process in self._processes:
            process.kill()
            process.wait()


def measure(counts: list[int], count_of_gateways: int, *, tls: bool) -> list[dict[str, float]]:
    """Bytes per connection at each count, of the gateways together and of the conductor."""
    rows = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ftte-idle-")))
        control = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "conductor.sock"
        held = stack.enter_context(socket.socket())
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        server = Server("coordinator", folder, "--update-bytes", UPDATE_BYTES, "--socket", control)
        stack.callback(server.close)
        words = ""
        if tls:
            make_certificate(["127.0.0.1"], folder / "certificate.pem", folder / "private_key.pem")
            words = 'certificate = "certificate.pem"\nprivate_key = "private_key.pem"\n'
        run = RUN.format(port=port, tls=words)
        processes = stack.enter_context(gateways(folder, count_of_gateways, run, control))
        server.hello["url"] = f"{'wss' if tls else 'ws'}://127.0.0.1:{port}"
        clients = Clients(server)
        stack.callback(clients.close)

        def look() -> tuple[list[int], int]:
            return [pss_bytes(process) for process in processes], server.look()["rss"]

        clients.grow(FIRST)
        first = look()
        for count in counts:
            clients.grow(count)
            shares, conductor = look()
            beyond = count - FIRST
            rows.append(
                {
                    "connections": count,
                    "gateway_bytes": (sum(shares) - sum(first[0])) / beyond,
                    "conductor_bytes": (conductor - first[1]) / beyond,
                    "gateways_megabytes": sum(shares) / 1e6,
                }
            )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Memory of idle connections over gateways.")
    parser.add_argument("--connections", type=int, nargs="+", default=[1000, 5000, 20_000])
    parser.add_argument("--gateways", type=int, default=4)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    raise_limit(2 * max(options.connections) // min(options.gateways, CLIENTS) + 1000)
    console = Console()
    rows = measure(sorted(options.connections), options.gateways, tls=options.tls)
    table = Table("connections", "a gateway's memory each", "the conductor's", "gateways in all", box=None)
    for row in rows:
        table.add_row(
            f"{row['connections']:,}",
            f"{row['gateway_bytes'] / 1000:.1f} KB",
            f"{row['conductor_bytes'] / 1000:.1f} KB",
            f"{row['gateways_megabytes']:,.0f} MB",
        )
    console.print(f"{machine()}; {options.gateways} gateways{', TLS' if options.tls else ''}", table)
    options.out.mkdir(exist_ok=True)
    name = "idle-tls.json" if options.tls else "idle.json"
    result = {"machine": machine(), "gateways": options.gateways, "tls": options.tls, "rows": rows}
    (options.out / name).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
