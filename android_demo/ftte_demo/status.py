"""
What the trainer tells the screens: one value, sent as a line of JSON.

The trainer is a process of its own; screens show the newest status and keep no other state of the run.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

__all__ = ["Layer", "Phase", "Status"]


class Phase:
    """What the phone is doing, as one word."""

    IDLE = "idle"
    CONNECTING = "connecting"
    WAITING = "waiting"
    DOWNLOADING = "downloading"
    TRAINING = "training"
    UPLOADING = "uploading"
    PAUSED = "paused"
    FINISHED = "finished"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of the model: its parameters, and how many of them this phone trains and shares, or keeps to itself."""

    name: str
    size: int
    trained: int
    local: bool = False


@dataclasses.dataclass
class Status:
    """
    Everything that a screen shows.

    Progress is ``(done, of)``: bytes for the transfers, steps for training. ``losses`` are those of the last steps,
    ``accuracies`` pairs of a version and the accuracy on the operator's held-out data. ``version`` is the one that is
    trained from, ``newest`` the newest of all; ``devices`` are connected to the run, 0 before it is known. Sizes are
    bytes: ``budget`` is the user's, ``plan_budget`` that of the plan, ``program_needs`` what its step was measured to
    take. ``visit`` tells whether the phone makes one visit that the system's job began, instead of training for as long
    as it may.
    """

    phase: str = Phase.IDLE
    reason: str = ""
    joined: bool = False
    run: str = ""
    device: str = ""
    address: str = ""
    version: int = -1
    newest: int = -1
    devices: int = 0
    retry_seconds: float = 0.0
    download: tuple[int, int] = (0, 0)
    training: tuple[int, int] = (0, 0)
    upload: tuple[int, int] = (0, 0)
    losses: list[float] = dataclasses.field(default_factory=list)
    accuracies: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_dense: int = 0
    memory_peak: int = 0
    budget: int = 0
    plan_budget: int = 0
    program_needs: int = 0
    process_memory: int = 0
    layers: list[Layer] = dataclasses.field(default_factory=list)
    updates: int = 0
    merged: int = 0
    staleness: int = -1
    weight: float = -1.0
    samples: int = 0
    drawn: int = 0
    global_accuracy: float = -1.0
    personal_accuracy: float = -1.0
    engine: str = ""
    cpu_seconds: float = 0.0
    policies: dict[str, Any] = dataclasses.field(default_factory=dict)
    visit: bool = False

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Status:
        """What :meth:`to_json` gave, parsed; fields of a newer trainer are left out."""
        names = {field.name for field in dataclasses.fields(cls)}
        known = {name: value for name, value in data.items() if name in names}
        known["layers"] = [Layer(**layer) for layer in known.get("layers", [])]
        for name in ("download", "training", "upload"):
            if name in known:
                known[name] = tuple(known[name])
        known["accuracies"] = [(int(v), float(a)) for v, a in known.get("accuracies", [])]
        return cls(**known)

    @property
    def shown_phase(self) -> str:
        """
        The phase in a word that stays: a small model's download, training and upload take turns within a second.

        Beside a name of :class:`Phase` it can be ``"working"``: the bars tell at what.
        """
        busy = (Phase.DOWNLOADING, Phase.TRAINING, Phase.UPLOADING)
        return "working" if self.phase in busy or (self.phase == Phase.WAITING and not self.reason) else self.phase

    @property
    def trained_share(self) -> float:
        """The part of the model's parameters that this phone trains and shares, 0 to 1."""
        size = sum(layer.size for layer in self.layers)
        return sum(layer.trained for layer in self.layers if not layer.local) / size if size else 0.0
