"""A small disk for the state directory, which can be full for a while."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from pathlib import Path

__all__ = ["SmallDisk"]


class SmallDisk:
    """
    A tmpfs of a few megabytes where this process may mount one, filled by a file of ballast.

    Where it may not, a stand-in: the coordinator's files may not grow beyond their present sizes for a while
    (``RLIMIT_FSIZE``), so that its writes fail with EFBIG instead of ENOSPC.

    Args:
        folder: where it is mounted; made if missing.
        megabytes: its size.
        mount: whether to try; if not, it is the stand-in.

    """

    def __init__(self, folder: Path, megabytes: int, *, mount: bool = True) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(folder)]
        try:
            self.mounted = mount and subprocess.run(command, check=False, capture_output=True).returncode == 0
        except OSError:
            self.mounted = False
        self._ballast = folder / "ballast"

    @property
    def kind(self) -> str:
        """What it is, for people."""
        return "a tmpfs" if self.mounted else "a folder, with RLIMIT_FSIZE for a full disk (no tmpfs is mounted)"

    def fill(self, pid: int) -> None:
        """Leave no room; ``pid`` is the coordinator's."""
        if not self.mounted:
            with contextlib.suppress(ProcessLookupError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))
            return
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while file.write(b"\1" * 65_536) == 65_536:
                pass

    def free(self, pid: int) -> None:
        """Give the room back."""
        if not self.mounted:
            with contextlib.suppress(ProcessLookupError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
            return
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it."""
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=False, capture_output=True)
