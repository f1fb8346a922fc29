"""What comes between gateways and their conductor, and from a load balancer before everything else."""

from __future__ import annotations

import ipaddress
import json

from coordinator.gateway.messages import CONDUCTOR, GATEWAY
from coordinator.net.proxy_header import HeaderReader, WrongHeader

from .target import Target

__all__ = ["TARGETS"]

_SHA = "ab" * 32
_DEVICE = {"r": "small", "device": "phone-1"}

_FROM_GATEWAY = {
    "hello": {"m": "hello", "release": 3, "process": 1, "machine": "here"},
    "accept": {
        **{"m": "accept", "id": 1, "r": "small", "moved": [1, 2]},
        "record": {"assignment": "a1", "device": "phone-1", "sha256": _SHA, "report": {"loss": 0.5, "metrics": {}}},
    },
    "open": {"m": "open", "id": 2, "n": 1, "secret": "00", **_DEVICE},
    "sign": {"m": "sign", "id": 3, "r": "small", "challenge": "00"},
}
_FROM_CONDUCTOR = {
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


def _parse_message(data: bytes) -> None:
    """A message of the side that the first byte chooses; what was read can be said again, and reads the same."""
    reader = CONDUCTOR if data[:1] == b"c" else GATEWAY
    text = json.dumps(reader.read(data[1:], 0))
    assert json.dumps(reader.read(text.encode(), 0)) == text


def _messages() -> dict[str, bytes]:
    said = {f"gateway-{name}": b"g" + json.dumps(message).encode() for name, message in _FROM_GATEWAY.items()}
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
