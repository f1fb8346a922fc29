"""
Updates on their way up: what has come so far, so that a broken upload goes on where it stopped.

Chunks are kept in memory. They are written to a file when the connection is lost, and now and then on a link so slow
that a restart of the coordinator would cost the device much. Nothing here is durable, on purpose: nothing is
acknowledged on its strength.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from mobile_sdk.protocol.messages import ArtifactRef

__all__ = ["Upload", "Uploads"]

# What a restart of the coordinator may cost a device, at the most, in seconds of sending.
SPOOL_SECONDS = 5.0

Bytes = bytes | memoryview


class Upload:
    """
    One update on its way.

    Args:
        path: where it is written when the connection is lost.
        ref: what is coming.
        size: bytes that are in the file already.
        now: a monotonic time in seconds.

    """

    def __init__(self, path: Path, ref: ArtifactRef, size: int, now: float) -> None:
        self.ref = ref
        self.resumed = size > 0
        self.size = size
        self._path = path
        self._in_file = size
        self._chunks: list[Bytes] = []
        self._spooled_at = now

    def append(self, data: Bytes) -> None:
        """Take the next chunk."""
        self._chunks.append(data)
        self.size += len(data)

    def should_spool(self, now: float) -> bool:
        """Whether it has gone on for so long that it should be written to the file."""
        return now - self._spooled_at > SPOOL_SECONDS and self.size < self.ref.size

    def spool(self, now: float) -> None:
        """Write what is in memory to the file. Blocks."""
        self._spooled_at = now
        if self._chunks:
            with self._path.open("ab") as file:
                file.truncate(self._in_file)
                file.writelines(self._chunks)
            self._in_file = self.size
            self._chunks.clear()

    def content(self) -> Bytes:
        """All that has come. Blocks if part of it is in the file."""
        head = [self._path.read_bytes()[: self._in_file]] if self._in_file else []
        parts = [*head, *self._chunks]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def drop(self) -> None:
        """Forget it. Blocks if part of it is in the file."""
        self._chunks.clear()
        if self._in_file:
            self._path.unlink(missing_ok=True)
        self.size = self._in_file = 0
        self.resumed = False


class Uploads:
    """
    At most one partial upload per device.

    Args:
        folder: where parts are kept; created if missing.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._parts = {path.name.split("@")[0]: path for path in folder.iterdir()}

    def begin(self, device: str, ref: ArtifactRef, now: float) -> Upload:
        """An upload of ``ref``, with what has come of it before; other parts of this device are thrown away."""
        # '@' cannot be part of a device's name.
        wanted = self._folder / f"{device}@{ref.sha256}"
        other = self._parts.get(device)
        if other is not None and other != wanted:
            other.unlink(missing_ok=True)
        self._parts[device] = wanted
        size = 0
        with contextlib.suppress(FileNotFoundError):
            size = wanted.stat().st_size
        if size > ref.size:
            wanted.unlink()
            size = 0
        return Upload(wanted, ref, size, now)

    def forget(self, device: str) -> None:
        """The device has no upload any more, and none is to be left of it."""
        other = self._parts.pop(device, None)
        if other is not None:
            other.unlink(missing_ok=True)
