"""Messages to JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .messages import WORDS, Announce, Assign, Message

__all__ = ["encode"]


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
    return _write({"type": WORDS[type(message)], **vars(message)})


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
