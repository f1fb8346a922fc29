"""
Updates on their way up: what has come so far, so that a broken upload goes on where it stopped.

These files are not durable on purpose: nothing is acknowledged on their strength.
"""

from __future__ import annotations

from pathlib import Path

from mobile_sdk.protocol.messages import ArtifactRef

__all__ = ["Uploads"]


class Uploads:
    """
    At most one partial upload per device.

    Args:
        folder: where parts are kept; created if missing.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def size(self, device: str, ref: ArtifactRef) -> int:
        """How much of ``ref`` has come; other parts of this device are thrown away."""
        wanted = self._path(device, ref.sha256)
        for path in self._folder.glob(f"{device}@*"):
            if path != wanted:
                path.unlink()
        size = wanted.stat().st_size if wanted.exists() else 0
        if size > ref.size:
            wanted.unlink()
            return 0
        return size

    def append(self, device: str, sha256: str, offset: int, data: bytes) -> None:
        """Write a chunk at ``offset``, the end of what has come."""
        with self._path(device, sha256).open("ab") as file:
            file.truncate(offset)
            file.write(data)

    def content(self, device: str, sha256: str) -> bytes:
        """All that has come."""
        return self._path(device, sha256).read_bytes()

    def drop(self, device: str, sha256: str) -> None:
        """Forget an upload."""
        self._path(device, sha256).unlink(missing_ok=True)

    def _path(self, device: str, sha256: str) -> Path:
        # '@' cannot be part of a device's name.
        return self._folder / f"{device}@{sha256}"
