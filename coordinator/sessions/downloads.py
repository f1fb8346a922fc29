"""What a device may fetch: the files of its assignment, and shorter ways to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mobile_sdk.durable_files import map_file
from mobile_sdk.errors import Refused
from mobile_sdk.protocol.coordinator_session import CoordinatorSession
from mobile_sdk.protocol.messages import ArtifactRef, Assign, Difference, Evaluate
from mobile_sdk.protocol.session import FetchRequested, SendProgress

from ..errors import StoreError
from ..status import DeviceStatus
from ..store.artifacts import disk_available
from .access import RunAccess

__all__ = ["Downloads"]


class Downloads:
    """
    The downloads of one connection's device.

    Args:
        run: what all connections share.
        session: the device's; the files are sent through it.
        status: what is shown of the device.
        now: a monotonic time in seconds.
        check_quota: raises :exc:`OverQuota` if the device of this name has moved as many bytes as it may.

    ``holds`` are the hashes (hex) of the files that the device says it has.
    """

    def __init__(
        self,
        run: RunAccess,
        session: CoordinatorSession,
        status: DeviceStatus,
        now: Callable[[], float],
        check_quota: Callable[[str], None] = lambda device: None,
    ) -> None:
        self._check_quota = check_quota
        self.holds: Sequence[str] = ()
        self._run = run
        self._session = session
        self._status = status
        self._now = now
        self._allowed: dict[str, int] = {}  # hashes of files, and the version that they are of
        self._sending: set[str] = set()
        self._differences: dict[str, bytes] = {}

    async def allow(self, message: Assign | Evaluate) -> tuple[Difference, ...]:
        """
        Let the device fetch the files of ``message`` from now on, and nothing else.

        Returns:
            Shorter ways to its weights, from the files that the device holds; they may be fetched as well.

        """
        found: Mapping[Difference, bytes] = {}
        if self._run.config.payload.differences:
            found = await self._run.downlink.find(self.holds, message.weights, self._run.offload)
        return self._allow(message, found)

    def allow_at_once(self, message: Assign | Evaluate) -> tuple[Difference, ...] | None:
        """As :meth:`allow`, if the shorter ways are known already; else nothing changes, and there is no answer."""
        found: Mapping[Difference, bytes] | None = {}
        if self._run.config.payload.differences:
            found = self._run.downlink.known(self.holds, message.weights)
        return None if found is None else self._allow(message, found)

    def expect(self, weights: Sequence[ArtifactRef]) -> None:
        """The device is about to get work on these files: begin to look for shorter ways to them."""
        if self._run.config.payload.differences:
            self._run.downlink.seek(self.holds, weights, self._run.offload)

    def _allow(self, message: Assign | Evaluate, ways: Mapping[Difference, bytes]) -> tuple[Difference, ...]:
        self._differences = {way.artifact.sha256: content for way, content in ways.items()}
        files = [ref.sha256 for ref in (message.manifest, message.program, *message.weights)]
        self._allowed = dict.fromkeys((*files, *self._differences), message.version)
        self._sending.clear()
        return tuple(ways)

    async def send(self, event: FetchRequested) -> None:
        """
        Begin to send a file.

        Raises:
            OverQuota: if the device has moved as many bytes as it may.
            Refused: ``unknown-artifact`` if it is not one that the device may fetch; ``unavailable`` if its version
                was pruned meanwhile: the device comes again and gets a newer one.
            ProtocolError: if the offset lies beyond its end, or too many are asked for at once.
            StoreError: if the file is gone, though a version needs it.

        """
        if event.sha256 not in self._allowed:
            raise Refused("unknown-artifact", f"{event.sha256} is not part of this device's assignment")
        self._check_quota(self._status.id)
        self._sending.add(event.sha256)
        self._status.state = "downloading"
        if (difference := self._differences.get(event.sha256)) is not None:
            content = memoryview(difference)
        else:
            version = self._allowed[event.sha256]
            content = await self._run.offload(self._open, event.sha256, version)
        self._session.send_artifact(event.sha256, content, event.offset, self._now())

    def _open(self, sha256: str, version: int) -> memoryview:
        store = self._run.store
        try:
            with disk_available():
                return map_file(store.artifacts.path(sha256))
        except StoreError:
            if store.versions.get(version).pruned:
                words = f"version {version} was removed while it was on its way: come again"
                raise Refused("unavailable", words) from None
            raise

    def progressed(self, event: SendProgress) -> None:
        """The device has acknowledged part of a file; with the last byte of the last file it begins to train."""
        if event.sent < event.size:
            return
        self._sending.discard(event.sha256)
        if not self._sending and self._status.state == "downloading":
            self._status.state = "training"
            self._status.trip.finish_download(self._now())
