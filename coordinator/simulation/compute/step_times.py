"""How long training takes on a device: the measured step of the exported program, times what the device is slower."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mobile_sdk.durable_files import write_durably
from mobile_sdk.engines import load_engine
from mobile_sdk.engines.base import Engine
from mobile_sdk.layout import Vector
from mobile_sdk.manifest import MANIFEST_FILE, PROGRAM_FILE, Manifest
from mobile_sdk.training.settings import TrainingSettings
from mobile_sdk.training.steps import count_work

from ...programs.tiers import Tier, unpacked_manifest, unpacked_program
from ...store.interface import ArtifactStore

__all__ = ["Timing", "calibrate", "measure_step"]

WARM_UP = 3
REPEATS = 60


def measure_step(engine: Engine, vector: Vector) -> float:
    """
    Seconds of one micro-batch of a program in the native runtime on this machine, one thread.

    The least of some: whatever else the machine does only adds, and on a busy one a median is many times too long.

    Args:
        engine: the loaded program.
        vector: any weights, float32, shape ``(layout.size,)``.

    """
    manifest = engine.manifest
    contract, batch = manifest.contract, manifest.micro_batch
    rng = np.random.default_rng(0)
    low, high = contract.range or (-1.0, 1.0)
    dtype = contract.numpy_dtype("x")
    shape = (batch, *contract.x_shape)
    x = rng.uniform(low, high, shape).astype(dtype) if dtype.kind == "f" else np.zeros(shape, dtype)
    y = np.zeros((batch, *contract.y_shape), contract.numpy_dtype("y"))
    weights, ones = manifest.layout.views(vector), np.ones(batch, np.float32)
    seconds = []
    for _ in range(WARM_UP + REPEATS):
        began = time.perf_counter()
        engine.train_step(x, y, ones, weights)
        seconds.append(time.perf_counter() - began)
    return min(seconds[WARM_UP:])


class Timing:
    """
    Virtual seconds of a device's training.

    Args:
        step_seconds: tier -> seconds of one micro-batch on a device with slowdown 1.

    """

    def __init__(self, step_seconds: Mapping[str, float]) -> None:
        self.step_seconds = dict(step_seconds)

    def training(
        self, manifest: Manifest, samples: int, settings: TrainingSettings, slowdown: float
    ) -> tuple[int, float]:
        """
        The optimiser steps of a training, and the virtual seconds that they take at slowdown 1.

        Args:
            manifest: of the program.
            samples: that the device has.
            settings: what the coordinator asks for.
            slowdown: of the device; a time limit leaves a slow one fewer steps.

        """
        seconds = self.step_seconds[manifest.tier]
        steps, micro = count_work(
            samples, settings, micro_batch=manifest.micro_batch, micro_batch_seconds=seconds * slowdown
        )
        return steps, micro * seconds


def calibrate(artifacts: ArtifactStore, tiers: Sequence[Tier], pinned: Mapping[str, float]) -> dict[str, float]:
    """
    Seconds of a micro-batch for every tier: what is pinned, else measured.

    A measurement is remembered by the program's hash (in ``$XDG_CACHE_HOME/ftte/step_seconds.json``), so that a
    simulation on this machine gives tomorrow what it gives today.

    Args:
        artifacts: where the programs are.
        tiers: of the run.
        pinned: tier -> seconds that the scenario gives.

    Returns:
        Tier -> seconds of a micro-batch on this machine.

    """
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ftte" / "step_seconds.json"
    remembered: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):
        remembered = json.loads(path.read_text())
    seconds = {}
    for tier in tiers:
        known = pinned.get(tier.name) or remembered.get(tier.record.program.sha256)
        if known is None:
            engine = _engine(artifacts, tier)
            known = measure_step(engine, np.zeros(tier.manifest.layout.size, np.float32))
            engine.close()
            remembered[tier.record.program.sha256] = known
        seconds[tier.name] = known
    with contextlib.suppress(OSError):  # then it is measured again
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, json.dumps(remembered, indent=1).encode())
    return seconds


def _engine(artifacts: ArtifactStore, tier: Tier) -> Engine:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / MANIFEST_FILE).write_bytes(unpacked_manifest(artifacts, tier.record))
        (Path(folder) / PROGRAM_FILE).write_bytes(unpacked_program(artifacts, tier.record))
        return load_engine(folder)
