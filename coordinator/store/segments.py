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
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mobile_sdk.system.syncs import sync_data, sync_folder
from mobile_sdk.system.writing import write_at

from .crash_points import step

__all__ = ["Location", "Segments"]

# A segment that has grown beyond this is followed by another: merged updates then leave as whole files, mostly.
SEGMENT_BYTES = 16_000_000  # pragma: no mutate

_ZEROS = bytes(1_000_000)  # pragma: no mutate

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

    A process never appends to a segment of an earlier one: its end may be torn. One thread appends at a time; others
    may erase meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._number = max(self._numbers(), default=0)
        self._descriptor: int | None = None
        self._end = 0
        # What was appended and is named by no row yet, counted by segment: such a segment is not removed.
        self._unnamed: collections.Counter[int] = collections.Counter()
        self._lock = threading.Lock()  # of the open segment and that count

    def close(self) -> None:
        """Let go of the open segment."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def append(self, contents: Sequence[bytes | memoryview]) -> list[Location]:
        """
        Keep updates; they are durable when this returns. Once rows name them, or never will: :meth:`named`.

        Raises:
            OSError: if they cannot be written; then none of them is kept.

        """
        if not contents:
            return []
        with self._lock:
            if self._descriptor is None or self._end >= SEGMENT_BYTES:
                self._begin()
            assert self._descriptor is not None  # _begin opened it, or raised
            descriptor, number, end = self._descriptor, self._number, self._end
            self._unnamed[number] += len(contents)
        locations = []
        try:
            for content in contents:
                write_at(descriptor, content, end)
                locations.append(Location(number, end, len(content)))
                end += len(content)
            step("accept: written")
            sync_data(descriptor)
        except OSError:
            with self._lock:
                # After a failed sync nobody knows what is on the disk: this segment takes nothing more.
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, self._end)
                self.close()
                self._unnamed[number] -= len(contents)
                if self._end == 0:  # a disk that stays full would leave an empty file at every attempt
                    with contextlib.suppress(OSError):
                        self._path(number).unlink()
            raise
        self._end = end
        step("accept: synced")
        return locations

    def named(self, locations: Iterable[Location]) -> None:
        """What is at these locations is named by rows now, or will never be."""
        with self._lock:
            self._unnamed.subtract(location.segment for location in locations)

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
            with self._lock:
                wanted = bool(live.get(segment)) or self._unnamed[segment] > 0
                if not wanted:
                    removed |= self._remove(segment)
            if wanted:
                self._overwrite(segment, locations)
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
        try:
            sync_folder(self._folder)
        except OSError:
            # A power cut could take its name: nothing may come into it.
            self.close()
            with contextlib.suppress(OSError):
                self._path(self._number).unlink()
            raise

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
            for start, size in _joined(locations):
                if not _punch(descriptor, start, size):
                    for at in range(start, start + size, len(_ZEROS)):
                        write_at(descriptor, _ZEROS[: start + size - at], at)
            sync_data(descriptor)
        finally:
            os.close(descriptor)

    def _numbers(self) -> list[int]:
        return [int(path.stem) for path in self._folder.glob("*.updates")]

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.updates"


def _joined(locations: Iterable[Location]) -> list[tuple[int, int]]:
    """Start and size of the ranges that locations of one segment make up: what came together is mostly merged so."""
    ranges: list[tuple[int, int]] = []
    for location in sorted(locations, key=lambda location: location.start):
        if ranges and sum(ranges[-1]) == location.start:
            ranges[-1] = ranges[-1][0], ranges[-1][1] + location.size
        else:
            ranges.append((location.start, location.size))
    return ranges


def _punch(descriptor: int, start: int, size: int) -> bool:
    """Let the file system take the bytes back, which reads as zeros and writes none; false where it cannot."""
    if _FALLOCATE is None:
        return False
    return bool(_FALLOCATE(descriptor, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_int64(start), ctypes.c_int64(size)) == 0)
