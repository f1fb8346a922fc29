"""
What stands between the code under test and the files of simulated machines.

The functions of ``os``, ``io`` and ``sqlite3`` are replaced while a federation runs. Paths below a machine's folder
are told to its :class:`~.disk.Disk` and may fail; all others go through.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import shutil
import sqlite3
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from coordinator.store import segments

from .disk import Disk, File
from .sqlite_files import SimulatedConnection

__all__ = ["Interposer", "PowerCut"]

_REAL = {
    name: getattr(os, name)
    for name in (
        "open", "close", "fsync", "fdatasync", "pwrite", "write", "ftruncate", "replace", "rename", "unlink",
        "remove", "rmdir", "mkdir", "posix_fallocate",
    )
    if hasattr(os, name)
}  # fmt: skip
_REAL_IO_OPEN = io.open
_REAL_CONNECT = sqlite3.connect

_WRITING = os.O_WRONLY | os.O_RDWR


class PowerCut(BaseException):
    """The machine has ended; what is left of its process gets this wherever it touches something."""


class Interposer:
    """
    Replaces file operations while :meth:`active` lasts.

    Args:
        hook: called with (disk, kind of operation, path) before each of them; may raise.
        hole: whether the file system can give bytes in the middle of a file back.
        who: the own disk of the process that runs, if any: what it opens on another's disk is its own as well.

    """

    def __init__(
        self, hook: Callable[[Disk, str, str], None], *, hole: bool, who: Callable[[], Disk | None] = lambda: None
    ) -> None:
        self._hook = hook
        self._who = who
        self._hole = hole
        self._disks: list[Disk] = []
        self._descriptors: dict[int, tuple[Disk, str]] = {}
        self._opened: dict[Disk, set[int]] = {}
        self._files: dict[Disk, weakref.WeakSet[_WrittenFile]] = {}
        self._connections: dict[Disk, list[SimulatedConnection]] = {}
        self._off = 0

    def watch(self, disk: Disk) -> None:
        """Stand before this disk from now on."""
        self._disks.append(disk)
        self._opened[disk] = set()
        self._files[disk] = weakref.WeakSet()
        self._connections[disk] = []

    @contextlib.contextmanager
    def untouched(self) -> Iterator[None]:
        """What is done meanwhile is not part of the simulation."""
        self._off += 1
        try:
            yield
        finally:
            self._off -= 1

    def opened(self, disk: Disk) -> int:
        """How many files and database connections the process of a machine has open."""
        # Of files that are closed some are still named by the error that they ended with.
        files = sum(not file.closed for file in list(self._files[disk]))
        return len(self._opened[disk]) + files + len(self._connections[disk])

    def end_process(self, disk: Disk) -> None:
        """Close what the process of a machine had open, as its system would."""
        with self.untouched():
            for connection in self._connections[disk]:
                connection.close()
            for descriptor in self._opened[disk]:
                with contextlib.suppress(OSError):
                    _REAL["close"](descriptor)
                self._descriptors.pop(descriptor, None)
            for file in list(self._files[disk]):
                file.close()
        self._connections[disk].clear()
        self._opened[disk].clear()
        self._files[disk].clear()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Replace the functions."""
        ours = {name: getattr(self, f"_{name}") for name in _REAL}
        fallocate, by_descriptor = segments._FALLOCATE, shutil._use_fd_functions  # type: ignore[attr-defined]
        for name, function in ours.items():
            setattr(os, name, function)
        io.open = self._io_open
        sqlite3.connect = self._connect  # type: ignore[assignment]
        segments._FALLOCATE = self._fallocate if self._hole and fallocate is not None else None
        shutil._use_fd_functions = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            for name, function in _REAL.items():
                setattr(os, name, function)
            io.open = _REAL_IO_OPEN
            sqlite3.connect = _REAL_CONNECT
            segments._FALLOCATE = fallocate
            shutil._use_fd_functions = by_descriptor  # type: ignore[attr-defined]

    def _disk(self, path: Any) -> tuple[Disk | None, str]:
        if self._off or isinstance(path, int):
            return None, ""
        text = os.fspath(path)
        if isinstance(text, str):
            for disk in self._disks:
                if text.startswith(disk.prefix) or text == disk.top:
                    return disk, text
        return None, ""

    # Descriptors.

    def _open(self, path: Any, flags: int, mode: int = 0o777, **rest: Any) -> int:
        disk, text = self._disk(path)
        if disk is None:
            descriptor: int = _REAL["open"](path, flags, mode, **rest)
            self._descriptors.pop(descriptor, None)
            return descriptor
        self._hook(disk, "open" if flags & (_WRITING | os.O_CREAT) else "look", text)
        new = flags & os.O_CREAT and not os.path.lexists(text)
        descriptor = _REAL["open"](path, flags, mode, **rest)
        if new:
            disk.created(text)
        self._descriptors[descriptor] = disk, text
        self._opened[self._who() or disk].add(descriptor)
        return descriptor

    def _close(self, descriptor: int) -> None:
        if self._descriptors.pop(descriptor, None) is not None:
            for opened in self._opened.values():
                opened.discard(descriptor)
        _REAL["close"](descriptor)

    def _of(self, descriptor: int) -> tuple[Disk | None, str]:
        if self._off:
            return None, ""
        return self._descriptors.get(descriptor, (None, ""))

    def _sync(self, name: str, descriptor: int) -> None:
        disk, text = self._of(descriptor)
        if disk is None:
            _REAL[name](descriptor)
            return
        node = disk.find(text) if text != disk.top else None
        if isinstance(node, File):
            self._hook(disk, "sync", text)
            node.sync()
        else:
            self._hook(disk, "sync folder", text)
            disk.sync_folder(text)

    def _fsync(self, descriptor: int) -> None:
        self._sync("fsync", descriptor)

    def _fdatasync(self, descriptor: int) -> None:
        self._sync("fdatasync", descriptor)

    def _pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        disk, text = self._of(descriptor)
        if disk is not None:
            self._hook(disk, "write", text)
        written: int = _REAL["pwrite"](descriptor, data, offset)
        if disk is not None:
            disk.created(text).writes.append((offset, bytes(data)[:written]))
        return written

    def _write(self, descriptor: int, data: Any) -> int:
        disk, text = self._of(descriptor)
        if disk is None:
            written: int = _REAL["write"](descriptor, data)
            return written
        raise AssertionError(f"os.write to {text}: the simulated disk knows os.pwrite alone")

    def _ftruncate(self, descriptor: int, size: int) -> None:
        disk, text = self._of(descriptor)
        if disk is not None:
            self._hook(disk, "write", text)
        _REAL["ftruncate"](descriptor, size)
        if disk is not None:
            disk.created(text).writes.append((size, None))

    def _posix_fallocate(self, descriptor: int, offset: int, size: int) -> None:
        disk, text = self._of(descriptor)
        if disk is not None:
            self._hook(disk, "write", text)
        _REAL["posix_fallocate"](descriptor, offset, size)
        if disk is not None:
            disk.created(text).writes.append((offset + size, None))

    def _fallocate(self, descriptor: int, mode: int, start: ctypes.c_int64, size: ctypes.c_int64) -> int:
        disk, text = self._of(descriptor)
        if disk is not None:
            self._hook(disk, "write", text)
            end = os.fstat(descriptor).st_size
            zeros = bytes(max(min(size.value, end - start.value), 0))
            _REAL["pwrite"](descriptor, zeros, start.value)
            disk.created(text).writes.append((start.value, zeros))
        return 0

    # Names.

    def _rename(self, source: Any, target: Any, **rest: Any) -> None:
        self._renamed("rename", source, target, **rest)

    def _replace(self, source: Any, target: Any, **rest: Any) -> None:
        self._renamed("replace", source, target, **rest)

    def _renamed(self, name: str, source: Any, target: Any, **rest: Any) -> None:
        disk, text = self._disk(source)
        if disk is not None:
            self._hook(disk, "rename", text)
        _REAL[name](source, target, **rest)
        if disk is not None:
            disk.renamed(text, os.fspath(target))

    def _unlink(self, path: Any, **rest: Any) -> None:
        self._removed("unlink", path, **rest)

    def _remove(self, path: Any, **rest: Any) -> None:
        self._removed("remove", path, **rest)

    def _rmdir(self, path: Any, **rest: Any) -> None:
        self._removed("rmdir", path, **rest)

    def _removed(self, name: str, path: Any, **rest: Any) -> None:
        disk, text = self._disk(path)
        if disk is not None:
            self._hook(disk, "unlink", text)
        _REAL[name](path, **rest)
        if disk is not None:
            disk.removed(text)

    def _mkdir(self, path: Any, mode: int = 0o777, **rest: Any) -> None:
        disk, text = self._disk(path)
        if disk is not None:
            self._hook(disk, "mkdir", text)
        _REAL["mkdir"](path, mode, **rest)
        if disk is not None:
            disk.made_folder(text)

    # Python's files.

    def _io_open(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        if isinstance(file, int):
            disk, text = self._of(file)
        else:
            disk, text = self._disk(file)
        writes = any(letter in mode for letter in "wax+")
        if disk is None or opener is not None:
            found = _REAL_IO_OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
            if not isinstance(file, int) and not self._off:
                self._descriptors.pop(found.fileno(), None)
            return found
        if not writes:
            self._hook(disk, "read", text)
            found = _REAL_IO_OPEN(file, mode, buffering, encoding, errors, newline, closefd)
            self._descriptors[found.fileno()] = disk, text
            return found
        if not isinstance(file, int):
            self._hook(disk, "open", text)
        raw = _WrittenFile(file, mode, disk, text, self)
        self._descriptors[raw.fileno()] = disk, text
        for opened in self._opened.values():
            opened.discard(raw.fileno())  # it is the file's now
        self._files[self._who() or disk].add(raw)
        if buffering == 0:
            return raw
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffer
        return io.TextIOWrapper(buffer, encoding or "utf-8", errors, newline)

    # SQLite.

    def _connect(self, database: Any, *arguments: Any, **options: Any) -> sqlite3.Connection:
        name = os.fspath(database)
        text = name.removeprefix("file:").partition("?")[0] if isinstance(name, str) else ""
        disk, text = self._disk(text)
        if disk is None:
            return _REAL_CONNECT(database, *arguments, **options)
        self._hook(disk, "sql", text)
        connection = _REAL_CONNECT(database, *arguments, factory=SimulatedConnection, **options)
        connection.place(disk, Path(text), lambda kind: self._sql(disk, kind, text))
        self._connections[disk].append(connection)
        return connection

    def _sql(self, disk: Disk, kind: str, text: str) -> None:
        if not self._off:
            self._hook(disk, kind, text)


class _WrittenFile(io.FileIO):
    """A file that a machine writes."""

    def __init__(self, file: Any, mode: str, disk: Disk, text: str, owner: Interposer) -> None:
        new = not isinstance(file, int) and not os.path.lexists(text)
        super().__init__(file, mode.replace("b", "").replace("t", ""))
        self._disk, self._text, self._owner = disk, text, owner
        if new:
            disk.created(text)
        elif "w" in mode and not isinstance(file, int):
            disk.created(text).writes.append((0, None))
        self._node = disk.created(text)

    def write(self, data: Any) -> int:
        self._owner._hook(self._disk, "write", self._text)
        content = bytes(data)
        at = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
        written = super().write(content)
        self._node.writes.append((at, content[:written]))
        return written

    def truncate(self, size: int | None = None) -> int:
        self._owner._hook(self._disk, "write", self._text)
        end = super().truncate(size)
        self._node.writes.append((end, None))
        return end
