"""What a client tells its app, as it happens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

__all__ = [
    "Announced",
    "Assigned",
    "Connected",
    "Cost",
    "Declined",
    "SamplesSkipped",
    "Disconnected",
    "Downloading",
    "Evaluating",
    "Event",
    "Postponed",
    "Merged",
    "Paused",
    "Personal",
    "RunFinished",
    "Training",
    "UpdateAccepted",
    "UpdateRejected",
    "Uploading",
    "Waiting",
    "from_json",
    "to_json",
]

# What a phone's processor core draws under load, and what its radio takes per byte on Wi-Fi: orders of magnitude
# from published measurements (a few watts; some joules per megabyte), good for comparing, not for billing.
CORE_WATTS = 2.0
JOULES_PER_BYTE = 5e-6


@dataclasses.dataclass(frozen=True)
class Cost:
    """
    What an update cost this device.

    ``seconds`` and ``cpu_seconds`` are of its training; bytes are all that the link carried since the update before,
    frames counted, without what TLS and TCP add.
    """

    seconds: float
    cpu_seconds: float
    bytes_up: int
    bytes_down: int

    @property
    def energy_joules_estimate(self) -> float:
        """An ESTIMATE: processor seconds times 2 W, plus 5 J per megabyte moved. Nothing was measured."""
        return CORE_WATTS * self.cpu_seconds + JOULES_PER_BYTE * (self.bytes_up + self.bytes_down)


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
class Waiting:
    """The device stays connected; its work, or the answer to its update, needs something first, say other devices."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Evaluating:
    """The coordinator asks how well ``version`` does on this device's own samples."""

    evaluation: str
    version: int


@dataclasses.dataclass(frozen=True)
class Paused:
    """The client does not take part for now, and why; it looks again after ``retry_seconds``."""

    reason: str
    retry_seconds: float


@dataclasses.dataclass(frozen=True)
class Assigned:
    """
    There is something to train: which plan, from which version.

    ``traceparent`` is the W3C trace context of the whole trip, which the coordinator's spans of it have, too.
    """

    assignment: str
    version: int
    traceparent: str = ""


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
class Personal:
    """
    How the version that was trained from does on ``samples`` samples of this device.

    ``global_metrics`` are those of the model that everybody has, ``personal_metrics`` those with this device's own
    parameters in it, both as means per sample. ``held_out`` tells whether the samples are kept from training.
    """

    samples: int
    held_out: bool
    global_metrics: Mapping[str, float]
    personal_metrics: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class SamplesSkipped:
    """
    Samples at ``indices`` of the dataset break the task's contract and are left out of training.

    ``used`` are left; ``reason`` says what is wrong with the first. Told once for the same samples.
    """

    indices: tuple[int, ...]
    used: int
    reason: str


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
    """The update is safe with the coordinator; ``staleness`` in versions, as of now; ``cost`` is what it took."""

    assignment: str
    staleness: int
    cost: Cost


@dataclasses.dataclass(frozen=True)
class UpdateRejected:
    """The update will never be merged, and why."""

    assignment: str
    code: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Merged:
    """
    An update of this device is part of ``version``.

    It was ``staleness`` versions old; ``weight`` is what that left of it, 1 for all. Told if the device is connected
    when it happens.
    """

    assignment: str
    version: int
    staleness: int
    weight: float


@dataclasses.dataclass(frozen=True)
class Announced:
    """
    The coordinator merged a new version; ``metrics`` are those of the operator's held-out data.

    ``devices`` is how many are connected to the run, this one among them.
    """

    version: int
    metrics: Mapping[str, float]
    devices: int = 0


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
    | Waiting
    | Evaluating
    | Paused
    | Assigned
    | Downloading
    | Training
    | Personal
    | Declined
    | SamplesSkipped
    | Uploading
    | UpdateAccepted
    | UpdateRejected
    | Merged
    | Announced
    | RunFinished
)

_KINDS: dict[str, Any] = {cls.__name__: cls for cls in Event.__args__}


def to_json(event: Event) -> dict[str, Any]:
    """An event as JSON values, for another process: ``{"event": "Training", "step": 3, ...}``."""
    return {"event": type(event).__name__, **dataclasses.asdict(event)}


def from_json(data: Mapping[str, Any]) -> Event:
    """
    What :meth:`to_json` was given.

    Raises:
        ValueError: if it is no event of this SDK's version.

    """
    fields = dict(data)
    try:
        cls = _KINDS[fields.pop("event")]
        if "cost" in fields:
            fields["cost"] = Cost(**fields["cost"])
        event: Event = cls(**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an event: {data!r}") from error
    return event
