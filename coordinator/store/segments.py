"""
Accepted updates until they are merged: bytes, one after the other, in segment files.

Many updates cost one sync. Which bytes belong to which update is known to the database alone, so whatever a
crash leaves behind the last committed row is no update. Erasing overwrites; a segment without updates is removed.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mobile_sdk.files import sync_folder

from .steps import step

__all__ = ["Location", "Segments"]

# A segment that has grown beyond this is followed by another: merged updates then leave as whole files, mostly.
SEGMENT_BYTES = 16_000_000

_ZEROS = bytes(1_000_000)

# Linux alone has it, and not for every file system.
_FALLOCATE = getattr(ctypes.CDLL(None), "fallocate", None)
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


@dataclasses.dataclass(frozen=True)
class Location:
    """Where an update's bytes are."""

    segment: int
    start: int
    size: int


class Segments:
    """
    Segment files in one folder; created if missing.

    A process never appends to a segment of an earlier one: its end may be torn.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._number = max(self._numbers(), default=0)
        self._descriptor: int | None = None
        self._end = 0

    def close(self) -> None:
        """Let go of the open segment."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def append(self, contents: Sequence[bytes | memoryview]) -> list[Location]:
        """
        Keep updates; they are durable when this returns.

        Raises:
            OSError: if they cannot be written; then none of them is kept.

        """
        if not contents:
            return []
        if self._descriptor is None or self._end >= SEGMENT_BYTES:
            self._begin()
        assert self._descriptor is not None  # _begin opened it, or raised
        locations = []
        end = self._end
        try:
            for content in contents:
                _write(self._descriptor, content, end)
                locations.append(Location(self._number, end, len(content)))
                end += len(content)
            step("accept: written")
            os.fdatasync(self._descriptor)
        except OSError:
            # After a failed sync nobody knows what is on the disk: this segment takes nothing more.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._end)
            self.close()
            raise
        self._end = end
        step("accept: synced")
        return locations

    def read(self, location: Location) -> bytes:
        """An update's bytes; fewer than its size, or none, if the file was damaged."""
        try:
            with self._path(location.segment).open("rb") as file:
                file.seek(location.start)
                return file.read(location.size)
        except FileNotFoundError:
            return b""

    def erase(self, gone: Iterable[Location], live: Mapping[int, int]) -> None:
        """
        Overwrite updates, and remove segments in which nothing is left; durable when this returns.

        Args:
            gone: what is to be erased.
            live: updates that are still wanted, counted by segment.

        """
        by_segment: dict[int, list[Location]] = collections.defaultdict(list)
        for location in gone:
            by_segment[location.segment].append(location)
        removed = False
        for segment, locations in by_segment.items():
            if live.get(segment):
                self._overwrite(segment, locations)
            else:
                removed |= self._remove(segment)
            step("erase: one segment")
        if removed:
            sync_folder(self._folder)

    def erase_all_but(self, wanted: Iterable[Location]) -> None:
        """Erase whatever is not ``wanted``: what a crash left between a merge and its erasure."""
        by_segment: dict[int, list[Location]] = collections.defaultdict(list)
        for location in wanted:
            by_segment[location.segment].append(location)
        for segment in self._numbers():
            if segment not in by_segment:
                self._remove(segment)
                continue
            gaps = []
            at = 0
            for location in sorted(by_segment[segment], key=lambda location: location.start):
                gaps.append(Location(segment, at, location.start - at))
                at = location.start + location.size
            gaps.append(Location(segment, at, max(self._path(segment).stat().st_size - at, 0)))
            self._overwrite(segment, [gap for gap in gaps if gap.size > 0])
        sync_folder(self._folder)

    def files(self) -> list[Path]:
        """Every segment file."""
        return [self._path(number) for number in sorted(self._numbers())]

    def path(self, segment: int) -> Path:
        """The file of a segment."""
        return self._path(segment)

    def _begin(self) -> None:
        self.close()
        self._number += 1
        self._descriptor = os.open(self._path(self._number), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._end = 0
        sync_folder(self._folder)

    def _remove(self, segment: int) -> bool:
        if segment == self._number:
            self.close()
        path = self._path(segment)
        if not path.exists():
            return False
        path.unlink()
        return True

    def _overwrite(self, segment: int, locations: Sequence[Location]) -> None:
        if not locations:
            return
        descriptor = os.open(self._path(segment), os.O_WRONLY)
        try:
            for location in locations:
                if not _punch(descriptor, location):
                    for start in range(0, location.size, len(_ZEROS)):
                        _write(descriptor, _ZEROS[: location.size - start], location.start + start)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def _numbers(self) -> list[int]:
        return [int(path.stem) for path in self._folder.glob("*.updates")]

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.updates"


def _punch(descriptor: int, location: Location) -> bool:
    """Let the file system take the bytes back, which reads as zeros and writes none; false where it cannot."""
    if _FALLOCATE is None:
        return False
    offset, size = ctypes.c_int64(location.start), ctypes.c_int64(location.size)
    return bool(_FALLOCATE(descriptor, _PUNCH_HOLE | _KEEP_SIZE, offset, size) == 0)


def _write(descriptor: int, content: bytes | memoryview, at: int) -> None:
    """Write all of ``content`` at ``at``: one call may write less, on a disk that is nearly full."""
    written = os.pwrite(descriptor, content, at)
    while written < len(content):
        written += os.pwrite(descriptor, memoryview(content)[written:], at + written)
