"""The two halves of the protocol against each other, without I/O."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mobile_sdk.errors import ProtocolError, Refused
from mobile_sdk.protocol.coordinator_session import CoordinatorSession
from mobile_sdk.protocol.decoding import decode
from mobile_sdk.protocol.device_session import DeviceSession
from mobile_sdk.protocol.encoding import encode
from mobile_sdk.protocol.frames import Chunk
from mobile_sdk.protocol.messages import (
    Accepted,
    Announce,
    ArtifactRef,
    Assign,
    Decline,
    Enrol,
    Error,
    Evaluate,
    Evaluated,
    Finished,
    Hello,
    Hex,
    Later,
    MergedMessage,
    Name,
    Offer,
    Proof,
    Ready,
    Rejected,
    Sha256,
    Succession,
    Wait,
    Welcome,
)
from mobile_sdk.protocol.session import FetchRequested, PeerError, Received, SendProgress, State
from mobile_sdk.protocol.trust import succession_bytes

SECRET = bytes(range(32))
OWNERS = [Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in range(1, 5)]
KEYS = [owner.public_key().public_bytes_raw().hex() for owner in OWNERS]
KEY = KEYS[0]


class Signing(CoordinatorSession):
    """A coordinator that has a key."""

    def __init__(self, shown: int, signer: int, succession: Any) -> None:
        super().__init__(run="digits", key=KEYS[shown], succession=succession)
        self._owner = OWNERS[signer]

    def greet(self, secret: bytes | None) -> None:
        """Challenge the device."""
        self.challenge(secret, self._owner.sign(self.challenge_bytes).hex())


def make(
    secret: bytes = SECRET,
    key: str = KEY,
    shown: int = 0,
    signer: int | None = None,
    succession: Any = (),
    enrolled: bool = False,
) -> tuple[DeviceSession, Signing]:
    """A device that pins ``key``, and a coordinator that shows key ``shown`` and signs with ``signer``."""
    device = DeviceSession(run="digits", device="phone-1", secret=secret, token="t", key=key, enrolled=enrolled)
    return device, Signing(shown, shown if signer is None else signer, succession)


def follow(old: int, new: int, run: str = "digits") -> Succession:
    """Key ``old`` names key ``new`` as its follower."""
    return Succession(Hex(KEYS[new]), Hex(OWNERS[old].sign(succession_bytes(run, KEYS[old], KEYS[new])).hex()))


def handshake(device: DeviceSession, coordinator: Signing, known: bytes | None) -> list[object]:
    """Let both sides greet each other; everything that either side was told."""
    told: list[object] = []
    for _ in range(4):
        for frame in device.frames_to_send():
            for event in coordinator.receive(frame, 0.0):
                told.append(event)
                match event:
                    case Hello():
                        coordinator.greet(known)
                    case Enrol():
                        coordinator.enrolled(bytes.fromhex(event.secret))
                    case Proof():
                        if not coordinator.prove(event, 5):
                            coordinator.fail("auth", "wrong")
        for frame in coordinator.frames_to_send():
            told += device.receive(frame, 0.0)
    return told


def test_a_new_device_enrols_and_both_sides_prove_that_they_know_its_secret() -> None:
    device, coordinator = make()
    told = handshake(device, coordinator, None)
    assert [type(event) for event in told] == [Hello, Enrol, Proof, Welcome]
    assert device.state is coordinator.state is State.OPEN
    assert coordinator.device == "phone-1"


def test_a_known_device_does_not_send_its_secret_again() -> None:
    told = handshake(*make(enrolled=True), SECRET)
    assert [type(event) for event in told] == [Hello, Proof, Welcome]


def test_a_device_with_another_secret_is_not_let_in() -> None:
    device, coordinator = make(secret=bytes(32), enrolled=True)
    told = handshake(device, coordinator, SECRET)
    assert told[-1] == PeerError("auth", "wrong")
    assert coordinator.state is State.CLOSED
    assert device.proven, "the run's own coordinator says so"


def test_nobody_is_proven_who_has_not_signed_the_devices_nonce() -> None:
    device, coordinator = make(signer=1, enrolled=True)
    assert not device.proven
    told = handshake(device, coordinator, None)
    assert told[-1] == PeerError("auth", "wrong")
    assert not device.proven
    device, _ = make(enrolled=True)
    device.receive(encode(Error(Name("revoked"), "go away")), 0.0)
    assert not device.proven


def test_whoever_knows_the_devices_secret_is_proven_without_a_signature() -> None:
    device, coordinator = make(signer=1, enrolled=True)
    assert isinstance(handshake(device, coordinator, SECRET)[-1], Welcome)
    assert device.proven


def test_a_coordinator_that_does_not_know_the_secret_is_left() -> None:
    device, coordinator = make()
    device.receive(_challenge(coordinator, device), 0.0)
    with pytest.raises(ProtocolError, match="could not prove"):
        device.receive(encode(Welcome("00" * 32, 0)), 0.0)  # type: ignore[arg-type]


def test_an_answer_cannot_be_reflected() -> None:
    device, coordinator = make()
    device.receive(_challenge(coordinator, device), 0.0)
    proof = decode(str(device.frames_to_send()[-1]))
    assert isinstance(proof, Proof)
    with pytest.raises(ProtocolError, match="could not prove"):
        device.receive(encode(Welcome(proof.mac, 0)), 0.0)


def _challenge(coordinator: Signing, device: DeviceSession) -> str | bytes:
    (hello,) = device.frames_to_send()
    coordinator.receive(hello, 0.0)
    coordinator.greet(SECRET)
    (challenge,) = coordinator.frames_to_send()
    return challenge


def test_a_coordinator_with_another_key_is_left_before_anything_secret_is_said() -> None:
    device, coordinator = make(key="cd" * 32)
    with pytest.raises(Refused, match="pinned"):
        handshake(device, coordinator, None)
    assert device.frames_to_send() == []


def test_an_impostor_who_knows_the_key_but_cannot_sign_is_never_told_the_secret() -> None:
    device, coordinator = make(signer=1)
    with pytest.raises(Refused, match="could not prove that it holds the run's key"):
        handshake(device, coordinator, None)
    assert device.frames_to_send() == []


def test_a_signature_of_another_challenge_is_not_taken() -> None:
    device, coordinator = make()
    other, _ = make()
    coordinator.receive(other.frames_to_send()[0], 0.0)
    coordinator.greet(None)
    with pytest.raises(Refused, match="could not prove"):
        device.receive(coordinator.frames_to_send()[0], 0.0)


@pytest.mark.parametrize("pinned", [0, 1, 2])
def test_a_device_follows_the_keys_that_each_was_signed_by_the_one_before(pinned: int) -> None:
    device, coordinator = make(key=KEYS[pinned], shown=2, succession=(follow(0, 1), follow(1, 2)))
    assert isinstance(handshake(device, coordinator, None)[-1], Welcome)
    assert device.key == KEYS[2]


@pytest.mark.parametrize(
    "succession",
    [(), (follow(1, 2),), (follow(1, 1), follow(1, 2)), (follow(0, 1),), (follow(0, 1, "other"), follow(1, 2))],
    ids=["none", "a gap", "signed by itself", "too short", "of another run"],
)
def test_a_key_that_the_pinned_one_did_not_lead_to_is_not_followed(succession: Any) -> None:
    device, coordinator = make(shown=2, succession=succession)
    with pytest.raises(Refused, match="pinned"):
        handshake(device, coordinator, None)


def test_a_coordinator_may_send_a_device_away_at_any_time() -> None:
    device, coordinator = make()
    coordinator.receive(device.frames_to_send()[0], 0.0)
    coordinator.later(30, "too many\ndevices")
    assert device.receive(coordinator.frames_to_send()[0], 0.0) == [Later(30.0, "too many devices")]


def test_a_device_of_another_run_or_protocol_is_told_so() -> None:
    _, coordinator = make()
    hello = Hello(1, "0", Name("other"), Name("d"), "00" * 32)  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match="'digits', not 'other'"):
        coordinator.receive(encode(hello), 0.0)
    _, coordinator = make()
    hello = Hello(9, "7.0", Name("digits"), Name("d"), "00" * 32)  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match="protocol 9"):
        coordinator.receive(encode(hello), 0.0)


@pytest.mark.parametrize("count", [31, 33])
def test_a_nonce_has_32_bytes(count: int) -> None:
    _, coordinator = make()
    hello = Hello(1, "0", Name("digits"), Name("d"), Hex("00" * count))
    with pytest.raises(ProtocolError, match=r"hello\.nonce must have 32 bytes"):
        coordinator.receive(encode(hello), 0.0)


@pytest.mark.parametrize(
    "frame", [encode(Ready(0, 1, Name("native"), "1", 0, 0, False)), encode(Announce(1, {})), b"\x01" * 50]
)
def test_nothing_but_the_handshake_is_allowed_before_it(frame: str | bytes) -> None:
    _, coordinator = make()
    with pytest.raises(ProtocolError):
        coordinator.receive(frame, 0.0)


def test_an_artifact_moves_in_chunks_that_are_acknowledged() -> None:
    device, coordinator = make()
    handshake(device, coordinator, SECRET)
    content = bytes(i % 251 for i in range(200_000))
    ref = ArtifactRef(Sha256("cd" * 32), len(content))
    device.fetch(ref, 1000)
    got, progress, now = content[:1000], [], 0.0
    while len(got) < len(content):
        now += 0.01
        for frame in device.frames_to_send():
            for event in coordinator.receive(frame, now):
                match event:
                    case FetchRequested():
                        coordinator.send_artifact(event.sha256, memoryview(content), event.offset, now)
                    case SendProgress():
                        progress.append(event.sent)
        for frame in coordinator.frames_to_send():
            (event,) = device.receive(frame, now)
            assert isinstance(event, Received)
            got += event.chunk.data
            assert event.last == (len(got) == len(content))
            device.acknowledge(ref.sha256, len(got))
    assert got == content
    assert progress == sorted(progress)


SHORT = bytes(range(250)) * 40
SHORT_REF = ArtifactRef(Sha256("ef" * 32), len(SHORT))


def test_a_short_update_follows_its_offer_without_being_asked_for() -> None:
    device, coordinator = make()
    handshake(device, coordinator, SECRET)
    assert device.is_short(len(SHORT))
    device.offer("a1", SHORT_REF, {}, memoryview(SHORT), 0.0)
    told = [event for frame in device.frames_to_send() for event in coordinator.receive(frame, 0.0)]
    assert [type(event) for event in told] == [Offer, Received]
    assert told[1] == Received(Chunk(SHORT_REF.sha256, 0, SHORT), last=True)


@pytest.mark.parametrize("taken", [True, False], ids=["known already", "refused"])
def test_what_follows_an_offer_that_is_answered_is_passed_over(taken: bool) -> None:
    device, coordinator = make()
    handshake(device, coordinator, SECRET)
    for _ in range(2):  # and it may be offered again
        device.offer("a1", SHORT_REF, {}, memoryview(SHORT), 0.0)
        offer, chunk = device.frames_to_send()
        assert len(coordinator.receive(offer, 0.0)) == 1
        if taken:
            coordinator.accept("a1", staleness=0, duplicate=True)
        else:
            coordinator.reject("a1", "stale", "too old")
        assert coordinator.receive(chunk, 0.0) == []
        (answer,) = coordinator.frames_to_send()
        assert len(device.receive(answer, 0.0)) == 1


def test_an_update_does_not_follow_while_another_is_on_its_way_nor_if_it_is_long() -> None:
    device, coordinator = make()
    handshake(device, coordinator, SECRET)
    long = encode(Offer(Name("a1"), ArtifactRef(Sha256("ab" * 32), 2**20 + 1), {}, True))
    with pytest.raises(ProtocolError, match="1048577 bytes follows its offer; no more than 1048576 may"):
        coordinator.receive(long, 0.0)
    device.offer("a1", ArtifactRef(SHORT_REF.sha256, 1), {}, memoryview(b"x"), 0.0)
    offer, byte = device.frames_to_send()
    coordinator.receive(offer, 0.0)
    with pytest.raises(ProtocolError, match="another is on its way"):
        coordinator.receive(offer, 0.0)
    assert coordinator.receive(byte, 0.0) == [Received(Chunk(SHORT_REF.sha256, 0, b"x"), last=True)]


def test_a_chunk_that_nobody_asked_for_is_refused() -> None:
    device, coordinator = make()
    handshake(device, coordinator, SECRET)
    with pytest.raises(ProtocolError, match="not asked for"):
        coordinator.receive(b"\x01" + bytes(40) + b"x", 0.0)


def test_no_more_than_a_few_artifacts_are_sent_at_once() -> None:
    device, coordinator = make()
    handshake(device, coordinator, SECRET)
    for number in range(8):
        coordinator.send_artifact(f"{number:064x}", memoryview(bytes(10)), 0, 0.0)
    with pytest.raises(ProtocolError, match="more than 8"):
        coordinator.send_artifact(f"{9:064x}", memoryview(bytes(10)), 0, 0.0)


def test_after_an_error_nothing_more_is_said_or_heard() -> None:
    device, coordinator = make()
    handshake(device, coordinator, SECRET)
    coordinator.fail("protocol", "no")
    coordinator.announce(Announce(1, {}))
    frames = coordinator.frames_to_send()
    assert [decode(str(frame)) for frame in frames] == [Error(Name("protocol"), "no")]
    assert device.receive(frames[0], 0.0) == [PeerError("protocol", "no")]
    with pytest.raises(ProtocolError, match="closed"):
        device.receive(encode(Announce(1, {})), 0.0)


REF = ArtifactRef(Sha256("ab" * 32), 10)
ASSIGN = Assign(Name("a00000001"), 3, REF, Hex("00"), REF, (REF,), {"epochs": 1}, 1)
READY = Ready(
    budget=5,
    samples=6,
    engine=Name("native"),
    executorch="1.5.1",
    serial=7,
    peak_rss_bytes=8,
    torch_loaded=True,
    holds=(Sha256("cd" * 32),),
)
EVALUATE = Evaluate(Name("e00000001"), 3, REF, Hex("00"), REF, (REF,))


@pytest.mark.parametrize(
    ("say", "heard"),
    [
        (lambda c: c.assign(ASSIGN), ASSIGN),
        (lambda c: c.evaluate(EVALUATE), EVALUATE),
        (lambda c: c.later(2.5, "others\ntrain"), Later(2.5, "others train")),
        (lambda c: c.wait("other\ndevices"), Wait("other devices")),
        (lambda c: c.accept("a00000001", staleness=2, duplicate=True), Accepted(Name("a00000001"), 2, True)),
        (
            lambda c: c.reject("a00000001", "stale", "too old"),
            Rejected(Name("a00000001"), Name("stale"), "too old"),
        ),
        (lambda c: c.announce(Announce(4, {"loss": 0.5})), Announce(4, {"loss": 0.5})),
        (
            lambda c: c.announce(MergedMessage(Name("a00000001"), 4, 1, 0.5)),
            MergedMessage(Name("a00000001"), 4, 1, 0.5),
        ),
        (lambda c: c.announce(Finished(4, "done", {})), Finished(4, "done", {})),
    ],
)
def test_what_the_coordinator_says_is_heard_as_it_was_said(say: Any, heard: Any) -> None:
    device, coordinator = make()
    handshake(device, coordinator, SECRET)
    say(coordinator)
    (frame,) = coordinator.frames_to_send()
    assert device.receive(frame, 0.0) == [heard]


@pytest.mark.parametrize(
    ("say", "heard"),
    [
        (lambda d: d.ready(READY), READY),
        (
            lambda d: d.decline("a00000001", "data", "no\tsamples"),
            Decline(Name("a00000001"), Name("data"), "no samples"),
        ),
        (
            lambda d: d.evaluated("e00000001", 7, {"loss": 0.5}),
            Evaluated(Name("e00000001"), 7, {"loss": 0.5}),
        ),
        (lambda d: d.offer("a00000001", REF, {"samples": 1}), Offer(Name("a00000001"), REF, {"samples": 1})),
    ],
)
def test_what_the_device_says_is_heard_as_it_was_said(say: Any, heard: Any) -> None:
    device, coordinator = make()
    handshake(device, coordinator, SECRET)
    say(device)
    (frame,) = device.frames_to_send()
    assert coordinator.receive(frame, 0.0) == [heard]


def test_nothing_is_announced_to_a_device_that_is_not_in_yet() -> None:
    _, coordinator = make()
    coordinator.announce(Announce(4, {}))
    assert not coordinator.waiting_frames
    assert coordinator.frames_to_send() == []


def test_frames_are_handed_over_once_and_told_of_before() -> None:
    device, _ = make()
    assert len(device.waiting_frames) == 1
    assert len(device.frames_to_send()) == 1
    assert not device.waiting_frames
    assert device.frames_to_send() == []


def test_an_answer_stands_for_the_acknowledgement_of_what_followed_its_offer() -> None:
    """The device may offer the next update at once: nothing of the last one is on its way any more."""
    device, coordinator = make()
    handshake(device, coordinator, SECRET)
    content = memoryview(b"0123456789")
    for number in range(20):  # more than may be on their way at once
        ref = ArtifactRef(Sha256(f"{number:064x}"), len(content))
        device.offer(f"a{number:08d}", ref, {}, content)
        for frame in device.frames_to_send():
            coordinator.receive(frame, 0.0)
        coordinator.accept(f"a{number:08d}", staleness=0, duplicate=False)
        for frame in coordinator.frames_to_send():
            device.receive(frame, 0.0)


def test_messages_do_not_change_once_they_are_made() -> None:
    for message in (ASSIGN, EVALUATE, READY, Later(1.0, ""), Proof(Hex("00")), Welcome(Hex("00"), 1)):
        field = dataclasses.fields(message)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(message, field, None)


def test_eight_artifacts_are_sent_at_once_and_one_of_them_may_begin_anew() -> None:
    device, coordinator = make()
    handshake(device, coordinator, SECRET)
    names = [f"{number:064x}" for number in range(9)]
    for name in names[:8]:
        coordinator.send_artifact(name, memoryview(SHORT), 0, 0.0)
    with pytest.raises(ProtocolError, match="more than 8 artifacts were asked for at once"):
        coordinator.send_artifact(names[8], memoryview(SHORT), 0, 0.0)
    coordinator.send_artifact(names[0], memoryview(SHORT), 5, 0.0)


def test_nothing_is_short_before_it_has_a_byte_or_beyond_a_chunk() -> None:
    device, _ = make()
    assert [device.is_short(size) for size in (0, 1, 16_384, 16_385)] == [False, True, True, False]


def test_there_is_nothing_to_fetch_from_the_end_on() -> None:
    device, coordinator = make()
    handshake(device, coordinator, SECRET)
    device.fetch(SHORT_REF, len(SHORT) - 1)
    with pytest.raises(ValueError, match=f"from offset {len(SHORT)} of {len(SHORT)}"):
        device.fetch(SHORT_REF, len(SHORT))
