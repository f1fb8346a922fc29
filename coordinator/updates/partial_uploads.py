"""
Updates on their way up: what has come so far, so that a broken upload goes on where it stopped.

Chunks are kept in memory. They are written to a file when the connection is lost, now and then on a link so slow
that a restart of the coordinator would cost the device much, and while more is on its way than memory is there for.
Nothing here is durable, on purpose: nothing is acknowledged on its strength.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from mobile_sdk.protocol.messages import ArtifactRef

from ..store.artifacts import disk_available

__all__ = ["Upload", "Uploads"]

# What a restart of the coordinator may cost a device, at the most, in seconds of sending.
SPOOL_SECONDS = 5.0

# Chunks of all updates together that are kept in memory.
MEMORY_BYTES = 256_000_000

Bytes = bytes | memoryview


class _Memory:
    """Bytes that the chunks of all uploads take."""

    def __init__(self) -> None:
        self.bytes = 0


class Upload:
    """
    One update on its way.

    Args:
        path: gives the file that it is written to when the connection is lost; of most updates nobody asks for it.
        ref: what is coming.
        size: bytes that are in the file already.
        now: a monotonic time in seconds.
        memory: what all uploads take.
        spool_seconds: what a restart may cost the device, in seconds of sending.

    """

    def __init__(
        self,
        path: Callable[[], Path],
        ref: ArtifactRef,
        size: int,
        now: float,
        memory: _Memory,
        spool_seconds: float = SPOOL_SECONDS,
    ) -> None:
        self._spool_seconds = spool_seconds
        self.ref = ref
        self.resumed = size > 0
        self.size = size
        self._path = path
        self._in_file = size
        self._chunks: list[Bytes] = []
        self._spooled_at = now
        self._memory = memory
        self._written = size > 0  # or tried to, which may have left something
        self._forgotten = False
        self._handed_over = False
        self._lock = threading.Lock()

    @property
    def on_disk(self) -> bool:
        """Whether part of it is in the file, or may be."""
        return self._written

    def append(self, data: Bytes) -> None:
        """Take the next chunk."""
        self._chunks.append(data)
        self.size += len(data)
        self._memory.bytes += len(data)

    def should_spool(self, now: float) -> bool:
        """Whether it has gone on for so long, or there is so little memory left, that it should go to the file."""
        slow = now - self._spooled_at > self._spool_seconds and self.size < self.ref.size
        return slow or self._memory.bytes > MEMORY_BYTES

    def spool(self, now: float) -> None:
        """Write what is in memory to the file. Blocks."""
        self._spooled_at = now
        with self._lock:
            if self._chunks and not self._forgotten and not self._handed_over:
                self._written = True
                with disk_available(), self._path().open("ab") as file:
                    file.truncate(self._in_file)
                    file.writelines(self._chunks)
                self._in_file = self.size
                self.release()
                if self._forgotten:  # while it was being written
                    self.drop()

    def hand_over(self) -> tuple[int, list[Bytes]]:
        """
        Another connection goes on with it, or with another update: nothing is written or removed here any more.

        Returns:
            How much of it is in the file, and what came after that.

        """
        with self._lock:
            self._handed_over = True
            chunks = list(self._chunks)
            self.release()
            return self._in_file, chunks

    def content(self) -> Bytes:
        """All that has come. Blocks if part of it is in the file."""
        with disk_available():
            head = [self._path().read_bytes()[: self._in_file]] if self._in_file else []
        parts = [*head, *self._chunks]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def release(self) -> None:
        """Let go of what is in memory."""
        self._memory.bytes -= sum(len(chunk) for chunk in self._chunks)
        self._chunks.clear()

    def forget(self) -> None:
        """Leave nothing of it, not even if it is being written to its file just now. Blocks."""
        self._forgotten = True
        self.drop()

    def drop(self) -> None:
        """Forget it. Blocks if part of it is in the file."""
        self.release()
        if (self._written or self._forgotten) and not self._handed_over:
            with disk_available():
                self._path().unlink(missing_ok=True)
        self.size = self._in_file = 0
        self._written = self.resumed = False


class Uploads:
    """
    At most one partial upload per device.

    Args:
        folder: where parts are kept; created if missing. Several processes may use it: a device is at one at a time.
        spool_seconds: what a restart may cost a device, in seconds of sending; with 0 every chunk that is acknowledged
            outlives the process.

    """

    def __init__(self, folder: Path, spool_seconds: float = SPOOL_SECONDS) -> None:
        self._folder = folder
        self._spool_seconds = spool_seconds
        self._memory = _Memory()
        folder.mkdir(parents=True, exist_ok=True)
        # Of each device the name of a file that may be here: of most updates none ever is.
        self._parts = {path.name.split("@")[0]: path.name for path in folder.iterdir()}
        self._open: dict[str, Upload] = {}

    def begin(self, device: str, ref: ArtifactRef, now: float) -> Upload:
        """
        An upload of ``ref``, with what has come of it before; other parts of this device are thrown away.

        What an older connection has in memory goes on here: the device may be back before that one has noticed its end.

        Args:
            device: its name.
            ref: hash and size of the update.
            now: monotonic seconds.

        """
        # '@' cannot be part of a device's name.
        name = f"{device}@{ref.sha256}"
        before = self._parts.get(device)
        older = self._open.get(device)
        written, chunks = (0, []) if older is None else older.hand_over()
        size = 0
        with disk_available():
            if before is not None and before != name:
                (self._folder / before).unlink(missing_ok=True)
                del self._parts[device]
            if os.access(f"{self._folder}/{name}", os.F_OK):  # of hardly any update
                path = self._part(device, name)
                size = path.stat().st_size
                if size > ref.size or size == 0:  # a disk that failed leaves empty ones
                    path.unlink()
                    size = 0
        path_of = functools.partial(self._part, device, name)
        upload = self._open[device] = Upload(path_of, ref, size, now, self._memory, self._spool_seconds)
        if older is not None and older.ref == ref and written == size:
            for chunk in chunks:
                upload.append(chunk)
            upload.resumed = upload.size > 0
        return upload

    def _part(self, device: str, name: str) -> Path:
        """A file of a device, which may be there from now on."""
        self._parts[device] = name
        return self._folder / name

    def has(self, device: str, sha256: str) -> bool:
        """Whether a part of an upload is in a file here."""
        return self._path(device, sha256).exists()

    def knows(self, device: str, sha256: str) -> bool:
        """Whether a part of an upload was left here; without a look at the disk."""
        return self._parts.get(device) == f"{device}@{sha256}"

    def part(self, device: str, sha256: str, offset: int, most: int) -> tuple[int, bytes]:
        """How many bytes of an upload are in a file here, and ``most`` of them from ``offset`` on. Blocks."""
        with disk_available():
            try:
                with self._path(device, sha256).open("rb") as file:
                    size = file.seek(0, os.SEEK_END)
                    file.seek(min(offset, size))
                    return size, file.read(most)
            except FileNotFoundError:
                return 0, b""

    def put(self, device: str, sha256: str, offset: int, content: Bytes) -> None:
        """Put bytes of an upload into its file, from ``offset`` on: the next upload of it goes on there. Blocks."""
        path = self._path(device, sha256)
        self._parts[device] = path.name
        with disk_available(), path.open("ab") as file:
            file.truncate(offset)
            file.write(content)

    def take(self, device: str) -> tuple[ArtifactRef, bytes] | None:
        """What has come of a device's upload, which is left here no longer; none if nothing has. Blocks."""
        upload = self._open.get(device)
        if upload is None or not upload.on_disk:
            return None
        content = bytes(upload.content())
        self.forget(device)
        return upload.ref, content

    def _path(self, device: str, sha256: str) -> Path:
        # '@' cannot be part of a device's name.
        return self._folder / f"{device}@{sha256}"

    def expire(self, before: float) -> int:
        """Remove parts that nothing was added to since the wall time ``before``; how many. Blocks."""
        gone = 0
        for path in list(self._folder.iterdir()):  # gateways leave theirs here as well
            self._parts.setdefault(path.name.split("@")[0], path.name)
        for device, name in list(self._parts.items()):
            path = self._folder / name
            with disk_available(), contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
                    gone += 1
            if not path.exists() and device not in self._open:
                self._parts.pop(device, None)
        return gone

    def forget(self, device: str) -> None:
        """The device has no upload any more, and none is to be left of it. Blocks."""
        upload = self._open.pop(device, None)
        if upload is not None:
            upload.forget()
        other = self._parts.pop(device, None)
        if other is not None:
            with disk_available():
                (self._folder / other).unlink(missing_ok=True)
        with disk_available():
            for path in self._folder.glob(f"{device}@*"):  # of another process
                path.unlink(missing_ok=True)

    def forget_all_but(self, devices: Collection[str]) -> None:
        """
        Remove the parts of all other devices: nobody waits for their updates. Blocks.

        A process that ended just after it took an update in may have left what it came in.
        """
        for device in set(self._parts).difference(devices):
            self.forget(device)

    @property
    def kept(self) -> set[tuple[str, str]]:
        """Device and SHA-256 of every part that may be in a file."""
        return {(device, name.partition("@")[2]) for device, name in self._parts.items()}

    def accepted(self, device: str, sha256: str) -> None:
        """An update of this hash was taken in before: nothing is to be left of it here. Blocks."""
        if self.knows(device, sha256):
            self.forget(device)
