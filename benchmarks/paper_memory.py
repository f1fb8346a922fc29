"""
Device memory of the comparison with the paper: budget, growth over the idle client, and the whole process.

Each plan is measured at the same micro-batch, and the full model also at its smallest: what that saves is the
micro-batch's doing and not the subset's.
"""

from __future__ import annotations

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
from mobile_sdk.process import peak_rss_bytes
from mobile_sdk.training import TrainingSettings, train
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
    from benchmarks.paper_task import from_pretrained

    task = from_pretrained()
    weak, middle = plans_for(task, [parse_bytes("2.5MB"), parse_bytes("4MB")])
    plans = {"full": Plan.everything(task), "weak": weak, "middle": middle}
    rows = {name: _measured(task, plan) for name, plan in plans.items()}
    rows["full, micro-batch 1"] = _measured(task, Plan.everything(task, 1))
    rows["weak, micro-batch 1"] = _measured(task, Plan(weak.subset, 1))
    ratios = {
        "weak": {key: rows["full"][key] / rows["weak"][key] for key in ("budget", "growth", "rss")},
        "weak, micro-batch 1, over full, micro-batch 1": {
            key: rows["full, micro-batch 1"][key] / rows["weak, micro-batch 1"][key]
            for key in ("budget", "growth", "rss")
        },
    }
    return {"plans": rows, "ratios": ratios}


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
