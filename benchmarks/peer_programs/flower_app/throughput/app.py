"""FedAvg over one array; writes a line to ``$FTTE_RESULT`` for every merged round: seconds, updates."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """One addition."""
    arrays = [array + np.float32(np.random.rand()) for array in message.content["arrays"].to_numpy_ndarrays()]
    content = {"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 1})}
    return Message(content=RecordDict(content), reply_to=message)


class Clocked(FedAvg):
    """FedAvg that notes when each round has been merged."""

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        merged = super().aggregate_train(server_round, replies)
        with Path(os.environ["FTTE_RESULT"]).open("a") as file:
            file.write(f"{time.time()} {sum(not reply.has_error() for reply in replies)}\n")
        return merged


@server.main()
def main(grid: Grid, context: Context) -> None:
    """All nodes in every round."""
    given = context.run_config
    nodes = int(given["nodes"])
    strategy = Clocked(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    start = ArrayRecord([np.zeros(int(given["elements"]), np.float32)])
    strategy.start(grid=grid, initial_arrays=start, num_rounds=int(given["rounds"]), timeout=300)
