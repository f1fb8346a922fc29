"""
A training as far as it went, kept on the device.

Low-end phones are unplugged and apps are ended while they train. What was done so far must not be lost with them: every
minute, and when it is told to stop, a training writes down the trained weights, the optimiser's state and what else
counts, and goes on from there to the same update, bit for bit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

from .. import safetensors
from ..errors import PayloadError
from ..layout import Vector
from ..protocol.messages import Assign
from ..storage.device_storage import DeviceStorage
from ..version import __version__

__all__ = ["Checkpoint", "Checkpoints", "Keeper"]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """``arrays`` are the trained weights and the optimiser's state, ``numbers`` all else, as JSON has it."""

    arrays: Mapping[str, Vector]
    numbers: Mapping[str, Any]


class Keeper(Protocol):
    """Where :func:`~mobile_sdk.training.train.train` keeps how far it went."""

    def load(self) -> Checkpoint | None:
        """Where to go on; nothing if there is nowhere."""
        ...

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint instead of the one before; its arrays change after this returns."""
        ...


class Checkpoints:
    """
    Those of one assignment; another's are no use to it.

    Args:
        storage: where they are kept.
        assign: what is trained: program, weights, settings and seed are part of what must be the same.
        samples: how many the device has: the order in which they come depends on it.

    """

    def __init__(self, storage: DeviceStorage, assign: Assign, samples: int) -> None:
        self._storage = storage
        weights = [ref.sha256 for ref in assign.weights]
        # Another release of the SDK may keep other things, or go on differently.
        work = [__version__, assign.assignment, assign.manifest.sha256, weights, dict(assign.settings), assign.seed]
        self._work = hashlib.sha256(json.dumps([*work, samples], sort_keys=True).encode()).hexdigest()

    def load(self) -> Checkpoint | None:
        """See :meth:`Keeper.load`; a damaged file is none."""
        content = self._storage.training()
        if content is None:
            return None
        try:
            arrays, metadata = safetensors.loads(content)
            if metadata.get("work") == self._work:
                return Checkpoint(arrays, json.loads(metadata["numbers"]))
        except (PayloadError, KeyError, ValueError):
            pass
        return None

    def save(self, checkpoint: Checkpoint) -> None:
        """See :meth:`Keeper.save`; a full disk must not end the training."""
        metadata = {"work": self._work, "numbers": json.dumps(checkpoint.numbers)}
        with contextlib.suppress(OSError):
            self._storage.save_training(safetensors.pieces(checkpoint.arrays, metadata))
