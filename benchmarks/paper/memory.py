"""
Device memory of the comparison with the paper: budget, growth over the idle client, and the whole process.

Each plan is measured at the same micro-batch, and the full model also at its smallest: what that saves is the
micro-batch's doing and not the subset's.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from exporters import Plan, Task, export
from exporters.search import plans_for
from mobile_sdk.sizes import parse_bytes

__all__ = ["memory"]

# Imports what ftte-device imports, waits for work, trains; prints what it was and what it became, in bytes.
CHILD = """
import json, sys
from pathlib import Path
import numpy as np
import mobile_sdk.cli
from mobile_sdk import load_engine
from mobile_sdk.data import ArrayDataset
from mobile_sdk.system.memory import peak_rss_bytes
from mobile_sdk.training.settings import TrainingSettings
from mobile_sdk.training.train import train
folder = sys.argv[1]
idle = peak_rss_bytes()
engine = load_engine(folder)
contract = engine.manifest.contract
x = np.random.default_rng(0).normal(size=(64, *contract.x_shape)).astype(contract.x_dtype)
data = ArrayDataset(x, np.zeros((64, *contract.y_shape), contract.y_dtype))
weights = {p.name: np.zeros(p.shape, np.float32) for p in engine.manifest.layout}
train(engine, weights, data, TrainingSettings(batch_size=16), 0)
print(json.dumps([idle, peak_rss_bytes()]))
"""


@functools.cache
def memory() -> dict[str, Any]:
    """Bytes per plan and micro-batch: ``budget``, ``growth`` over the idle client, ``rss``; ratios to full."""
    from benchmarks.paper.runs import Paper
    from benchmarks.paper_task import from_pretrained

    task = from_pretrained()
    paper = Paper()
    plans = {"full": Plan.everything(task), "full, micro-batch 1": Plan.everything(task, 1)}
    for algorithm in ("ftte_common", "ours"):
        section = paper.algorithm(algorithm)
        # The runs' plans were measured when they were planned; what measures a little more today is the same plan.
        sizes = {name: int(1.05 * parse_bytes(size)) for name, size in section["budgets"].items()}
        shrink = section.get("planning", {}).get("shrink", False)
        found = plans_for(task, list(sizes.values()), shrink=shrink)
        plans |= {f"{algorithm}, {name}": plan for name, plan in zip(sizes, found, strict=True)}
    smallest = plans["ftte_common, weak"]
    plans["ftte_common, weak, micro-batch 1"] = dataclasses.replace(smallest, micro_batch=1, forward_batch=None)
    rows = {name: _measured(task, plan) for name, plan in plans.items()}

    def ratio(large: str, small: str) -> dict[str, float]:
        return {key: rows[large][key] / rows[small][key] for key in ("budget", "growth", "rss")}

    return {
        "plans": rows,
        "ratios": {
            "ftte_common": ratio("full", "ftte_common, weak"),
            "ftte_common, both at micro-batch 1": ratio("full, micro-batch 1", "ftte_common, weak, micro-batch 1"),
            "ours, the weakest tier": ratio("full", "ours, weak"),
            "ours, over full at micro-batch 1": ratio("full, micro-batch 1", "ours, weak"),
        },
    }


def _measured(task: Task, plan: Plan) -> dict[str, Any]:
    program = export(task, plan=plan)
    with tempfile.TemporaryDirectory() as folder:
        program.save(folder)
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        done = subprocess.run(
            [sys.executable, "-c", CHILD, folder], capture_output=True, text=True, check=True, env=environment
        )
    idle, peak = json.loads(done.stdout.splitlines()[-1])
    return {
        "micro_batch": plan.micro_batch,
        "trained_parameters": plan.subset.size,
        "budget": program.manifest.memory.measured_bytes,
        "growth": peak - idle,
        "rss": peak,
    }


if __name__ == "__main__":
    print(json.dumps(memory(), indent=1))
