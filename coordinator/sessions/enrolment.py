"""How a device is let in: hello, enrolment where it is new, challenge, proof."""

from __future__ import annotations

import hashlib
import hmac

from mobile_sdk.errors import Refused
from mobile_sdk.protocol.auth import SECRET_BYTES
from mobile_sdk.protocol.coordinator_session import CoordinatorSession
from mobile_sdk.protocol.messages import Enrol, Hello, Proof

from .access import ChallengeKey, RunAccess

__all__ = ["Enrolment"]


class Enrolment:
    """
    The handshake of one connection.

    Args:
        run: what all connections share.
        session: the device's, to answer it.
        key: the run's, as ``session`` shows it.

    """

    def __init__(self, run: RunAccess, session: CoordinatorSession, key: ChallengeKey) -> None:
        self._run = run
        self._key = key
        self._session = session
        self._asked: Enrol | None = None

    async def greeted(self, message: Hello) -> None:
        """Challenge the device that said hello, whether or not it has enrolled."""
        secret, _ = await self._look_up()
        self._session.challenge(secret, await self._key.sign_challenge(self._session.challenge_bytes))

    async def _look_up(self) -> tuple[bytes | None, bool]:
        """The device's secret, and whether it was revoked: as of now, with no operation on devices in between."""
        run, device = self._run, self._session.device

        def read() -> tuple[bytes | None, bool]:
            record = run.store.devices.find(device)
            return run.store.devices.secret(device), record is not None and record.revoked_at is not None

        while True:
            seen = run.membership
            found: tuple[bytes | None, bool] = await run.offload(read)
            if seen == run.membership:
                return found

    def enrol(self, message: Enrol) -> None:
        """
        A device says its secret; it is written down when the device has proved that it knows it.

        Raises:
            Refused: ``enrolment`` if the secret cannot be one.

        """
        size = len(bytes.fromhex(message.secret))
        if size != SECRET_BYTES:
            raise Refused("enrolment", f"a device's secret has {SECRET_BYTES} bytes, not {size}")
        self._asked = message

    async def _write_down(self, secret: bytes, given: str) -> None:
        """
        A new device has proved the ``secret`` that it said; ``given`` is its token.

        Raises:
            Refused: ``enrolment`` if the token or the name cannot be used, ``revoked`` if the operator has revoked a
                device of this name.

        """
        device, run, token = self._session.device, self._run, self._token(given.encode())
        match await run.offload(lambda: run.store.devices.enrol(device, secret, run.clock.wall(), token=token)):
            case "taken":
                raise Refused(
                    "enrolment",
                    f"the name {device} is taken by another device: if its app was installed anew, give it another "
                    f"name, or let the operator free this one with `ftte devices withdraw {device}`",
                )
            case "token":
                raise Refused(
                    "enrolment", "the enrolment token is wrong, used up, or has run out: ask the operator for a new one"
                )
            case "revoked":
                raise Refused("revoked", "the operator has revoked this device")
        run.withdrawn.discard(device)

    def _token(self, given: bytes) -> str | None:
        """SHA-256 (hex) of the token as the store knows it; :obj:`None` where the device needs none of those."""
        server = self._run.config.server
        if server.token and hmac.compare_digest(server.token.encode(), given):
            return None
        if not server.needs_token and not given:
            return None
        return hashlib.sha256(given).hexdigest()  # one that `ftte invite` made; only its hash is kept

    async def prove(self, message: Proof) -> str:
        """
        Check the device's proof, write it down if it is new, and welcome it.

        Returns:
            Its name. Nothing is awaited between the last look at the store and the return: the caller registers the
            connection at once, so that an operation on the device that comes later finds it.

        Raises:
            Refused: ``auth`` if the proof is wrong, ``revoked`` if the operator has revoked the device, ``enrolment``
                if it is new, and its token or name cannot be used.

        """
        device = self._session.device
        if self._asked is not None:
            # A link may have garbled the secret. Were it written down unproved, the device could never prove it again,
            # and nobody could have its name.
            secret = bytes.fromhex(self._asked.secret)
            self._session.enrolled(secret)
            if not self._session.is_proved(message):
                raise self._not_proved()
            await self._write_down(secret, self._asked.token)
        # Between the challenge and the proof an operator may have revoked or withdrawn the device.
        known, revoked = await self._look_up()
        self._session.enrolled(known)
        if not self._session.prove(message, self._run.versions.newest.version):
            raise self._not_proved()
        if revoked:  # said to the device itself only, and after the welcome, which proves who says it
            raise Refused("revoked", "the operator has revoked this device")
        return device

    def _not_proved(self) -> Refused:
        device = self._session.device
        return Refused("auth", f"{device} could not prove that it is the device that enrolled: it may enrol again")
