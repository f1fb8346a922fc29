"""The coordinator's side of a connection, without I/O."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ProtocolError
from . import auth, trust
from .frames import MAX_CHUNK_BYTES, Chunk
from .messages import (
    PROTOCOL_VERSION,
    Accepted,
    Announce,
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
    Succession,
    Wait,
    Welcome,
)
from .session import Event, Session, State
from .texts import printable
from .transfer import Incoming

__all__ = ["CoordinatorSession"]


class CoordinatorSession(Session):
    """
    Challenges a device and then passes its control messages on as events.

    The owner answers the events in the order they come: :class:`Hello` with :meth:`challenge` and a signature of
    :attr:`challenge_bytes`,
    :class:`Enrol` with :meth:`enrolled` (or :meth:`~Session.fail`), :class:`Proof` with :meth:`prove`.

    Args:
        run: the run's name.
        key: its public key, hex.
        succession: how the run's earlier keys lead to ``key``, oldest first.

    """

    # Several are on their way at once, and a device that can spare two megabytes for training has to hold them.
    largest_chunk = 2**17

    def __init__(self, *, run: str, key: str, succession: Sequence[Succession] = ()) -> None:
        super().__init__()
        self.device = ""
        self._run = run
        self._key = key
        self._succession = tuple(succession)
        self._nonce = auth.new_nonce()
        self._peer_nonce = ""
        self._secret: bytes | None = None
        self._unwanted: str | None = None  # what follows an offer that is answered already

    @property
    def challenge_bytes(self) -> bytes:
        """What the run's key has to sign for the device that said hello."""
        return trust.challenge_bytes(self._run, self.device, self._peer_nonce, self._nonce)

    def challenge(self, secret: bytes | None, signature: str) -> None:
        """
        Challenge the device that said hello.

        Args:
            secret: the device's; :obj:`None` if it has not enrolled.
            signature: of :attr:`challenge_bytes` with the run's key, hex.

        """
        self._secret = secret
        self._send(
            Challenge(
                PROTOCOL_VERSION,
                Hex(self._nonce),
                Hex(self._key),
                Hex(signature),
                self._succession,
            )
        )
        self.state = State.PROVING

    def enrolled(self, secret: bytes | None) -> None:
        """What is known of the device now: the secret that it said, or that it is no device of the run any more."""
        self._secret = secret

    def is_proved(self, message: Proof) -> bool:
        """Whether the device knows the secret that is known of it."""
        if self._secret is None:
            return False
        return auth.matches(auth.device_mac(self._secret, *self._parts), message.mac)

    def prove(self, message: Proof, version: int) -> bool:
        """Check the device's proof and welcome it; ``version`` is the newest one. False if the proof is wrong."""
        if self._secret is None or not self.is_proved(message):
            return False
        self._send(Welcome(Hex(auth.coordinator_mac(self._secret, *self._parts)), version))
        self.state = State.OPEN
        return True

    @property
    def _parts(self) -> tuple[str, str, str, str]:
        return self._run, self.device, self._peer_nonce, self._nonce

    def assign(self, message: Assign) -> None:
        """Give the device work."""
        self._send(message)

    def evaluate(self, message: Evaluate) -> None:
        """Ask the device for metrics on its own samples."""
        self._send(message)

    def later(self, seconds: float, reason: str) -> None:
        """There is no work for the device now; it leaves and comes back."""
        self._send(Later(seconds, printable(reason)))

    def wait(self, reason: str) -> None:
        """The device's work, or the answer to its offer, needs something first; it stays connected."""
        if self.state is State.OPEN:
            self._send(Wait(printable(reason)))

    def accept(self, assignment: str, *, staleness: int, duplicate: bool) -> None:
        """
        The update is written down.

        Args:
            assignment: whose update it is.
            staleness: versions merged since the one that it started from.
            duplicate: it had been accepted before.

        """
        self._answered()
        self._send(Accepted(Name(assignment), staleness, duplicate))

    def reject(self, assignment: str, code: str, message: str) -> None:
        """
        The update will never be merged.

        Args:
            assignment: whose update it is.
            code: one of the codes in ``docs/reference/protocol.md``.
            message: the reason, for people.

        """
        self._answered()
        self._send(Rejected(Name(assignment), Name(code), printable(message)))

    def announce(self, message: Announce | MergedMessage | Finished) -> None:
        """Tell of a new version, of an update's fate, or of the end."""
        if self.state is State.OPEN:
            self._send(message)

    def _message(self, message: Message) -> list[Event]:
        match self.state, message:
            case State.OPEN, Offer():
                return self._offered(message)
            case State.OPEN, (Ready() | Decline() | Evaluated()):
                return [message]
            case State.GREETING, Hello():
                return self._greeted(message)
            case State.PROVING, (Enrol() | Proof()):
                return [message]
            case _:
                raise self._unexpected(message)

    def _offered(self, message: Offer) -> list[Event]:
        ref = message.artifact
        if self._incoming:
            raise ProtocolError("an update was offered while another is on its way")
        self._unwanted = None
        if message.follows:
            if not 0 < ref.size <= MAX_CHUNK_BYTES:
                raise ProtocolError(
                    f"an update of {ref.size} bytes follows its offer; no more than {MAX_CHUNK_BYTES} may"
                )
            self._incoming[ref.sha256] = Incoming(ref.sha256, ref.size, 0)
        return [message]

    def _answered(self) -> None:
        """What is still on its way of an update that was answered is of no use."""
        self._unwanted = next(iter(self._incoming), None)

    def _chunk(self, chunk: Chunk) -> list[Event]:
        events = super()._chunk(chunk)
        return [] if chunk.sha256 == self._unwanted else events

    def _greeted(self, message: Hello) -> list[Event]:
        if message.run != self._run:
            raise ProtocolError(f"this coordinator serves the run {self._run!r}, not {message.run!r}")
        if len(message.nonce) != 2 * auth.NONCE_BYTES:
            raise ProtocolError(f"hello.nonce must have {auth.NONCE_BYTES} bytes")
        self.device = message.device
        self._peer_nonce = message.nonce
        return [message]
