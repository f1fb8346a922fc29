"""
The control messages of protocol version 1, and their JSON.

Each message is a frozen dataclass whose ``type`` on the wire is its class name in lower case.
Decoding is strict: an unknown type, a missing, extra or mistyped field is a
:exc:`~mobile_sdk.errors.ProtocolError` that names it. ``docs/reference/protocol.md`` tells the story.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ProtocolError, VersionMismatch

__all__ = [
    "MAX_TEXT_BYTES",
    "NAME_RULE",
    "PROTOCOL_VERSION",
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
    "decode",
    "encode",
    "is_name",
    "printable",
    "shortened",
]

PROTOCOL_VERSION = 1

# Control messages are small; whatever is large travels as an artifact.
MAX_TEXT_BYTES = 65_536
MAX_STRING = 4096
# No message needs more. Deeper JSON can be read and yet be too deep to be shown in an error, or to be written again.
MAX_DEPTH = 16

NAME_RULE = "1 to 64 letters, digits, '.', '-' or '_', with a letter or digit first"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEX = re.compile(r"(?:[0-9a-f]{2})*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


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


def _json_writer() -> Callable[[Any], str]:
    """
    How JSON is written.

    What is inside a message is a plain dataclass, too: its fields are its JSON. :class:`json.JSONEncoder` makes its
    part that is written in C anew for each text, which takes as long as most of our texts: so it is made once.
    """
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without it
        return json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=vars).encode
    # No check for circles; default, strings, no indent, separators, neither sorted keys nor skipped ones, no NaN.
    write = make(None, vars, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, False)
    return lambda value: "".join(write(value, 0))


_write = _json_writer()


class _Shared:
    """
    The JSON of what goes out many times, such as the files of a version, or an announcement: written once.

    Values are told apart by identity, and nobody changes them; an entry keeps its value, so no other has its ``id``.

    Args:
        write: gives the JSON of a value.

    """

    MOST = 256

    def __init__(self, write: Callable[[Any], str]) -> None:
        self._write = write
        self._texts: dict[int, tuple[object, str]] = {}

    def __call__(self, value: object) -> str:
        known = self._texts.get(id(value))
        if known is None:
            if len(self._texts) >= self.MOST:
                self._texts.clear()
            known = self._texts[id(value)] = value, self._write(value)
        return known[1]


def encode(message: Message) -> str:
    """One text frame."""
    kind = type(message)
    if kind is Assign:
        return _encode_assign(message)
    return _announced(message) if kind is Announce else _encode(message)


def _encode(message: Message) -> str:
    return _write({"type": _WORDS[type(message)], **vars(message)})


_shared, _announced = _Shared(_write), _Shared(_encode)


def _encode_assign(message: Any) -> str:
    """All but the name and the seed is the same for all devices that train a version."""
    differences = _shared(message.differences) if message.differences else "[]"
    return (
        f'{{"type":"assign","assignment":{_write(message.assignment)},"version":{message.version},'
        f'"manifest":{_shared(message.manifest)},"signature":{_write(message.signature)},'
        f'"program":{_shared(message.program)},"weights":{_shared(message.weights)},'
        f'"settings":{_shared(message.settings)},"seed":{message.seed},"differences":{differences},'
        f'"payload":{_shared(message.payload)}}}'
    )


def is_name(text: str) -> bool:
    """Whether ``text`` can name a run or a device."""
    return _NAME.fullmatch(text) is not None


def printable(text: str) -> str:
    """``text`` as a message may carry it: on one line, without control characters, not too long."""
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_STRING]


def decode(text: str) -> Message:
    """
    Parse one text frame.

    Raises:
        ProtocolError: if it is not exactly one message of protocol version 1.
        VersionMismatch: if the peer speaks another version of the protocol.

    """
    if len(text) > MAX_TEXT_BYTES:
        raise ProtocolError(f"a control message has {len(text)} characters; the limit is {MAX_TEXT_BYTES}")
    try:
        data = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a control message is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ProtocolError("a control message is not a JSON object")
    if _is_deep(text, data):
        raise ProtocolError(f"a control message is nested more than {MAX_DEPTH} levels deep")
    kind = data.pop("type", None)
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ProtocolError(f"unknown message type {shortened(kind)}")
    if kind in ("hello", "challenge") and data.get("protocol") != PROTOCOL_VERSION:
        # Another version may have other fields: they say nothing, the number says it all.
        number = data.get("protocol")
        said = data.get("sdk", "")
        raise VersionMismatch(
            f"the other side speaks protocol {printable(ascii(number))[:20]} (version {printable(str(said))[:40]}), "
            f"this one {PROTOCOL_VERSION}: update the older one"
        )
    message: Message = _build(_TYPES[kind], data, kind)
    return message


def _is_deep(text: str, data: Any) -> bool:
    """Whether there are more than :data:`MAX_DEPTH` objects and lists inside each other."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:  # of nearly every message
        return False
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
    return bool(level)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def _finite(text: str) -> float:
    number = float(text)
    if abs(number) == math.inf:  # such as 1e999, which could not be written again
        raise ValueError(f"{text[:20]} is beyond what a float holds")
    return number


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def _build(cls: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise ProtocolError(f"{where} must be an object")
    fields = _fields(cls, where)
    if data.keys() != fields.keys():
        extra = sorted(data.keys() - fields.keys())
        if extra:
            raise ProtocolError(f"{where} has an unknown field {shortened(extra[0])}")
        missing = next(name for name in fields if name not in data)
        raise ProtocolError(f"{where} lacks the field {missing!r}")
    message = object.__new__(cls)  # frozen, and without anything to do after its fields are set: sooner done so
    message.__dict__.update({name: check(data[name], place) for name, (check, place) in fields.items()})
    return message


@functools.lru_cache(1024)
def _fields(cls: Any, where: str) -> dict[str, tuple[Callable[[Any, str], Any], str]]:
    """The fields of a message, what their values must be, and how errors call them."""
    return {field.name: (_CHECKS[str(field.type)], f"{where}.{field.name}") for field in dataclasses.fields(cls)}


def _expect(condition: bool, value: Any, where: str, wanted: str) -> None:
    if not condition:
        secret = where.startswith(("enrol", "proof", "welcome"))  # secrets and MACs are never shown
        raise ProtocolError(f"{where} must be {wanted}, not {'what was sent' if secret else shortened(value)}")


def shortened(value: Any) -> str:
    """A value in quotes, as an error may carry it: without control characters, and of at most 80 characters."""
    text = ascii(value[:200] if isinstance(value, str) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def _integer(value: Any, where: str) -> int:
    # Not isinstance: a bool is an int.
    _expect(type(value) is int and 0 <= value < 2**63, value, where, "a whole number of at least 0")
    return int(value)


def _seconds(value: Any, where: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**31
    _expect(is_number, value, where, "a number of seconds of at least 0")
    return float(value)


def _boolean(value: Any, where: str) -> bool:
    if value is not True and value is not False:
        _expect(False, value, where, "true or false")
    return bool(value)


def _text(value: Any, where: str) -> str:
    # Peers' words end up in logs and on terminals: no control characters, no broken Unicode.
    good = isinstance(value, str) and len(value) <= MAX_STRING and value.isprintable()
    if not good:
        _expect(good, value, where, f"printable text of at most {MAX_STRING} characters")
    return str(value)


def _pattern(pattern: re.Pattern[str], wanted: str) -> Callable[[Any, str], str]:
    def check(value: Any, where: str) -> str:
        matches = isinstance(value, str) and len(value) <= MAX_STRING and pattern.fullmatch(value) is not None
        if not matches:
            _expect(matches, value, where, wanted)
        return str(value)

    return check


def _metrics(value: Any, where: str) -> dict[str, float]:
    _expect(isinstance(value, dict), value, where, "an object")
    for name, number in value.items():
        # The comparison holds for no NaN and no infinity, and takes integers of any length.
        is_number = isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < 2**1000
        _expect(is_number, number, f"{where}[{shortened(name)}]", "a finite number")
    return {str(name): float(number) for name, number in value.items()}


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _expect(False, value, where, "an object")
    return dict(value)


def _artifact(value: Any, where: str) -> ArtifactRef:
    ref: ArtifactRef = _build(ArtifactRef, value, where)
    if ref.size < 1:
        _expect(False, ref.size, f"{where}.size", "at least 1")
    if ref.encoding not in ENCODINGS:
        _expect(False, ref.encoding, f"{where}.encoding", f"one of {', '.join(ENCODINGS)}")
    return ref


def _hashes(value: Any, where: str) -> tuple[Sha256, ...]:
    _expect(isinstance(value, list) and len(value) <= 64, value, where, "a list of at most 64 hashes")
    return tuple(Sha256(_CHECKS["Sha256"](item, f"{where}[{i}]")) for i, item in enumerate(value))


def _differences(value: Any, where: str) -> tuple[Difference, ...]:
    _expect(isinstance(value, list) and len(value) <= 64, value, where, "a list of at most 64 differences")
    return tuple(_build(Difference, item, f"{where}[{i}]") for i, item in enumerate(value))


def _artifacts(value: Any, where: str) -> tuple[ArtifactRef, ...]:
    _expect(isinstance(value, list) and len(value) <= 64, value, where, "a list of at most 64 artifacts")
    return tuple(_artifact(item, f"{where}[{i}]") for i, item in enumerate(value))


def _successions(value: Any, where: str) -> tuple[Succession, ...]:
    _expect(isinstance(value, list) and len(value) <= 64, value, where, "a list of at most 64 successions")
    return tuple(_build(Succession, item, f"{where}[{i}]") for i, item in enumerate(value))


# By annotation, as text: what a field's value must be.
_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "int": _integer,
    "float": _seconds,
    "bool": _boolean,
    "str": _text,
    "Name": _pattern(_NAME, "1 to 64 letters, digits, '.', '-' or '_'"),
    "Hex": _pattern(_HEX, "lower-case hexadecimal"),
    "Sha256": _pattern(_SHA256, "a SHA-256 in hexadecimal"),
    "ArtifactRef": _artifact,
    "tuple[ArtifactRef, ...]": _artifacts,
    "tuple[Succession, ...]": _successions,
    "tuple[Sha256, ...]": _hashes,
    "tuple[Difference, ...]": _differences,
    "Mapping[str, float]": _metrics,
    "Mapping[str, Any]": _object,
}


def _type(cls: type[Any]) -> str:
    return cls.__name__.removesuffix("Message").lower()


_TYPES: dict[str, Any] = {_type(cls): cls for cls in Message.__args__}
_WORDS: dict[Any, str] = {cls: word for word, cls in _TYPES.items()}
