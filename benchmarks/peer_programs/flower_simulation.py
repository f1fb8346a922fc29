"""
FedAvg in Flower's own simulation, for ``benchmarks/simulation/peers.py``; runs in an environment of its own.

    python flower_simulation.py WORK.npz MODEL.pt SETTINGS.json RESULT.json
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

WORK, MODEL, SETTINGS, RESULT = sys.argv[1:5]
client, server = ClientApp(), ServerApp()


def settings() -> dict:
    return json.loads(Path(SETTINGS).read_text())


@client.train()
def train(message: Message, context: Context) -> Message:
    """One epoch of plain SGD over the device's own samples, in an order drawn anew."""
    torch.set_num_threads(1)
    given = settings()
    model = torch.load(MODEL, weights_only=False)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    with np.load(WORK) as work:
        mine = work[f"device-{context.node_config['partition-id']}"]
        x, y = torch.from_numpy(work["x"][mine]), torch.from_numpy(work["y"][mine])
    optimiser = torch.optim.SGD(model.parameters(), lr=given["learning_rate"])
    for batch in torch.randperm(len(x)).split(given["batch_size"]):
        optimiser.zero_grad()
        F.cross_entropy(model(x[batch]), y[batch]).backward()
        optimiser.step()
    content = {
        "arrays": ArrayRecord(model.state_dict()),
        "metrics": MetricRecord({"num-examples": len(x)}),
    }
    return Message(content=RecordDict(content), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    given = settings()
    model = torch.load(MODEL, weights_only=False)
    with np.load(WORK) as work:
        x, y = torch.from_numpy(work["x_test"]), torch.from_numpy(work["y_test"])
    rounds = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        with torch.no_grad():
            hits = sum(int((model(a).argmax(1) == b).sum()) for a, b in zip(x.split(500), y.split(500), strict=True))
        rounds.append({"trips": number * given["cohort"], "accuracy": hits / len(y), "at": time.monotonic()})
        return MetricRecord({"accuracy": hits / len(y)})

    strategy = FedAvg(
        fraction_train=given["cohort"] / given["devices"],
        fraction_evaluate=0.0,
        min_train_nodes=given["cohort"],
        min_available_nodes=given["devices"],
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(model.state_dict()),
        num_rounds=given["rounds"],
        timeout=3600,
        evaluate_fn=evaluate,
    )
    Path(RESULT).write_text(json.dumps(rounds))


if __name__ == "__main__":
    run_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=settings()["devices"],
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
