"""
A connection's state, without I/O: the part that both sides share.

A session is fed with frames and the time, and gives back *events* for its owner and *frames* to send
(:meth:`Session.frames_to_send`). It knows nothing of sockets, files or the clock, so the coordinator, the
SDK, the simulator and the tests drive the same object. Which control message is allowed when is decided
in :mod:`~mobile_sdk.protocol.device_session` and :mod:`~mobile_sdk.protocol.coordinator_session`; this module
moves artifacts, which is the same in both directions.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Sequence

from ..errors import ProtocolError
from .decoding import decode
from .encoding import encode
from .frames import MAX_CHUNK_BYTES, Chunk
from .messages import Ack as AckMessage
from .messages import ArtifactRef, Error, Fetch, Message, Name, Sha256
from .texts import printable
from .transfer import MIN_CHUNK_BYTES, Incoming, Outgoing

__all__ = ["Event", "FetchRequested", "PeerError", "Received", "SendProgress", "Session", "State"]

# More transfers at once than a well-behaved peer ever has.
MAX_TRANSFERS = 8


class State(enum.Enum):
    """Where a session stands."""

    GREETING = enum.auto()
    PROVING = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


@dataclasses.dataclass(frozen=True)
class FetchRequested:
    """The peer wants an artifact; answer with :meth:`Session.send_artifact`, or :meth:`Session.fail`."""

    sha256: str
    offset: int


@dataclasses.dataclass(frozen=True)
class Received:
    """A chunk came; write it down, then call :meth:`Session.acknowledge`. ``last`` ends the artifact."""

    chunk: Chunk
    last: bool


@dataclasses.dataclass(frozen=True)
class SendProgress:
    """The peer holds ``sent`` of ``size`` bytes of an artifact."""

    sha256: str
    sent: int
    size: int


@dataclasses.dataclass(frozen=True)
class PeerError:
    """The peer said that something is wrong, and closes the connection."""

    code: str
    message: str


Event = FetchRequested | Received | SendProgress | PeerError | Message


class Session(abc.ABC):
    """
    Both sides' half: decoding, state and artifact transfers.

    ``largest_chunk`` is what this side puts into a frame at the most.
    """

    largest_chunk = MAX_CHUNK_BYTES

    def __init__(self) -> None:
        self.state = State.GREETING
        self._to_send: list[str | bytes] = []
        self._outgoing: dict[str, Outgoing] = {}
        self._incoming: dict[str, Incoming] = {}
        self._chunk_bytes = MIN_CHUNK_BYTES  # what the last artifact's acknowledgements made of it

    # What goes in.

    def receive(self, frame: str | bytes, now: float) -> list[Event]:
        """
        Take one frame from the peer.

        Args:
            frame: text for a control message, bytes for a chunk.
            now: a monotonic time in seconds.

        Raises:
            ProtocolError: if the frame is malformed or not allowed now. The owner then calls
                :meth:`fail`, sends what there is to send and closes.

        """
        if self.state is State.CLOSED:
            raise ProtocolError("a frame came after the session was closed")
        if isinstance(frame, bytes):
            return self._chunk(Chunk.from_bytes(frame))
        message = decode(frame)
        if isinstance(message, Error):
            self.state = State.CLOSED
            return [PeerError(message.code, message.message)]
        if isinstance(message, Fetch):
            self._require_open(message)
            return [FetchRequested(message.sha256, message.offset)]
        if isinstance(message, AckMessage):
            self._require_open(message)
            return [self._acknowledged(message, now)]
        return self._message(message)

    # What comes out.

    @property
    def waiting_frames(self) -> Sequence[str | bytes]:
        """The frames to send now, in order; to be looked at."""
        return self._to_send

    def frames_to_send(self) -> list[str | bytes]:
        """The frames to send now, in order; they are handed over once."""
        frames, self._to_send = self._to_send, []
        return frames

    def fail(self, code: str, message: str) -> None:
        """Tell the peer what is wrong; nothing more is accepted afterwards."""
        if self.state is not State.CLOSED:
            self._send(Error(Name(code), printable(message)))
            self.state = State.CLOSED

    # Artifacts.

    def fetch(self, ref: ArtifactRef, offset: int) -> None:
        """
        Ask for ``ref`` from ``offset`` on; :class:`Received` events follow.

        Raises:
            ValueError: if the artifact has no byte at ``offset``.

        """
        if offset >= ref.size:
            raise ValueError(f"nothing to fetch of {ref.sha256} from offset {offset} of {ref.size}")
        self._incoming[ref.sha256] = Incoming(ref.sha256, ref.size, offset)
        self._send(Fetch(ref.sha256, offset))

    def acknowledge(self, sha256: str, offset: int) -> None:
        """The first ``offset`` bytes are written down."""
        self._send(AckMessage(Sha256(sha256), offset))

    def send_artifact(self, sha256: str, content: memoryview, offset: int, now: float) -> None:
        """
        Send ``content`` from ``offset`` on, as the peer's acknowledgements allow.

        Args:
            sha256: the artifact's name.
            content: all of it.
            offset: the first byte to send.
            now: monotonic seconds, to size chunks by the link's speed.

        Raises:
            ProtocolError: if the peer asks for more artifacts at once than is sensible, or beyond the end.

        """
        if len(self._outgoing) >= MAX_TRANSFERS and sha256 not in self._outgoing:
            raise ProtocolError(f"more than {MAX_TRANSFERS} artifacts were asked for at once")
        outgoing = Outgoing(sha256, content, offset, self._chunk_bytes, self.largest_chunk)
        self._outgoing[sha256] = outgoing
        self._pump(outgoing, now)

    def is_short(self, size: int) -> bool:
        """Whether ``size`` bytes are one chunk on this link, as far as it is known."""
        return 0 < size <= self._chunk_bytes

    def _delivered(self) -> None:
        """The peer has all that was sent: its answer stands for the acknowledgement of the last chunk."""
        self._outgoing.clear()

    def _chunk(self, chunk: Chunk) -> list[Event]:
        incoming = self._incoming.get(chunk.sha256)
        if incoming is None:
            raise ProtocolError(f"a chunk of {chunk.sha256} came, which was not asked for")
        incoming.receive(chunk)
        if incoming.done:
            del self._incoming[chunk.sha256]
        return [Received(chunk, incoming.done)]

    def _acknowledged(self, message: AckMessage, now: float) -> SendProgress:
        outgoing = self._outgoing.get(message.sha256)
        if outgoing is None:
            raise ProtocolError(f"{message.sha256} was acknowledged, but is not being sent")
        outgoing.acknowledge(message.offset, now)
        self._chunk_bytes = outgoing.chunk_bytes
        if outgoing.done:
            del self._outgoing[message.sha256]
        else:
            self._pump(outgoing, now)
        return SendProgress(message.sha256, outgoing.acknowledged, outgoing.size)

    def _pump(self, outgoing: Outgoing, now: float) -> None:
        self._to_send.extend(chunk.to_bytes() for chunk in outgoing.chunks(now))

    # For the two sides.

    @abc.abstractmethod
    def _message(self, message: Message) -> list[Event]:
        """Check that a control message is allowed now, and act on it."""

    def _send(self, message: Message) -> None:
        if self.state is not State.CLOSED:
            self._to_send.append(encode(message))

    def _require_open(self, message: Message) -> None:
        if self.state is not State.OPEN:
            raise self._unexpected(message)

    def _unexpected(self, message: Message) -> ProtocolError:
        return ProtocolError(f"{type(message).__name__.lower()} is not allowed while {self.state.name.lower()}")
