"""
The control messages of protocol version 1.

Each message is a frozen dataclass whose ``type`` on the wire is its class name in lower case.
:mod:`mobile_sdk.protocol.encoding` makes JSON of them, and :mod:`mobile_sdk.protocol.decoding` makes them of JSON.
``docs/reference/protocol.md`` tells the story.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

__all__ = [
    "ENCODINGS",
    "PROTOCOL_VERSION",
    "TYPES",
    "WORDS",
    "Accepted",
    "Ack",
    "Announce",
    "ArtifactRef",
    "Assign",
    "Challenge",
    "Decline",
    "Difference",
    "Enrol",
    "Error",
    "Evaluate",
    "Evaluated",
    "Fetch",
    "Finished",
    "Hello",
    "Hex",
    "Later",
    "MergedMessage",
    "Message",
    "Name",
    "Offer",
    "Proof",
    "Ready",
    "Rejected",
    "Sha256",
    "Succession",
    "Wait",
    "Welcome",
    "with_differences",
]

PROTOCOL_VERSION = 1


class Name(str):
    """1 to 64 letters, digits, dots, dashes or underscores: safe in file names and logs."""


class Hex(str):
    """Bytes in lower-case hexadecimal."""


# How an artifact may be packed: not at all, by zlib, with the bytes of its words sorted by their place first, and also
# with floats that are small integers times a power of two taken out and written as integers.
ENCODINGS = ("identity", "zlib", "zlib-words", "zlib-integers")


class Sha256(str):
    """A SHA-256 in lower-case hexadecimal."""


@dataclasses.dataclass(frozen=True)
class ArtifactRef:
    """A file to transfer: SHA-256 and size of the bytes as sent, and how they are packed, one of :data:`ENCODINGS`."""

    sha256: Sha256
    size: int
    encoding: str = "identity"


@dataclasses.dataclass(frozen=True)
class Hello:
    """Device: who I am and which run I want to join."""

    protocol: int
    sdk: str
    run: Name
    device: Name
    nonce: Hex


@dataclasses.dataclass(frozen=True)
class Succession:
    """``key`` follows the key that made ``signature``; see :mod:`mobile_sdk.protocol.trust`."""

    key: Hex
    signature: Hex


@dataclasses.dataclass(frozen=True)
class Challenge:
    """
    Coordinator: prove it, or enrol first; ``key`` is the run's public key.

    It says the same to devices that have enrolled and to those that have not: nobody learns who takes part.
    ``signature`` is that key's over both nonces; ``succession`` leads from the run's first key to ``key``.
    """

    protocol: int
    nonce: Hex
    key: Hex
    signature: Hex
    succession: tuple[Succession, ...]


@dataclasses.dataclass(frozen=True)
class Enrol:
    """Device: my enrolment token, and the secret that I shall answer challenges with."""

    token: str
    secret: Hex


@dataclasses.dataclass(frozen=True)
class Proof:
    """Device: HMAC over both nonces with my secret."""

    mac: Hex


@dataclasses.dataclass(frozen=True)
class Welcome:
    """Coordinator: you are in; here is my own HMAC, and the newest version."""

    mac: Hex
    version: int


@dataclasses.dataclass(frozen=True)
class Ready:
    """
    Device: give me work; here is what I am.

    ``budget`` is in bytes, 0 for no limit; ``serial`` the highest that I hold; ``holds`` are the files of weights
    that I have, which differences may start from; memory and torch are facts of the process; ``model`` is the device's.
    """

    budget: int
    samples: int
    engine: Name
    executorch: str
    serial: int
    peak_rss_bytes: int
    torch_loaded: bool
    model: str = ""
    holds: tuple[Sha256, ...] = ()


@dataclasses.dataclass(frozen=True)
class Difference:
    """
    A shorter way to the file ``target`` than fetching it: ``artifact`` added to the file ``base``.

    Where ``base`` is empty, ``artifact`` alone is enough. See :mod:`mobile_sdk.payload.differences`.
    """

    target: Sha256
    base: Hex
    artifact: ArtifactRef


@dataclasses.dataclass(frozen=True)
class Assign:
    """
    Coordinator: train this.

    ``weights`` are safetensors files which together hold every parameter; later ones overlay earlier ones.
    ``differences`` are shorter ways to some of them. ``payload`` says how the update is to be packed.
    """

    assignment: Name
    version: int
    manifest: ArtifactRef
    signature: Hex
    program: ArtifactRef
    weights: tuple[ArtifactRef, ...]
    settings: Mapping[str, Any]
    seed: int
    differences: tuple[Difference, ...] = ()
    payload: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Later:
    """Coordinator: there is no work for you now; leave, and come back after so many seconds."""

    seconds: float
    reason: str


@dataclasses.dataclass(frozen=True)
class Wait:
    """Coordinator: stay connected; your work, or the answer to your offer, needs something first: the reason."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Coordinator: tell me how well this version does on your own samples; fields as in :class:`Assign`."""

    evaluation: Name
    version: int
    manifest: ArtifactRef
    signature: Hex
    program: ArtifactRef
    weights: tuple[ArtifactRef, ...]
    differences: tuple[Difference, ...] = ()


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """Device: the means over my ``samples`` samples of the loss and of the task's metrics."""

    evaluation: Name
    samples: int
    metrics: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Decline:
    """Device: I cannot do this assignment or evaluation, and why."""

    assignment: Name
    code: Name
    message: str


@dataclasses.dataclass(frozen=True)
class Offer:
    """
    Device: I have the update of this assignment; ``report`` holds counts and metrics, never data.

    With ``follows``, the whole update comes right behind, without being asked for.
    """

    assignment: Name
    artifact: ArtifactRef
    report: Mapping[str, Any]
    follows: bool = False


@dataclasses.dataclass(frozen=True)
class Accepted:
    """Coordinator: your update is written down; you may forget it. ``staleness`` is as of now, in versions."""

    assignment: Name
    staleness: int
    duplicate: bool


@dataclasses.dataclass(frozen=True)
class Rejected:
    """Coordinator: your update will never be merged; forget it."""

    assignment: Name
    code: Name
    message: str


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Either side: send me this artifact from this byte on."""

    sha256: Sha256
    offset: int


@dataclasses.dataclass(frozen=True)
class Ack:
    """Either side: I hold the artifact's first ``offset`` bytes."""

    sha256: Sha256
    offset: int


@dataclasses.dataclass(frozen=True)
class Announce:
    """
    Coordinator: there is a new version; ``metrics`` are those of the operator's held-out data.

    ``devices`` is how many are connected. It names none of them.
    """

    version: int
    metrics: Mapping[str, float]
    devices: int = 0


@dataclasses.dataclass(frozen=True)
class MergedMessage:
    """Coordinator: your update is part of ``version``; ``weight`` is what its staleness left of it, 1 for all."""

    assignment: Name
    version: int
    staleness: int
    weight: float


@dataclasses.dataclass(frozen=True)
class Finished:
    """Coordinator: the run has ended."""

    version: int
    reason: str
    metrics: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Error:
    """Either side: something is wrong; the sender of this closes the connection."""

    code: Name
    message: str


Message = (
    Hello
    | Challenge
    | Enrol
    | Proof
    | Welcome
    | Ready
    | Assign
    | Later
    | Wait
    | Evaluate
    | Evaluated
    | Decline
    | Offer
    | Accepted
    | Rejected
    | Fetch
    | Ack
    | Announce
    | MergedMessage
    | Finished
    | Error
)


def _type(cls: type[Any]) -> str:
    return cls.__name__.removesuffix("Message").lower()


# The ``type`` of each message on the wire, both ways.
TYPES: dict[str, Any] = {_type(cls): cls for cls in Message.__args__}
WORDS: dict[Any, str] = {cls: word for word, cls in TYPES.items()}


Work = TypeVar("Work", Assign, Evaluate)


def with_differences(message: Work, differences: tuple[Difference, ...]) -> Work:
    """The same message with shorter ways to its files."""
    if not differences:
        return message
    longer = object.__new__(type(message))  # sooner done than by dataclasses.replace, for each assignment
    longer.__dict__.update(vars(message), differences=differences)
    return longer
