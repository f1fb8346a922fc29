"""Control messages: what is decoded is exactly what the protocol allows."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_sdk.errors import ProtocolError
from mobile_sdk.protocol import messages
from mobile_sdk.protocol.decoding import decode
from mobile_sdk.protocol.encoding import encode
from mobile_sdk.protocol.frames import Chunk
from mobile_sdk.protocol.messages import (
    ENCODINGS,
    Ack,
    Announce,
    ArtifactRef,
    Assign,
    Challenge,
    Difference,
    Error,
    Evaluate,
    Evaluated,
    Fetch,
    Hello,
    Hex,
    Later,
    Message,
    Name,
    Offer,
    Ready,
    Sha256,
    Succession,
)
from mobile_sdk.protocol.texts import printable, shortened

REF = ArtifactRef(Sha256("ab" * 32), 12, "zlib")
MESSAGES: list[Message] = [
    Hello(1, "0.1.0", Name("digits"), Name("phone-1"), "00ff"),  # type: ignore[arg-type]
    Assign(Name("a00000001"), 3, REF, "aa", REF, (REF, REF), {"epochs": 1}, 7),  # type: ignore[arg-type]
    Offer(Name("a00000001"), REF, {"samples": 3}),
    Fetch(Sha256("cd" * 32), 5),
    Ack(Sha256("cd" * 32), 2**40),
    Announce(4, {"accuracy": 0.5}, 12),
    Challenge(1, "aa", "bb", "cc", (Succession("dd", "ee"),)),  # type: ignore[arg-type]
    Later(2.5, "busy"),
    Evaluate(Name("e00000001"), 3, REF, "aa", REF, (REF,)),  # type: ignore[arg-type]
    Evaluated(Name("e00000001"), 7, {"accuracy": 0.5}),
    Ready(5, 6, Name("native"), "1.5.1", 7, 8, True),
]
WIRE = {"sha256": "ab" * 32, "size": 12, "encoding": "zlib"}
DIFFERENCE = {"target": "ab" * 32, "base": "", "artifact": WIRE}

# As written down in docs/reference/protocol.md: peers of other releases go by these.
MAX_TEXT_BYTES, MAX_DEPTH, MAX_CHUNK_BYTES = 65_536, 16, 2**20


def test_no_message_can_be_changed() -> None:
    classes = [
        value for _, value in inspect.getmembers(messages, inspect.isclass) if value.__module__ == messages.__name__
    ]
    dataclass = [cls for cls in classes if dataclasses.is_dataclass(cls)]
    assert {type(message) for message in MESSAGES} <= set(dataclass)
    for cls in dataclass:
        assert cls.__dataclass_params__.frozen, cls  # type: ignore[attr-defined]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_survives_the_wire(message: Message) -> None:
    assert decode(encode(message)) == message


def test_assignments_that_share_their_files_differ_in_the_rest() -> None:
    files = (REF, REF)
    given = [
        Assign(Name(f"a{number:08d}"), version, REF, Hex("aa"), REF, files, {"epochs": epochs}, number)
        for number, version, epochs in [(1, 3, 1), (2, 3, 2), (3, 4, 2)]
    ]
    for message in [*given, dataclasses.replace(given[0], differences=(Difference(Sha256("ab" * 32), Hex(""), REF),))]:
        assert decode(encode(message)) == message
        assert decode(encode(message)) == message  # from what was remembered


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": "nonsense"}, "unknown message type 'nonsense'"),
        ({"offset": -1}, "fetch.offset"),
        ({"offset": 1.5}, "fetch.offset"),
        ({"offset": True}, "fetch.offset"),
        ({"sha256": "AB" * 32}, "fetch.sha256"),
        ({"sha256": "../../etc/passwd"}, "fetch.sha256"),
        ({"extra": 1}, "unknown field 'extra'"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], words: str) -> None:
    data = json.loads(encode(Fetch(Sha256("cd" * 32), 5))) | change
    with pytest.raises(ProtocolError, match=words):
        decode(json.dumps(data))


@pytest.mark.parametrize(
    ("kind", "change", "good", "bad"),
    [
        ("fetch", lambda value: {"offset": value}, [0, 2**63 - 1], [-1, 2**63]),
        ("later", lambda value: {"seconds": value}, [0, 2**31 - 1], [-1, 2**31, True, "1"]),
        ("later", lambda value: {"reason": "x" * value}, [0, 4096], [4097]),
        ("hello", lambda value: {"device": "x" * value}, [1, 64], [0, 65]),
        ("hello", lambda value: {"nonce": "0" * value}, [2, 4096], [4097]),
        ("announce", lambda value: {"metrics": {"loss": value}}, [-(2**999), 2**999], [2**1000, -(2**1000)]),
        ("offer", lambda value: {"artifact": WIRE | {"size": value}}, [1], [0]),
        ("offer", lambda value: {"artifact": WIRE | {"encoding": value}}, list(ENCODINGS), ["gzip", ""]),
        ("assign", lambda value: {"weights": [WIRE] * value}, [0, 64], [65]),
        ("challenge", lambda value: {"succession": [{"key": "dd", "signature": "ee"}] * value}, [0, 64], [65]),
        ("ready", lambda value: {"holds": ["ab" * 32] * value}, [0, 64], [65]),
        ("assign", lambda value: {"differences": [DIFFERENCE] * value}, [0, 64], [65]),
    ],
)
def test_the_last_value_that_a_field_may_have_is_taken_and_the_next_is_not(
    kind: str, change: Callable[[Any], dict[str, object]], good: list[object], bad: list[object]
) -> None:
    whole = next(data for data in (json.loads(encode(message)) for message in MESSAGES) if data["type"] == kind)
    for value in good:
        decode(json.dumps(whole | change(value)))
    for value in bad:
        with pytest.raises(ProtocolError, match=rf"{kind}\.{next(iter(change(value)))}"):
            decode(json.dumps(whole | change(value)))


def test_a_message_may_be_as_long_and_as_deep_as_the_limits_say() -> None:
    whole = json.loads(encode(MESSAGES[2]))
    empty = len(json.dumps(whole | {"report": {"a": ""}}))
    decode(json.dumps(whole | {"report": {"a": "x" * (MAX_TEXT_BYTES - empty)}}))
    with pytest.raises(ProtocolError, match=f"has {MAX_TEXT_BYTES + 1} characters"):
        decode(json.dumps(whole | {"report": {"a": "x" * (MAX_TEXT_BYTES - empty + 1)}}))
    levels = MAX_DEPTH - 2  # the message and its report are two
    for opening, closing in (("[", "]"), ('{"b":', "}")):
        deep = json.dumps(whole | {"report": {"a": "HERE"}})
        decode(deep.replace('"HERE"', opening * levels + "1" + closing * levels))
        with pytest.raises(ProtocolError, match=f"more than {MAX_DEPTH} levels"):
            decode(deep.replace('"HERE"', opening * (levels + 1) + "1" + closing * (levels + 1)))


def test_a_long_value_is_shown_by_its_first_eighty_characters() -> None:
    assert shortened("x" * 78) == repr("x" * 78)
    assert shortened("x" * 79) == "'" + "x" * 76 + "..."
    assert shortened("x" * 10**6) == shortened("x" * 79)


def test_of_several_unknown_fields_the_first_in_the_alphabet_is_named() -> None:
    data = json.loads(encode(Fetch(Sha256("cd" * 32), 5))) | {"more": 1, "extra": 2}
    with pytest.raises(ProtocolError, match="unknown field 'extra'"):
        decode(json.dumps(data))


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ProtocolError, match="lacks the field 'offset'"):
        decode('{"type":"fetch","sha256":"' + "cd" * 32 + '"}')


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "null", '{"type":["hello"]}', "[" * 60_000, "x" * 70_000])
def test_what_is_no_message_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        decode(text)


def test_names_cannot_leave_a_folder() -> None:
    hello = json.loads(encode(MESSAGES[0]))
    for name in ("../x", "a/b", "", ".hidden", "a" * 65, "a\n"):
        with pytest.raises(ProtocolError, match=r"hello\.device"):
            decode(json.dumps(hello | {"device": name}))


def test_numbers_inside_a_message_are_finite_wherever_they_stand() -> None:
    offer = encode(next(message for message in MESSAGES if isinstance(message, Offer)))
    for number in ("1e999", "-1e999", "NaN"):
        with pytest.raises(ProtocolError, match="not JSON"):
            decode(offer.replace('"report":{', '"report":{"loss":' + number + ","))


def test_metrics_are_finite_numbers() -> None:
    for number in ("NaN", "Infinity", '"x"', "true"):
        with pytest.raises(ProtocolError):
            decode('{"type":"announce","version":1,"metrics":{"loss":' + number + "}}")


@pytest.mark.parametrize(
    "text", ["\ud800", "\x1b[2J", "two\nlines", "x" * 4097], ids=["broken", "escape", "newline", "long"]
)
def test_text_that_could_harm_a_log_or_a_terminal_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match=r"error\.message") as refusal:
        decode(json.dumps({"type": "error", "code": "x", "message": text}))
    assert str(refusal.value).isprintable()


def test_a_sender_makes_its_own_words_printable() -> None:
    text = printable("bad\nthing \x1b[2J \ud800")
    assert decode(encode(Error(Name("x"), text))) == Error(Name("x"), text)


def test_a_secret_is_not_repeated_in_a_refusal() -> None:
    with pytest.raises(ProtocolError, match=r"enrol\.secret") as refusal:
        decode('{"type":"enrol","token":"open sesame","secret":"ABCDEF"}')
    assert "ABCDEF" not in str(refusal.value)


def test_numbers_of_any_length_are_refused_as_what_they_are() -> None:
    with pytest.raises(ProtocolError, match="finite number"):
        decode('{"type":"announce","version":1,"devices":1,"metrics":{"loss":1' + "0" * 400 + "}}")
    with pytest.raises(ProtocolError, match=r"artifact\.size"):
        decode(encode(Offer(Name("a1"), ArtifactRef(Sha256("ab" * 32), 0), {})))


def test_what_is_not_a_number_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode(Announce(1, {"loss": float("nan")}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(MESSAGES), st.data())
def test_a_message_with_any_field_replaced_is_decoded_or_refused(message: Message, data: st.DataObject) -> None:
    fields = json.loads(encode(message))
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(json_values)
    try:
        decoded = decode(json.dumps(fields))
    except ProtocolError:
        return
    assert decode(encode(decoded)) == decoded


@given(st.binary(max_size=100))
def test_any_binary_frame_is_a_chunk_or_refused(frame: bytes) -> None:
    try:
        chunk = Chunk.from_bytes(frame)
    except ProtocolError:
        return
    assert chunk.to_bytes() == frame


def test_a_chunk_beyond_a_mebibyte_is_refused() -> None:
    assert Chunk.from_bytes(Chunk("ab" * 32, 0, bytes(MAX_CHUNK_BYTES)).to_bytes()).offset == 0
    with pytest.raises(ProtocolError, match="a chunk has"):
        Chunk.from_bytes(Chunk("ab" * 32, 0, bytes(MAX_CHUNK_BYTES + 1)).to_bytes())


def test_a_chunk_without_a_byte_is_refused() -> None:
    shortest = Chunk("ab" * 32, 0, b"x").to_bytes()
    assert Chunk.from_bytes(shortest).data == b"x"
    with pytest.raises(ProtocolError, match=f"has {len(shortest) - 1} bytes; a chunk has {len(shortest)} to"):
        Chunk.from_bytes(shortest[:-1])
    with pytest.raises(ProtocolError, match="of kind 2; this protocol knows kind 1"):
        Chunk.from_bytes(b"\x02" + shortest[1:])


@pytest.mark.parametrize("before", ['{"type":', '{"type":"ready","budget":', '{"type":"later","reason":"","seconds":'])
def test_json_of_any_depth_is_refused_as_such(before: str) -> None:
    for depth in (*range(20, 900, 100), *range(900, 1100)):
        for opening, middle, closing in (("[", "", "]"), ('{"a":', "1", "}")):
            with pytest.raises(ProtocolError):
                decode(before + depth * opening + middle + depth * closing + "}")
