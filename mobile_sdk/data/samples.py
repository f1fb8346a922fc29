"""
Samples as an app collects them, on the device's disk.

Every sample is a record of the same size: CRC-32, x, y. Records are appended to segment files of a fixed number of
records; whole segments are dropped when the store is full. A kill in the middle of a write leaves at most one record
that is cut off, which is ignored and overwritten; whatever a power cut leaves damaged is found by its checksum.

    store.json             shapes, dtypes, records per segment
    lock                   held by the one process that appends
    00000000.samples       records 0 ... n - 1 of the store's life
    00000001.samples       records n ... 2n - 1

"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..durable_files import write_durably
from ..errors import DataError, StorageError
from ..fields import join_sample
from ..manifest import InputContract
from ..system.locks import Locked, take_lock
from ..system.syncs import make_folder, sync_file, sync_folder
from .base import Batch
from .check import check_batch
from .fit import fit_parts

__all__ = ["SampleStore"]

_CRC = struct.Struct("<I")
_SUFFIX = ".samples"

# So many segments make up a full store: dropping one frees an eighth of it.
SEGMENTS = 8
MOST_SEGMENT_RECORDS = 4096


class SampleStore:
    """
    A growing dataset on disk: append samples, train on the newest ones.

    One process appends; others may read the same folder meanwhile (an app and its training service, say). A sample is
    safe from a killed process once :meth:`append` returns, and from a power cut once :meth:`flush` has.

    Args:
        folder: created if missing, readable by its owner alone.
        max_samples: older samples are forgotten beyond this many; :obj:`None`: no limit.
        max_bytes: the files never take more than this, beyond a small description; :obj:`None`: no limit.

    Raises:
        StorageError: if the folder cannot be used or its description is damaged.
        ValueError: if a limit is not positive.

    """

    def __init__(
        self, folder: str | Path, *, max_samples: int | None = 10_000, max_bytes: int | None = 64_000_000
    ) -> None:
        for name, limit in (("max_samples", max_samples), ("max_bytes", max_bytes)):
            if limit is not None and limit < 1:
                raise ValueError(f"{name} is {limit}; it must be at least 1, or None for no limit")
        self._folder = Path(folder)
        self._max_samples = max_samples
        self._max_bytes = max_bytes
        self._contract: InputContract | None = None
        self._lock: IO[bytes] | None = None
        self._writing: tuple[int, FileIO] | None = None
        try:
            make_folder(self._folder, 0o700)
            self._format = _Format.load(self._folder)
        except OSError as error:
            raise StorageError(f"cannot use the folder {self._folder}: {error}") from error

    def append(self, x: Any, y: Any) -> None:
        """
        Keep a sample; the oldest are dropped where the store is full.

        Args:
            x: its input, an array or a number; a dict or tuple of arrays where the task takes several.
            y: its target.

        Raises:
            DataError: if shape or dtype differ from those of the samples that are here, or the sample breaks the
                contract of :meth:`use_contract`.
            StorageError: if another process appends to this folder, or the disk is full; nothing has changed then.

        """
        x, y = join_sample(x), join_sample(y)
        if self._contract is not None:
            x, y = (fit_parts(sample, name, self._contract) for name, sample in (("x", x), ("y", y)))
            check_batch(x[None], y[None], 0, self._contract)
        try:
            self._begin_writing(x, y)
            assert self._format is not None
            record = self._format.pack(x, y)
            self._make_room(len(record))
            _, file = self._segment(len(record))
            start = file.seek(0, os.SEEK_END)
            try:
                file.write(record)
            except OSError:
                file.truncate(start)  # not half a record
                raise
        except OSError as error:
            raise StorageError(f"cannot append to {self._folder}: {error.strerror or error}") from error

    def use_contract(self, contract: InputContract) -> None:
        """
        Hold every further sample against a task's contract, and keep it in the task's dtypes.

        Args:
            contract: what the task takes, such as :attr:`~mobile_sdk.client.Client.contract`.

        """
        self._contract = contract

    def remove(self, indices: Sequence[int]) -> None:
        """
        Erase samples; those after them move up.

        Args:
            indices: as of :meth:`batch` now, 0 being the oldest; as :class:`~mobile_sdk.events.SamplesSkipped` tells.

        Raises:
            IndexError: if there is no such sample; nothing has changed then.
            StorageError: if another process appends to this folder, or the disk is full.

        """
        self._lock_for_writing()
        snapshot = self.snapshot()
        gone: dict[Path, set[int]] = {}
        for index in indices:
            path, record = snapshot.place(int(index))
            gone.setdefault(path, set()).add(record)
        if self._writing is not None:
            self._writing[1].close()
            self._writing = None
        assert self._format is not None or not gone
        try:
            for path, records in gone.items():
                write_durably(path, self._format.without(path.read_bytes(), records) if self._format else b"")
        except OSError as error:
            raise StorageError(f"cannot remove samples from {self._folder}: {error.strerror or error}") from error

    def flush(self) -> None:
        """Make all samples survive a power cut."""
        if self._writing is not None:
            sync_file(self._writing[1].fileno())
            sync_folder(self._folder)

    def close(self) -> None:
        """Let another process append."""
        if self._writing is not None:
            self._writing[1].close()
            self._writing = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> SampleStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.snapshot())

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        """
        The samples at ``indices``, 0 being the oldest; to train while samples come, use :meth:`snapshot`.

        Args:
            indices: int64, shape ``(n,)``.

        Returns:
            x of shape ``(n, *x_shape)`` and y of shape ``(n, *y_shape)``, as they were appended.

        """
        return self.snapshot().batch(indices)

    def snapshot(self) -> Snapshot:
        """The samples that are here now, as a dataset that does not change when samples come and go."""
        if self._format is None:
            self._format = _Format.load(self._folder)
        if self._format is None:
            return Snapshot(None, [], None)
        return Snapshot(self._format, list(self._segments()), self._max_samples)

    # Writing.

    def _lock_for_writing(self) -> None:
        if self._lock is None:
            try:
                self._lock = take_lock(self._folder / "lock")
            except Locked:
                raise StorageError(f"another process appends to {self._folder}: one at a time") from None
            self._format = _Format.load(self._folder)

    def _begin_writing(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        self._lock_for_writing()
        if self._format is None:
            self._format = _Format.of(x, y, self._max_samples, self._max_bytes)
            write_durably(self._folder / "store.json", self._format.to_bytes())
        self._format.check(x, y)

    def _make_room(self, record: int) -> None:
        """Drop whole segments that are too old, and what must go for ``record`` more bytes to be within the limit."""
        assert self._format is not None
        segments = list(self._segments())
        sizes = [path.stat().st_size for path in segments]
        counts = [size // self._format.record for size in sizes]
        while len(segments) > 1 or (segments and self._format.is_full(counts[0])):
            over_bytes = self._max_bytes is not None and sum(sizes) + record > self._max_bytes
            over_count = self._max_samples is not None and sum(counts[1:]) + 1 >= self._max_samples
            if not (over_bytes or over_count):
                break
            if self._writing is not None and self._path(self._writing[0]) == segments[0]:
                self._writing[1].close()
                self._writing = None
            segments[0].unlink()
            del segments[0], sizes[0], counts[0]

    def _segment(self, record: int) -> tuple[int, FileIO]:
        """The file to append to."""
        assert self._format is not None
        if self._writing is None:
            last = max((int(path.name.removesuffix(_SUFFIX)) for path in self._segments()), default=0)
            file = self._path(last).open("ab", buffering=0)
            size = file.seek(0, os.SEEK_END)
            file.truncate(size - size % record)  # what a kill cut off
            self._writing = last, file
        number, file = self._writing
        if self._format.is_full(file.seek(0, os.SEEK_END) // record):
            sync_file(file.fileno())
            file.close()
            self._writing = number + 1, self._path(number + 1).open("ab", buffering=0)
        return self._writing

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}{_SUFFIX}"

    def _segments(self) -> Iterator[Path]:
        yield from sorted(self._folder.glob(f"*{_SUFFIX}"))


class Snapshot:
    """The samples of a store at one moment: a dataset. Their files may be dropped meanwhile; they stay readable."""

    def __init__(self, form: _Format | None, paths: list[Path], newest: int | None) -> None:
        self._format = form
        self._maps: list[memoryview] = []
        self._paths: list[Path] = []
        places: list[tuple[int, int]] = []
        for path in paths:
            with contextlib.suppress(OSError, ValueError), path.open("rb") as file:  # dropped, or empty
                content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                assert form is not None
                good = [i for i in range(len(content) // form.record) if form.is_good(content, i)]
                places += [(len(self._maps), i) for i in good]
                self._maps.append(content)
                self._paths.append(path)
        self._places = places if newest is None else places[-newest:]

    def __len__(self) -> int:
        return len(self._places)

    def place(self, index: int) -> tuple[Path, int]:
        """
        The file of a sample, and which record of it it is.

        Raises:
            IndexError: if there is no such sample.

        """
        if not 0 <= index < len(self._places):
            raise IndexError(f"there is no sample {index}; there are {len(self._places)}")
        part, record = self._places[index]
        return self._paths[part], record

    def batch(self, indices: npt.NDArray[np.int64]) -> Batch:
        if self._format is None:
            raise DataError("the sample store is empty")
        form = self._format
        pairs = [form.unpack(self._maps[part], record) for part, record in (self._places[int(i)] for i in indices)]
        return np.stack([x for x, _ in pairs]), np.stack([y for _, y in pairs])


class _Format:
    """What every record of a store looks like."""

    def __init__(self, x: np.dtype[Any], y: np.dtype[Any], shapes: tuple[tuple[int, ...], ...], segment: int) -> None:
        self._dtypes = x, y
        self._shapes = shapes
        self._sizes = tuple(
            dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            for dtype, shape in zip(self._dtypes, shapes, strict=True)
        )
        self._segment = segment
        self.record = _CRC.size + sum(self._sizes)

    @classmethod
    def of(cls, x: npt.NDArray[Any], y: npt.NDArray[Any], max_samples: int | None, max_bytes: int | None) -> _Format:
        """That of the first sample."""
        for name, array in (("x", x), ("y", y)):
            if not _is_numbers(array.dtype):
                raise DataError(f"{name} has the dtype {array.dtype}; samples are numbers or booleans")
        form = cls(x.dtype, y.dtype, (x.shape, y.shape), 1)
        most = [MOST_SEGMENT_RECORDS]
        if max_samples is not None:
            most.append(max_samples // SEGMENTS)
        if max_bytes is not None:
            if form.record > max_bytes:
                raise DataError(f"a sample takes {form.record} bytes, more than the store's limit of {max_bytes}")
            most.append(max_bytes // form.record // SEGMENTS)
        return cls(x.dtype, y.dtype, (x.shape, y.shape), max(1, min(most)))

    @classmethod
    def load(cls, folder: Path) -> _Format | None:
        """That of a store on disk; none if it has no sample yet."""
        path = folder / "store.json"
        try:
            data = json.loads(path.read_bytes())
            dtypes = [_dtype(data[name]["dtype"]) for name in "xy"]
            shapes = tuple(tuple(int(d) for d in data[name]["shape"]) for name in "xy")
            segment = int(data["segment"])
            if not all(_is_numbers(dtype) for dtype in dtypes) or segment < 1:
                raise ValueError("impossible values")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{path} is damaged ({error}): remove the folder to begin anew") from error
        return cls(dtypes[0], dtypes[1], shapes, segment)

    def to_bytes(self) -> bytes:
        parts = {
            name: {"dtype": dtype.descr if dtype.names else dtype.str, "shape": list(shape)}
            for name, dtype, shape in zip("xy", self._dtypes, self._shapes, strict=True)
        }
        return json.dumps({**parts, "segment": self._segment}).encode()

    def check(self, *sample: npt.NDArray[Any]) -> None:
        """Raise :exc:`DataError` if a sample is not like the others."""
        for name, array, dtype, shape in zip("xy", sample, self._dtypes, self._shapes, strict=True):
            if array.shape != shape or array.dtype != dtype:
                raise DataError(
                    f"{name} is {array.dtype} of shape {array.shape}; this store holds {dtype} of shape {shape}"
                )

    def is_full(self, records: int) -> bool:
        """Whether a segment of so many records takes no more."""
        return records >= self._segment

    def pack(self, *sample: npt.NDArray[Any]) -> bytes:
        """A record."""
        body = b"".join(array.tobytes() for array in sample)
        return _CRC.pack(zlib.crc32(body)) + body

    def without(self, content: bytes, records: set[int]) -> bytes:
        """A segment's content without these records."""
        kept = (i for i in range(len(content) // self.record) if i not in records)
        return b"".join(content[i * self.record : (i + 1) * self.record] for i in kept)

    def is_good(self, content: memoryview, index: int) -> bool:
        """Whether a record is what was written."""
        start = index * self.record
        (crc,) = _CRC.unpack_from(content, start)
        return bool(zlib.crc32(content[start + _CRC.size : start + self.record]) == crc)

    def unpack(self, content: memoryview, index: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """X and y of a record."""
        start = index * self.record + _CRC.size
        arrays = []
        for dtype, shape, size in zip(self._dtypes, self._shapes, self._sizes, strict=True):
            arrays.append(np.frombuffer(content[start : start + size], dtype).reshape(shape))
            start += size
        return arrays[0], arrays[1]


def _is_numbers(dtype: np.dtype[Any]) -> bool:
    """Whether samples of this dtype are numbers or booleans, or records of them."""
    kinds = [dtype.fields[name][0].base.kind for name in dtype.names] if dtype.fields and dtype.names else [dtype.kind]
    return not dtype.hasobject and all(kind in "biuf" for kind in kinds)


def _dtype(written: Any) -> np.dtype[Any]:
    """A dtype as ``store.json`` has it: its name, or the fields of a record."""
    if isinstance(written, str):
        return np.dtype(written)
    fields = [(str(name), str(kind), tuple(int(d) for d in (shape or [()])[0])) for name, kind, *shape in written]
    return np.dtype(fields)
