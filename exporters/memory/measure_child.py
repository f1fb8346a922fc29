"""
The process that :mod:`exporters.memory.measure` watches: trains a program as a device does, and prints its growth.

Imports numpy and mobile_sdk, nothing else; run as ``python -m exporters.memory.measure_child FOLDER FIRST_PTE``.
"""

from __future__ import annotations

import gc
import json
import math
import sys
from pathlib import Path

import numpy as np

from mobile_sdk.engines import (
    load_engine,
    native,  # noqa: F401  # engines are imported late; the import is no part of a step
)
from mobile_sdk.engines.base import Engine
from mobile_sdk.engines.dropout import DRAWN, generator
from mobile_sdk.layout import Arrays
from mobile_sdk.manifest import PROGRAM_FILE
from mobile_sdk.native.library import NativeProgram, set_threads
from mobile_sdk.system.footprint import footprint_bytes, peak_footprint_bytes, resident_bytes, return_free_memory
from mobile_sdk.training.optimisers import SGD
from mobile_sdk.weights import map_weights

_WARM_UP = 2
_STEPS = 3


def main(folder: Path, first: Path) -> None:
    """Measure the program in ``folder`` after running ``first``; the fields of ``Footprint`` go to stdout as JSON."""
    set_threads(1)
    tiny = NativeProgram(first)
    tiny.execute("first", [np.zeros((1, 8), np.float32)], (np.zeros((1, 8), np.float32),))
    dropout = generator(0)  # importing numpy's generators is part of the fixed cost
    gc.collect()
    return_free_memory()
    before, idle = footprint_bytes(), resident_bytes()

    engine = load_engine(folder)
    manifest = engine.manifest
    weights = dict(map_weights(manifest.layout, [folder / "weights.safetensors"]))
    for name in manifest.trained:
        weights[name] = np.array(weights[name])
    optimiser = SGD(learning_rate=1e-3, momentum=0.9)
    n, contract = manifest.micro_batch, manifest.contract
    x = np.zeros((n, *contract.x_shape), contract.numpy_dtype("x"))
    y = np.zeros((n, *contract.y_shape), contract.numpy_dtype("y"))
    sample_weight = np.ones(n, np.float32)
    masks = sum(4 * math.prod(s.shape) for s in manifest.methods["train_step"].inputs if s.role in DRAWN)

    def steps(count: int) -> None:
        for _ in range(count):
            _, _, gradients = engine.train_step(x, y, sample_weight, weights, dropout)
            _update(engine, weights, optimiser, gradients)

    steps(_WARM_UP)
    peak = peak_footprint_bytes(lambda: steps(_STEPS))

    compact = 4 * manifest.trained.size
    report = {
        "arena_bytes": _arena(folder),
        "trained_bytes": sum(weights[name].nbytes for name in manifest.trained),
        "gradient_bytes": compact,
        "optimiser_bytes": compact,
        "batch_bytes": x.nbytes + y.nbytes + sample_weight.nbytes + masks,
    }
    report["workspace_bytes"] = peak - before - sum(report.values())
    report["mapped_bytes"] = sum(
        4 * math.prod(spec.shape)
        for spec in manifest.methods["train_step"].inputs
        if spec.role == "weight" and spec.name not in manifest.trained
    )
    report["idle_bytes"] = idle
    print(json.dumps(report))
    engine.close()
    tiny.close()


def _arena(folder: Path) -> int:
    """What is planned for a step, without the outputs that lie in it: those are gradients."""
    program = NativeProgram(folder / PROGRAM_FILE)
    _, outputs, planned = program.metadata("train_step")
    program.close()
    return planned - sum(4 * math.prod(output.shape) for output in outputs if output.planned)


def _update(engine: Engine, weights: Arrays, optimiser: SGD, gradients: Arrays) -> None:
    for name, step in optimiser.steps(gradients):
        weights[name][engine.manifest.trained.selector(name)] -= step


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
