"""
FedAvg, FedAsync or FedBuff in APPFL's virtual-time simulation, for ``benchmarks/simulation/peers.py``; runs in an
environment of its own.

    python appfl_simulation.py WORK.npz MODEL.pt SETTINGS.json RESULT.json

Its explicit garbage collections (``optimize_memory``), which take most of the time otherwise, are off.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

try:
    import torchvision
except RuntimeError:  # its CUDA build beside a CPU build of torch
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
    import torchvision  # noqa: F401

from appfl.agent import SimClientAgent, SimServerAgent
from appfl.vsim import AsyncSimDriver, ClientProfile, SyncSimDriver
from omegaconf import OmegaConf
from torch.utils.data import TensorDataset

WORK, MODEL, SETTINGS, RESULT = sys.argv[1:5]
STEP_SECONDS = 0.05
MBIT_PER_BYTE_PER_SECOND = 8e-6


def main() -> None:
    torch.set_num_threads(1)  # one client trains after another, in this process
    given = json.loads(Path(SETTINGS).read_text())
    with np.load(WORK) as work, tempfile.TemporaryDirectory() as folder:
        config = configuration(given, Path(folder))
        held_out = torch.from_numpy(work["x_test"]), torch.from_numpy(work["y_test"])
        x, y = torch.from_numpy(work["x"]), torch.from_numpy(work["y"])
        parts = [torch.from_numpy(work[f"device-{i}"]) for i in range(given["devices"])]
        server = SimServerAgent(config, num_clients=given["devices"])
        clients = [
            SimClientAgent(config, client_id=str(i), client_dataset=TensorDataset(x[part], y[part]))
            for i, part in enumerate(parts)
        ]
        for each in [server, server.scheduler, server.aggregator, *clients, *(client.trainer for client in clients)]:
            each.optimize_memory = False
        profiles = {
            str(i): ClientProfile(slowdown, given["link"] * MBIT_PER_BYTE_PER_SECOND)
            for i, slowdown in enumerate(given["slowdowns"])
        }
        Path(RESULT).write_text(json.dumps(simulated(given, server, clients, profiles, held_out)))


def configuration(given: dict, folder: Path) -> object:
    """As APPFL's examples write it; model and metric are named as files."""
    (folder / "model.py").write_text(
        f"import torch\n\ndef model():\n    return torch.load({MODEL!r}, weights_only=False)\n"
    )
    (folder / "metric.py").write_text("def accuracy(true, pred):\n    return float((pred.argmax(1) == true).mean())\n")
    cohort, trips = given["cohort"], given["cohort"] * given["rounds"]
    # APPFL divides every asynchronous update by the number of clients; times `whole`, it counts in full.
    whole = given["devices"]
    buffer = {"K": cohort, "alpha": whole / cohort, "staleness_fn": "polynomial", "staleness_fn_kwargs": {"a": 0.5}}
    algorithms = {
        "fedavg": ("SyncScheduler", "FedAvgAggregator", given["rounds"], {"client_weights_mode": "equal"}),
        "fedasync": ("AsyncScheduler", "FedAsyncAggregator", trips, {"alpha": given["fedasync_rate"] * whole}),
        "fedbuff": ("AsyncScheduler", "FedBuffAggregator", trips, buffer),
    }
    scheduler, aggregator, epochs, options = algorithms[given["algorithm"]]
    return OmegaConf.create(
        {
            "model_configs": {"model_path": str(folder / "model.py"), "model_name": "model"},
            "log_configs": {"logging_output_dirname": str(folder)},
            "algorithm_configs": {
                "scheduler": scheduler,
                "scheduler_kwargs": {"num_clients": cohort, "num_clients_per_round": cohort},
                "aggregator": aggregator,
                "aggregator_kwargs": options,
                "num_global_epochs": epochs,
                "trainer": "VanillaTrainer",
                "trainer_kwargs": {
                    "mode": "epoch",
                    "num_local_epochs": 1,
                    "optim": "SGD",
                    "optim_args": {"lr": given["learning_rate"]},
                    "loss_fn": "CrossEntropyLoss",
                    "metric_path": str(folder / "metric.py"),
                    "metric_name": "accuracy",
                    "train_batch_size": given["batch_size"],
                    "train_data_shuffle": True,
                    "do_validation": False,
                },
            },
        }
    )


def simulated(given: dict, server: object, clients: list, profiles: dict, held_out: tuple) -> list[dict]:
    """Accuracy and wall time after every ``cohort`` client trips, and before the first."""
    curve: list[dict] = []
    model = torch.load(MODEL, weights_only=False)

    def evaluate(trips: int) -> None:
        model.load_state_dict(server.get_parameters(serial_run=True))
        with torch.no_grad():
            pairs = zip(*(array.split(500) for array in held_out), strict=True)
            hits = sum(int((model(a).argmax(1) == b).sum()) for a, b in pairs)
        curve.append({"trips": trips, "accuracy": hits / len(held_out[1]), "at": time.monotonic()})

    class Sync(SyncSimDriver):
        def _record_round(self, *arguments: object, **named: object) -> None:
            super()._record_round(*arguments, **named)
            evaluate(given["cohort"] * len(self.history))

    class Async(AsyncSimDriver):
        def _handle_train_complete(self, *arguments: object) -> None:
            super()._handle_train_complete(*arguments)
            if len(self.history) % given["cohort"] == 0:
                evaluate(len(self.history))

    common = {"logger": logging.getLogger("vsim"), "seed": given["seed"], "base_step_time": STEP_SECONDS}
    if given["algorithm"] == "fedavg":
        driver = Sync(server, clients, profiles, given["cohort"], target_rounds=given["rounds"], **common)
    else:
        driver = Async(server, clients, profiles, given["cohort"], **common)
    evaluate(0)
    driver.run()
    return curve


if __name__ == "__main__":
    main()
