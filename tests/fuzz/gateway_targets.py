"""What comes between gateways and their conductor, and from a load balancer before everything else."""

from __future__ import annotations

import copy
import ipaddress
import json
import math
from collections.abc import Iterator
from typing import Any

from coordinator.gateway.messages import CONDUCTOR, GATEWAY, Reader
from coordinator.net.proxy_header import HeaderReader, WrongHeader

from .target import Target

__all__ = ["TARGETS"]

_SHA = "ab" * 32
_DEVICE = {"r": "small", "device": "phone-1"}

_FROM_GATEWAY: dict[str, dict[str, Any]] = {
    "hello": {"m": "hello", "release": 3, "process": 1, "machine": "here"},
    "accept": {
        **{"m": "accept", "id": 1, "r": "small", "moved": [1, 2]},
        "record": {"assignment": "a1", "device": "phone-1", "sha256": _SHA, "report": {"loss": 0.5, "metrics": {}}},
    },
    "open": {"m": "open", "id": 2, "n": 1, "secret": "00", **_DEVICE},
    "sign": {"m": "sign", "id": 3, "r": "small", "challenge": "00"},
}
_FROM_CONDUCTOR: dict[str, dict[str, Any]] = {
    "assign": {
        **{"m": "assign", "n": 1, "number": 7, "payload": {"steps": "x"}, "version": 3, "tier": "large", **_DEVICE},
        **{"graph": True, "weights": [{"sha256": _SHA, "size": 1, "encoding": "zlib"}]},
    },
    "version": {
        **{"m": "version", "r": "small", "version": 4, "parent": 3, "kind": "merge", "metrics": {"loss": 0.5}},
        **{"at": 1.5, "sent": [], "present": 2},
    },
    "failed": {"m": "failed", "re": 1, "error": "refused", "code": "auth", "text": "why"},
}


# What stands in the place of a field's value.
_ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**63, 2**64, 10**40, 0.5, -0.0, 1e308, math.nan, math.inf),
    *("", "a", "a" * 300, "00", "\0", "\ud800", _SHA, _SHA.upper(), "x" * 5_000),
    *([], {}, [[[[]]]], [None], [1, 2], {"a": {"b": []}}, {"sha256": _SHA, "size": 1, "encoding": "zlib"}),
)


def _parse_message(data: bytes) -> None:
    """
    A message of the side that the first byte chooses; what was read can be said again, and reads the same.

    The reader is compiled code, in which the fuzzer sees no branches. So an input that begins with ``e`` is no text but
    edits of a message that is right.
    """
    if data[:1] == b"e":
        reader, text = _edit(data[1:])
    else:
        reader, text = CONDUCTOR if data[:1] == b"c" else GATEWAY, data[1:]
    said = json.dumps(reader.read(text, 0))
    assert json.dumps(reader.read(said.encode(), 0)) == said


def _edit(data: bytes) -> tuple[Reader, bytes]:
    """The message that the first byte chooses; each three bytes then say which field is set, to what, or left out."""
    samples = [(GATEWAY, each) for each in _FROM_GATEWAY.values()]
    samples += [(CONDUCTOR, each) for each in _FROM_CONDUCTOR.values()]
    reader, message = copy.deepcopy(samples[data[0] % len(samples)] if data else samples[0])
    for where, how, what in zip(data[1::3], data[2::3], data[3::3], strict=False):
        places = list(_places(message))
        holder, key = places[where % len(places)]
        if how % 4 == 0:
            del holder[key]
        elif how % 4 == 1 and isinstance(holder, dict):
            holder[str(_ODD[what % len(_ODD)])[:40]] = holder[key]
        else:
            holder[key] = copy.deepcopy(_ODD[what % len(_ODD)])
        if not message:
            break
    return reader, json.dumps(message).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Everything inside ``value`` that can be replaced: what holds it, and its key or index."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _messages() -> dict[str, bytes]:
    said = {f"gateway-{name}": b"g" + json.dumps(message).encode() for name, message in _FROM_GATEWAY.items()}
    said |= {"edited-value": b"e\x01\x05\x02\x04", "edited-left-out": b"e\x07\x02\x00\x00", "edited-not": b"e\x02"}
    return said | {f"conductor-{name}": b"c" + json.dumps(each).encode() for name, each in _FROM_CONDUCTOR.items()}


def _parse_header(data: bytes) -> None:
    """A header that comes in pieces, as long as the first byte says."""
    reader, rest, piece = HeaderReader(), data[1:], max(data[0], 1) if data else 1
    while reader.wanted and rest:
        taken = rest[: min(piece, reader.wanted)]
        reader.feed(taken)
        rest = rest[len(taken) :]
    if reader.address:
        assert not reader.wanted
        ipaddress.ip_address(reader.address)


def _headers() -> dict[str, bytes]:
    signature = b"\r\n\r\n\0\r\nQUIT\n"
    return {
        "line": b"\xffPROXY TCP4 203.0.113.7 192.0.2.1 4000 8765\r\n",
        "binary": b"\x03" + signature + b"\x21\x11\0\x0c" + bytes(range(12)),
        "local": b"\xff" + signature + b"\x20\0\0\0",
    }


_FIELDS = {f'"{field}":' for message in (*_FROM_GATEWAY.values(), *_FROM_CONDUCTOR.values()) for field in message}
_WORDS = tuple(word.encode() for word in sorted({*_FIELDS, "null", "true", "1e999", "NaN", "[]", "{}", _SHA}))

TARGETS = (
    Target("gateways", _parse_message, (ValueError,), 4, 4096, _WORDS, _messages),
    Target("proxies", _parse_header, (WrongHeader,), 4, 256, (b"PROXY ", b"TCP4", b"TCP6", b"QUIT\n"), _headers),
)
