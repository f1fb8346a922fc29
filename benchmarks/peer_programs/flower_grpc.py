"""
Flower's gRPC server (``start_server``, deprecated) and its clients, for ``benchmarks/server/peers.py``; runs in
Flower's own environment.

    python flower_grpc.py server PORT CLIENTS ROUNDS ELEMENTS     # prints updates per second and its own CPU seconds
    python flower_grpc.py clients PORT CLIENTS
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
import threading
import time

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import numpy as np
from flwr.client import NumPyClient, start_client
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerConfig, start_server
from flwr.server.strategy import FedAvg

logging.getLogger("flwr").setLevel(logging.ERROR)


class Clocked(FedAvg):
    """FedAvg that notes when each round has been merged."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.merged: list[tuple[float, int]] = []

    def aggregate_fit(self, server_round, results, failures):
        merged = super().aggregate_fit(server_round, results, failures)
        self.merged.append((time.perf_counter(), len(results)))
        return merged


class AddOne(NumPyClient):
    """A client whose training is one addition."""

    def fit(self, parameters, config):
        return [array + 1 for array in parameters], 1, {}


def serve(port: int, clients: int, rounds: int, elements: int) -> None:
    strategy = Clocked(
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=ndarrays_to_parameters([np.zeros(elements, np.float32)]),
    )
    start_server(server_address=f"127.0.0.1:{port}", config=ServerConfig(num_rounds=rounds), strategy=strategy)
    (began, _), *rest = strategy.merged  # the first round pays for the start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    updates = sum(count for _, count in rest)
    print(
        json.dumps(
            {
                "updates_per_second": updates / (rest[-1][0] - began),
                "cpu_ms_per_update": 1e3 * (usage.ru_utime + usage.ru_stime) / (updates + clients),
            }
        )
    )


def join(port: int, clients: int) -> None:
    signal.signal = lambda *arguments: None  # start_client wants handlers, which threads may not set

    def one() -> None:
        start_client(server_address=f"127.0.0.1:{port}", client=AddOne().to_client(), insecure=True)

    threads = [threading.Thread(target=one) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    kind, *numbers = sys.argv[1:]
    (serve if kind == "server" else join)(*map(int, numbers))
