"""What a client tells its app, as it happens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

__all__ = [
    "Announced",
    "Assigned",
    "Connected",
    "Declined",
    "Disconnected",
    "Downloading",
    "Evaluating",
    "Event",
    "Postponed",
    "RunFinished",
    "Training",
    "UpdateAccepted",
    "UpdateRejected",
    "Uploading",
]


@dataclasses.dataclass(frozen=True)
class Connected:
    """The coordinator let this device in; ``version`` is its newest."""

    device: str
    version: int


@dataclasses.dataclass(frozen=True)
class Disconnected:
    """The link is gone; the client tries again after ``retry_seconds``."""

    reason: str
    retry_seconds: float


@dataclasses.dataclass(frozen=True)
class Postponed:
    """The coordinator has no work now; the client comes back after ``seconds``."""

    reason: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class Evaluating:
    """The coordinator asks how well ``version`` does on this device's own samples."""

    evaluation: str
    version: int


@dataclasses.dataclass(frozen=True)
class Assigned:
    """There is something to train: which plan, from which version."""

    assignment: str
    version: int


@dataclasses.dataclass(frozen=True)
class Downloading:
    """``received`` of ``size`` bytes of an artifact have come."""

    received: int
    size: int


@dataclasses.dataclass(frozen=True)
class Training:
    """``step`` of ``steps`` is done; ``loss`` is the mean of its batch."""

    step: int
    steps: int
    loss: float


@dataclasses.dataclass(frozen=True)
class Declined:
    """What was assigned could not be trained here."""

    assignment: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Uploading:
    """The coordinator holds ``sent`` of ``size`` bytes of the update."""

    sent: int
    size: int


@dataclasses.dataclass(frozen=True)
class UpdateAccepted:
    """The update is safe with the coordinator; ``staleness`` in versions, as of now."""

    assignment: str
    staleness: int


@dataclasses.dataclass(frozen=True)
class UpdateRejected:
    """The update will never be merged, and why."""

    assignment: str
    code: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Announced:
    """The coordinator merged a new version; ``metrics`` are those of the operator's held-out data."""

    version: int
    metrics: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class RunFinished:
    """The run has ended; the client stops."""

    version: int
    reason: str
    metrics: Mapping[str, float]


Event = (
    Connected
    | Disconnected
    | Postponed
    | Evaluating
    | Assigned
    | Downloading
    | Training
    | Declined
    | Uploading
    | UpdateAccepted
    | UpdateRejected
    | Announced
    | RunFinished
)
