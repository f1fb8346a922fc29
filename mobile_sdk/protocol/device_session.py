"""The device's side of a connection, without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from ..errors import ProtocolError, Unproven
from ..version import __version__
from . import auth, trust
from .messages import (
    PROTOCOL_VERSION,
    Accepted,
    Announce,
    ArtifactRef,
    Assign,
    Challenge,
    Decline,
    Enrol,
    Evaluate,
    Evaluated,
    Finished,
    Hello,
    Hex,
    Later,
    MergedMessage,
    Message,
    Name,
    Offer,
    Proof,
    Ready,
    Rejected,
    Wait,
    Welcome,
)
from .session import Event, Session, State
from .texts import printable

__all__ = ["DeviceSession"]


class DeviceSession(Session):
    """
    Greets, proves who it is, and then passes control messages on as events.

    ``key`` is the run's newest key once the coordinator has been heard.

    Args:
        run: name of the run to join.
        device: this device's name.
        secret: the device's own secret; sent once, with ``token``, if the coordinator does not know it.
        token: what the operator gave out for enrolling; empty where enrolment is open.
        key: the run's public key (hex) that this device pins; a key that it signed may have followed it.
        enrolled: whether this device has been let in before; it then does not send its secret again.

    """

    def __init__(self, *, run: str, device: str, secret: bytes, token: str, key: str, enrolled: bool = False) -> None:
        super().__init__()
        self._run = run
        self._device = device
        self._secret = secret
        self._token = token
        self.key = key
        self._enrolled = enrolled
        self._nonce = auth.new_nonce()
        self._peer_nonce = ""
        self._signature = ""
        self._welcome = False
        self._send(Hello(PROTOCOL_VERSION, __version__, Name(run), Name(device), Hex(self._nonce)))

    @cached_property
    def _has_signed(self) -> bool:
        """Whether the challenge was signed with the run's key; costs milliseconds."""
        signed = trust.challenge_bytes(self._run, self._device, self._nonce, self._peer_nonce)
        return trust.verify_signature(self.key, signed, self._signature)

    @property
    def proven(self) -> bool:
        """Whether the other side has proved to be the run's coordinator."""
        return self._welcome or (self._peer_nonce != "" and self._has_signed)

    def ready(self, message: Ready) -> None:
        """Ask for work."""
        self._send(message)

    def decline(self, assignment: str, code: str, message: str) -> None:
        """
        Give an assignment back.

        Args:
            assignment: or the evaluation, that is given back.
            code: one of the codes in ``docs/reference/protocol.md``.
            message: the reason, for people.

        """
        self._send(Decline(Name(assignment), Name(code), printable(message)))

    def evaluated(self, evaluation: str, samples: int, metrics: Mapping[str, float]) -> None:
        """
        Answer an evaluation.

        Args:
            evaluation: its name.
            samples: how many the device has.
            metrics: means over them, by name.

        """
        self._send(Evaluated(Name(evaluation), samples, metrics))

    def offer(
        self,
        assignment: str,
        artifact: ArtifactRef,
        report: Mapping[str, Any],
        content: memoryview | None = None,
        now: float = 0.0,
    ) -> None:
        """
        Offer an update; the coordinator fetches it, or says at once that it has it or will not take it.

        Args:
            assignment: which one it answers.
            artifact: what is offered.
            report: counts and metrics.
            content: its bytes, to be sent right behind without being asked for; only what :meth:`is_short`.
            now: a monotonic time in seconds.

        """
        self._send(Offer(Name(assignment), artifact, report, content is not None))
        if content is not None:
            self.send_artifact(artifact.sha256, content, 0, now)

    def _message(self, message: Message) -> list[Event]:
        match message, self.state:
            case Challenge(), State.GREETING:
                return self._challenged(message)
            case Welcome(), State.PROVING:
                return self._welcomed(message)
            case (
                (Assign() | Evaluate() | Announce() | MergedMessage() | Wait() | Finished()),
                State.OPEN,
            ):
                return [message]
            case ((Accepted() | Rejected()), State.OPEN):
                self._delivered()
                return [message]
            case Later(), _:
                return [message]
            case _:
                raise self._unexpected(message)

    def _challenged(self, message: Challenge) -> list[Event]:
        if not trust.succeeds(self._run, self.key, message.key, message.succession):
            raise Unproven(
                "key", f"the coordinator's key is {message.key}, but {self.key} is pinned: check address and key"
            )
        self.key = message.key
        self._peer_nonce, self._signature = message.nonce, message.signature
        if not self._enrolled:
            # Whoever cannot sign with the run's key is not told the secret.
            if not self._has_signed:
                raise Unproven("key", "the coordinator could not prove that it holds the run's key: check the address")
            self._send(Enrol(self._token, Hex(self._secret.hex())))
        self._send(Proof(Hex(auth.device_mac(self._secret, self._run, self._device, self._nonce, self._peer_nonce))))
        self.state = State.PROVING
        return []

    def _welcomed(self, message: Welcome) -> list[Event]:
        expected = auth.coordinator_mac(self._secret, self._run, self._device, self._nonce, self._peer_nonce)
        if not auth.matches(expected, message.mac):
            raise ProtocolError("the coordinator could not prove that it knows this device")
        self._welcome = True
        self.state = State.OPEN
        return [message]
