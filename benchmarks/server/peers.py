"""
Updates per second of the coordinator beside Flower's servers, in one run and with the same load.

Updates of 1 MB (250,000 float32) from clients that train nothing, all in one process beside the server, on loopback:

- ``bare``: a ``websockets`` loop that receives and adds, and nothing more
- ``ftte``: the coordinator; an update counts once it is durable and merged
- ``flower grpc``: ``start_server``, which Flower has deprecated; keeps updates in memory
- ``flower superlink``: SuperLink and ``flwr run``, with real SuperNodes (a process each, so fewer of them)

Sides are interleaved, medians over the rounds; SuperLink, which takes minutes to start, runs once. Flower is
installed by this script, into an environment of its own.

    python -m benchmarks.server.peers [--devices 50] [--nodes 20] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.server.load import RESULTS, machine, measure
from benchmarks.simulation.peers import FLOWER, environment

PROGRAMS = Path(__file__).parents[1] / "peer_programs"
UPDATE_BYTES = 1_000_000
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "GRPC_VERBOSITY": "ERROR"}


def flower_grpc(devices: int, rounds: int) -> dict[str, float]:
    """Flower's old server, after its first round."""
    python, port = environment(FLOWER), free_port()
    program, variables = PROGRAMS / "flower_grpc.py", os.environ | QUIET
    numbers = [port, devices, rounds, UPDATE_BYTES // 4]
    with (
        subprocess.Popen(
            [python, program, "server", *map(str, numbers)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=variables,
        ) as server,
        subprocess.Popen(
            [python, program, "clients", str(port), str(devices)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=variables,
        ) as clients,
    ):
        output, _ = server.communicate()
        clients.kill()
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def flower_superlink(nodes: int, rounds: int, seconds: float = 600) -> dict[str, float]:
    """SuperLink with so many SuperNodes, after its first round."""
    binaries = environment(FLOWER).parent
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        control, home, result = "127.0.0.1:8000", folder / "home", folder / "rounds.txt"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = "{control}"\ninsecure = true\n'
        )
        shutil.copytree(PROGRAMS / "flower_app", folder / "app")
        path = {"PATH": f"{binaries}:{os.environ['PATH']}", "FLWR_HOME": str(home), "FTTE_RESULT": str(result)}
        variables = os.environ | QUIET | path
        processes: list[subprocess.Popen[bytes]] = []

        def start(*command: object) -> None:
            log = (folder / f"{len(processes)}.log").open("wb")
            processes.append(
                subprocess.Popen(
                    [str(part) for part in command],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=variables,
                    start_new_session=True,
                )
            )

        try:
            link = ("--insecure", "--host", "127.0.0.1", "--port", "8000", "--disable-runtime-dependency-installation")
            start(binaries / "flower-superlink", *link)
            wait_for(8000)
            for _ in range(nodes):
                own = ("--superlink", control, "--host", "127.0.0.1", "--port", free_port())
                start(binaries / "flower-supernode", "--insecure", *own)
            time.sleep(15)  # SuperNodes say nowhere that they are registered
            given = f"nodes={nodes} rounds={rounds} elements={UPDATE_BYTES // 4}"
            submitted = subprocess.run(
                [binaries / "flwr", "run", folder / "app", "local", "-c", given],
                check=False,
                env=variables,
                cwd=folder,
                capture_output=True,
                text=True,
            )
            if submitted.returncode:
                raise RuntimeError(f"flwr run failed: {submitted.stdout}{submitted.stderr}")
            ends = time.monotonic() + seconds
            while not result.exists() or len(result.read_text().splitlines()) < rounds:
                if time.monotonic() > ends:
                    break
                time.sleep(0.5)
            merged = [line.split() for line in result.read_text().splitlines()] if result.exists() else []
        finally:
            for process in reversed(processes):
                subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)
                process.wait()
        if len(merged) < 2:
            raise RuntimeError(f"SuperLink merged {len(merged)} rounds in {seconds:g} s")
        updates = sum(int(count) for _, count in merged[1:])
        return {"updates_per_second": updates / (float(merged[-1][0]) - float(merged[0][0])), "rounds": len(merged)}


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(port: int, seconds: float = 60) -> None:
    """Until somebody listens there."""
    ends = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.2)


def main() -> None:
    """Measure, print, write ``benchmarks/results/server_peers.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--nodes", type=int, default=20, help="SuperNodes, each several processes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of every measurement of bare and ftte")
    options = parser.parse_args()
    console = Console()
    console.print(f"{machine()}; {options.rounds} rounds, all sides interleaved, medians; {FLOWER}")
    seen: dict[str, list[float]] = {"bare": [], "ftte": [], "flower grpc": []}
    with console.status("bare, ftte, flower grpc"):
        environment(FLOWER)
        for _ in range(options.rounds):
            buffer = ("--buffer", min(32, max(4, options.devices // 4)))
            bare = measure("ceiling", options.devices, UPDATE_BYTES, options.seconds)
            ours = measure("coordinator", options.devices, UPDATE_BYTES, options.seconds, *buffer)
            flower = flower_grpc(options.devices, 31)
            for side, result in zip(seen, (bare, ours, flower), strict=True):
                seen[side].append(result["updates_per_second"])
    with console.status("flower superlink"):
        seen["flower superlink"] = [flower_superlink(options.nodes, 6)["updates_per_second"]]
    rates = {side: statistics.median(values) for side, values in seen.items()}
    table = Table("server", "clients", "updates/s", "least", "most", "ftte is", box=None)
    for side, values in seen.items():
        clients = options.nodes if side == "flower superlink" else options.devices
        spread = f"{min(values):,.1f}", f"{max(values):,.1f}"
        table.add_row(side, str(clients), f"{rates[side]:,.1f}", *spread, f"{rates['ftte'] / rates[side]:.2f}x")
    console.print(table)
    report: dict[str, Any] = {
        "machine": machine(),
        "peer": FLOWER,
        "update_bytes": UPDATE_BYTES,
        "devices": options.devices,
        "nodes": options.nodes,
        "updates_per_second": seen,
        "ratio": {side: rates["ftte"] / rate for side, rate in rates.items() if side != "ftte"},
    }
    (RESULTS / "server_peers.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
