"""What a client takes from its surroundings: time, threads, chance, the process; the simulator puts its own."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

from ..clock import Clock, Offload, SystemClock, offload
from ..conditions import Provider
from ..engines.base import Engine
from ..process import ProcessFacts, ThisProcess
from ..training.train import Execute, train_in_thread

__all__ = ["Surroundings"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surroundings:
    """
    What a client takes from its surroundings; the defaults are the real ones.

    Args:
        conditions: tells the state of the device, for the policy; by default the system's own.
        load: makes an engine from a program's folder; by default :func:`~mobile_sdk.load_engine` with the client's
            engine.
        execute: runs the training.
        clock: where the time comes from.
        offload: runs what must not block the event loop.
        rng: jitter of the waits between tries.
        process: what is reported of this process.

    """

    conditions: Provider | None = None
    load: Callable[[Path], Engine] | None = None
    execute: Execute = train_in_thread
    clock: Clock = dataclasses.field(default_factory=SystemClock)
    offload: Offload = offload
    rng: random.Random = dataclasses.field(default_factory=random.Random)
    process: ProcessFacts = dataclasses.field(default_factory=ThisProcess)
