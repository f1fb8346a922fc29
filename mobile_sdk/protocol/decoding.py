"""
JSON to messages, each field checked.

Decoding is strict: an unknown type, a missing, extra or mistyped field is a
:exc:`~mobile_sdk.errors.ProtocolError` that names it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Callable
from typing import Any

from ..errors import ProtocolError, VersionMismatch
from .messages import ENCODINGS, PROTOCOL_VERSION, TYPES, ArtifactRef, Difference, Message, Sha256, Succession
from .texts import MAX_STRING, NAME, printable, shortened

__all__ = ["MAX_TEXT_BYTES", "decode"]

# Control messages are small; whatever is large travels as an artifact.
MAX_TEXT_BYTES = 65_536
# No message needs more. Deeper JSON can be read and yet be too deep to be shown in an error, or to be written again.
MAX_DEPTH = 16
_HEX = re.compile(r"(?:[0-9a-f]{2})*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


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
        data, end = _DECODER.raw_decode(text) if text.startswith("{") else (None, -1)
        if end != len(text):  # white space around it, or no message: what it is is said with its place
            data = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a control message is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ProtocolError("a control message is not a JSON object")
    if _is_deep(text, data):
        raise ProtocolError(f"a control message is nested more than {MAX_DEPTH} levels deep")
    kind = data.pop("type", None)
    if not isinstance(kind, str) or kind not in TYPES:
        raise ProtocolError(f"unknown message type {shortened(kind)}")
    if kind in ("hello", "challenge") and data.get("protocol") != PROTOCOL_VERSION:
        # Another version may have other fields: they say nothing, the number says it all.
        number = data.get("protocol")
        said = data.get("sdk", "")
        raise VersionMismatch(
            f"the other side speaks protocol {printable(ascii(number))[:20]} (version {printable(str(said))[:40]}), "
            f"this one {PROTOCOL_VERSION}: update the older one"
        )
    message: Message = _build(TYPES[kind], data, kind)
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
    names, checks = _fields(cls, where)
    if data.keys() != names:
        extra = sorted(data.keys() - names)
        if extra:
            raise ProtocolError(f"{where} has an unknown field {shortened(extra[0])}")
        missing = next(name for name, _, _ in checks if name not in data)
        raise ProtocolError(f"{where} lacks the field {missing!r}")
    message = object.__new__(cls)  # frozen, and without anything to do after its fields are set: sooner done so
    fields = message.__dict__
    for name, check, place in checks:
        fields[name] = check(data[name], place)
    return message


@functools.lru_cache(1024)
def _fields(cls: Any, where: str) -> tuple[frozenset[str], list[tuple[str, Callable[[Any, str], Any], str]]]:
    """The fields of a message, what their values must be, and how errors call them."""
    checks = [(field.name, _CHECKS[str(field.type)], f"{where}.{field.name}") for field in dataclasses.fields(cls)]
    return frozenset(name for name, _, _ in checks), checks


def _expect(condition: bool, value: Any, where: str, wanted: str) -> None:
    if not condition:
        raise _wrong(value, where, wanted)


def _wrong(value: Any, where: str, wanted: str) -> ProtocolError:
    secret = where.startswith(("enrol", "proof", "welcome"))  # secrets and MACs are never shown
    return ProtocolError(f"{where} must be {wanted}, not {'what was sent' if secret else shortened(value)}")


def _integer(value: Any, where: str) -> int:
    # Not isinstance: a bool is an int.
    if type(value) is int and 0 <= value < 2**63:
        return value
    raise _wrong(value, where, "a whole number of at least 0")


def _seconds(value: Any, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**31:
        return float(value)
    raise _wrong(value, where, "a number of seconds of at least 0")


def _boolean(value: Any, where: str) -> bool:
    if value is True or value is False:
        return bool(value)
    raise _wrong(value, where, "true or false")


def _text(value: Any, where: str) -> str:
    # Peers' words end up in logs and on terminals: no control characters, no broken Unicode.
    if isinstance(value, str) and len(value) <= MAX_STRING and value.isprintable():
        return value
    raise _wrong(value, where, f"printable text of at most {MAX_STRING} characters")


def _pattern(pattern: re.Pattern[str], wanted: str) -> Callable[[Any, str], str]:
    def check(value: Any, where: str) -> str:
        if isinstance(value, str) and len(value) <= MAX_STRING and pattern.fullmatch(value) is not None:
            return value
        raise _wrong(value, where, wanted)

    return check


def _metrics(value: Any, where: str) -> dict[str, float]:
    _expect(isinstance(value, dict), value, where, "an object")
    for name, number in value.items():
        # The comparison holds for no NaN and no infinity, and takes integers of any length.
        is_number = isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < 2**1000
        _expect(is_number, number, f"{where}[{shortened(name)}]", "a finite number")
    return {str(name): float(number) for name, number in value.items()}


def _object(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise _wrong(value, where, "an object")


def _artifact(value: Any, where: str) -> ArtifactRef:
    ref: ArtifactRef = _build(ArtifactRef, value, where)
    if ref.size < 1:
        raise _wrong(ref.size, f"{where}.size", "at least 1")
    if ref.encoding not in ENCODINGS:
        raise _wrong(ref.encoding, f"{where}.encoding", f"one of {', '.join(ENCODINGS)}")
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
    "Name": _pattern(NAME, "1 to 64 letters, digits, '.', '-' or '_'"),
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
