"""What comes by the connection itself: frames, messages, whole conversations, settings inside messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mobile_sdk.errors import ProtocolError, Refused
from mobile_sdk.payload import UpdateFormat
from mobile_sdk.protocol.coordinator_session import CoordinatorSession
from mobile_sdk.protocol.decoding import decode
from mobile_sdk.protocol.device_session import DeviceSession
from mobile_sdk.protocol.encoding import encode
from mobile_sdk.protocol.frames import Chunk
from mobile_sdk.protocol.messages import ArtifactRef, Hello, Offer, Proof, Sha256
from mobile_sdk.protocol.session import FetchRequested, Received, Session
from mobile_sdk.protocol.transfer import Incoming
from mobile_sdk.training.settings import TrainingSettings

from .target import Target

__all__ = ["TARGETS"]

_SHA = "ab" * 32
_REF = {"sha256": _SHA, "size": 40_000, "encoding": "identity"}
_HEX = "cd" * 32

# One of each kind.
_MESSAGES: dict[str, Mapping[str, Any]] = {
    "hello": {"protocol": 1, "sdk": "0.1.0", "run": "small", "device": "phone-1", "nonce": _HEX},
    "challenge": {
        "protocol": 1,
        "nonce": _HEX,
        "key": _HEX,
        "signature": "00" * 64,
        "succession": [{"key": _HEX, "signature": "00" * 64}],
    },
    "enrol": {"token": "t", "secret": _HEX},
    "proof": {"mac": _HEX},
    "welcome": {"mac": _HEX, "version": 0},
    "ready": {
        "budget": 0,
        "samples": 10,
        "engine": "native",
        "executorch": "1.5.1",
        "serial": 1,
        "peak_rss_bytes": 1,
        "torch_loaded": False,
        "model": "m",
        "holds": [_SHA],
    },
    "assign": {
        "assignment": "a00000001",
        "version": 3,
        "manifest": _REF,
        "signature": "00" * 64,
        "program": _REF,
        "weights": [_REF],
        "settings": TrainingSettings().to_json(),
        "seed": 1,
        "differences": [{"target": _SHA, "base": "", "artifact": _REF}],
        "payload": {"dtype": "int8", "top_k": 0.5},
    },
    "later": {"seconds": 1.5, "reason": "why"},
    "wait": {"reason": "why"},
    "evaluate": {
        "evaluation": "e1",
        "version": 3,
        "manifest": _REF,
        "signature": "00" * 64,
        "program": _REF,
        "weights": [],
        "differences": [],
    },
    "evaluated": {"evaluation": "e1", "samples": 3, "metrics": {"loss": 0.5}},
    "decline": {"assignment": "a1", "code": "data", "message": "why"},
    "offer": {"assignment": "a1", "artifact": _REF, "report": {"version": 3, "samples": 4}, "follows": False},
    "accepted": {"assignment": "a1", "staleness": 0, "duplicate": False},
    "rejected": {"assignment": "a1", "code": "stale", "message": "why"},
    "fetch": {"sha256": _SHA, "offset": 0},
    "ack": {"sha256": _SHA, "offset": 16_384},
    "announce": {"version": 4, "metrics": {"accuracy": 0.5}},
    "merged": {"assignment": "a1", "version": 4, "staleness": 1, "weight": 0.7},
    "finished": {"version": 4, "reason": "why", "metrics": {}},
    "error": {"code": "protocol", "message": "why"},
}


def _text(kind: str) -> bytes:
    return json.dumps({"type": kind, **_MESSAGES[kind]}, separators=(",", ":")).encode()


def _parse_frame(data: bytes) -> None:
    """A chunk, received where the input's first two bytes say that the artifact stands."""
    chunk = Chunk.from_bytes(data[2:])
    assert Chunk.from_bytes(chunk.to_bytes()) == chunk
    incoming = Incoming(chunk.sha256, 2**20, int.from_bytes(data[:2], "big"))
    incoming.receive(chunk)
    assert incoming.received <= incoming.size


def _frames() -> dict[str, bytes]:
    chunk = Chunk(_SHA, 16, b"x" * 2000)
    return {"chunk": b"\0\x10" + chunk.to_bytes(), "end": b"\0\0" + Chunk(_SHA, 2**20 - 1, b"x").to_bytes()}


def _parse_message(data: bytes) -> None:
    message = decode(data.decode("utf-8", "replace"))
    assert decode(encode(message)) == message


def _messages() -> dict[str, bytes]:
    # JSON of this depth is read, and too deep to be shown in the error that refuses it.
    deep = {f"deep-{depth}": b'{"type":' + b"[" * depth + b"]" * depth + b"}" for depth in (100, 900, 970, 985, 990)}
    known = {kind: _text(kind) for kind in _MESSAGES}
    return known | deep | {"other-version": b'{"type":"hello","protocol":2,"sdk":[[1]]}'}


def _opened(session: Session) -> None:
    """Play the other side of the handshake."""
    coordinator, device = _pair()
    if isinstance(session, DeviceSession):
        device = session
    elif isinstance(session, CoordinatorSession):
        coordinator = session
    for _ in range(4):
        for frame in device.frames_to_send():
            for event in coordinator.receive(frame, 0.0):
                if isinstance(event, Hello):
                    coordinator.challenge(b"s" * 32, "00" * 64)
                if isinstance(event, Proof):
                    assert coordinator.prove(event, 3)
        for frame in coordinator.frames_to_send():
            device.receive(frame, 0.0)


def _pair() -> tuple[CoordinatorSession, DeviceSession]:
    return (
        CoordinatorSession(run="small", key=_HEX),
        DeviceSession(run="small", device="phone-1", secret=b"s" * 32, token="", key=_HEX, enrolled=True),
    )


def _converse(data: bytes) -> None:
    """
    A conversation: the first byte chooses the side and how far it has come, then a frame per line.

    A line that begins with byte 1 is a binary frame. The owner of the session does what a real one does.
    """
    which = data[0] if data else 0
    session: Session = _pair()[which & 1]
    if which & 2:
        _opened(session)
    content = memoryview(b"x" * 40_000)
    now = 0.0
    for line in data[1:].split(b"\n")[:64]:
        now += 0.1
        frame = line if line[:1] == b"\x01" else line.decode("utf-8", "replace")
        for event in session.receive(frame, now):
            if isinstance(event, Hello) and isinstance(session, CoordinatorSession):
                session.challenge(None, "00" * 64)
            elif isinstance(event, Proof) and isinstance(session, CoordinatorSession):
                session.prove(event, 3)
            elif isinstance(event, Offer) and not event.follows:
                session.fetch(ArtifactRef(event.artifact.sha256, event.artifact.size), 0)
            elif isinstance(event, FetchRequested):
                session.send_artifact(event.sha256, content, event.offset, now)
            elif isinstance(event, Received):
                session.acknowledge(event.chunk.sha256, event.chunk.offset + len(event.chunk.data))
        assert sum(len(frame) for frame in session.frames_to_send()) < 5 * 2**20


def _conversations() -> dict[str, bytes]:
    chunk = Chunk(Sha256(_SHA), 0, b"x" * 2000).to_bytes()
    hello, ready, offer, fetch, ack = (_text(kind) for kind in ("hello", "ready", "offer", "fetch", "ack"))
    follows = offer.replace(b"40000", b"2000").replace(b'"follows":false', b'"follows":true')
    return {
        "greeting": b"\0" + b"\n".join([hello, _text("enrol"), _text("proof")]),
        "upload": b"\2" + b"\n".join([ready, offer, chunk, _text("evaluated"), _text("decline")]),
        "follows": b"\2" + b"\n".join([ready, follows, chunk, offer]),
        "download": b"\2" + b"\n".join([fetch, ack, fetch]),
        "device": b"\3" + b"\n".join([_text("assign"), fetch, _text("accepted"), _text("merged"), _text("finished")]),
        "challenged": b"\1" + b"\n".join([_text("challenge"), _text("welcome"), _text("later")]),
    }


def _parse_settings(data: bytes) -> None:
    """What an assignment asks of a device."""
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(given, dict):
        return
    settings = given.get("settings")
    if isinstance(settings, dict):
        parsed = TrainingSettings.from_json(settings)
        assert TrainingSettings.from_json(parsed.to_json()) == parsed
        parsed.make_optimiser()
        parsed.count_steps(10)
    payload = given.get("payload")
    if isinstance(payload, dict):
        assert UpdateFormat.from_json(UpdateFormat.from_json(payload).to_json())


def _settings() -> dict[str, bytes]:
    given = {"settings": TrainingSettings(optimiser="adamw").to_json(), "payload": {"dtype": "int4", "top_k": 0.25}}
    return {"adamw": json.dumps(given).encode()}


_WORDS = tuple(
    sorted(
        {f'"{kind}"' for kind in _MESSAGES}
        | {f'"{field}":' for fields in _MESSAGES.values() for field in fields}
        | {_SHA, _HEX, "true", "false", "null", "1e999", "NaN", "[]", "{}", '"zlib"', "18446744073709551616"}
    )
)
_ENCODED = tuple(word.encode() for word in _WORDS)

TARGETS = (
    Target("frames", _parse_frame, (ProtocolError,), 4, 4096, (b"\x01", bytes.fromhex(_SHA)), _frames),
    Target("messages", _parse_message, (ProtocolError,), 4, 4096, _ENCODED, _messages),
    Target("sessions", _converse, (ProtocolError, Refused), 16, 8192, (*_ENCODED, b"\n"), _conversations),
    Target("settings", _parse_settings, (ProtocolError,), 4, 2048, _ENCODED, _settings),
)
