"""
A disk that forgets what was not synced.

Files really lie in a folder in memory; beside it, this keeps what has reached the disk: content when a file is synced,
names when their folder is. A power cut leaves the latter, and of the rest whatever the seed draws: writes that are
lost, torn, or there without an earlier one; renames that did not happen. SQLite's own files are taken as they are:
with ``synchronous = FULL`` a commit has been synced when it returns, and what a cut inside a commit leaves is drawn in
:mod:`.sqlite_files`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["DATABASE", "Disk", "File", "Folder"]

# A write that a cut interrupts ends at a multiple of this.
SECTOR = 16

# The beginning of the names of SQLite's files.
DATABASE = "state.sqlite"


class File:
    """A file: its synced content, and the writes since, as (offset, bytes); offset and none for a truncation."""

    def __init__(self) -> None:
        self.kept = bytearray()
        self.writes: list[tuple[int, bytes | None]] = []

    def sync(self) -> None:
        """Everything that was written is on the disk now."""
        for offset, data in self.writes:
            _write(self.kept, offset, data)
        self.writes.clear()

    def after_cut(self, rng: random.Random) -> bytes:
        """What a power cut leaves of it."""
        content = bytearray(self.kept)
        for offset, data in self.writes:
            fate = rng.random()
            if fate < 0.45:
                continue  # lost, while a later one may be there: the disk reorders
            if data is not None and fate < 0.65:
                data = data[: rng.randrange(len(data) // SECTOR + 1) * SECTOR]
            _write(content, offset, data)
        return bytes(content)


def _write(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
        return
    content.extend(bytes(max(offset - len(content), 0)))
    content[offset : offset + len(data)] = data


class Folder:
    """A folder: the names in it as programs see them, and as the disk has them."""

    def __init__(self) -> None:
        self.now: dict[str, File | Folder] = {}
        self.kept: dict[str, File | Folder] = {}


@dataclasses.dataclass
class _Change:
    """Names that change together: one, or the two of a rename."""

    items: list[tuple[Folder, str, File | Folder | None]]

    def touches(self, folder: Folder) -> bool:
        return any(each is folder for each, _, _ in self.items)

    def apply(self) -> None:
        for folder, name, node in self.items:
            if node is None:
                folder.kept.pop(name, None)
            else:
                folder.kept[name] = node


class Disk:
    """
    What a machine's files lie on, below the folder ``root``.

    ``dead`` is set when its machine has ended: whatever is left of the process touches nothing any more. ``untouched``
    gives a context in which nothing is simulated. ``commit_fate`` (0 to 1) draws what becomes of a commit within which
    the machine ends; ``torn`` has the logs that such a cut has torn, and their databases; ``unsynced`` the database as
    it was before the first commit that did not wait for the disk.
    """

    def __init__(
        self, root: Path, rng: random.Random, untouched: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        self.root = root
        self.top = str(root)
        self.prefix = f"{root}/"
        self.dead = False
        self.rng = rng
        self.untouched = untouched
        self.commit_fate: float | None = None
        self.torn: dict[str, bytes] = {}
        self.unsynced: dict[str, bytes] | None = None
        self._top = Folder()
        self._changes: list[_Change] = []
        self.take_as_synced()

    def take_as_synced(self) -> None:
        """Whatever is there now has always been there."""
        self._changes.clear()
        self._top = _load(self.root)

    # What a process does.

    def created(self, path: str) -> File:
        """A file that is written to; new, or the one that there is."""
        folder, name = self._at(path)
        node = folder.now.get(name)
        if not isinstance(node, File):
            node = File()
            self._change([(folder, name, node)])
        return node

    def find(self, path: str) -> File | Folder | None:
        """What is at a path."""
        folder, name = self._at(path)
        return folder.now.get(name)

    def made_folder(self, path: str) -> None:
        """A new folder."""
        folder, name = self._at(path)
        self._change([(folder, name, Folder())])

    def removed(self, path: str) -> None:
        """A file or folder is gone."""
        folder, name = self._at(path)
        self._change([(folder, name, None)])

    def renamed(self, source: str, target: str) -> None:
        """A file or folder has another name; what had it before is gone."""
        from_folder, old = self._at(source)
        to_folder, new = self._at(target)
        node = from_folder.now.get(old)
        if node is not None:
            self._change([(from_folder, old, None), (to_folder, new, node)])

    def sync_folder(self, path: str) -> None:
        """The names in a folder are on the disk now."""
        node: File | Folder | None = self._top
        if path.rstrip("/") != self.top:
            node = self.find(path.rstrip("/"))
        if not isinstance(node, Folder):
            return
        rest = []
        for change in self._changes:
            if change.touches(node):
                change.apply()
            else:
                rest.append(change)
        self._changes = rest

    # What is left.

    def cut(self) -> None:
        """Make the files what a power cut leaves of them."""
        with self.untouched():
            self._cut(self.rng)

    def killed(self) -> None:
        """The process alone has ended: all that it wrote is there."""
        with self.untouched():
            for name, content in self.torn.items():
                Path(name).write_bytes(content)
            for path in self.root.rglob(f"{DATABASE}-shm"):
                path.unlink()
            self.torn.clear()
            self.take_as_synced()

    def _cut(self, rng: random.Random) -> None:
        in_order = rng.random() < 0.5  # as a journal of the file system has it, or each name for itself
        upto = rng.randrange(len(self._changes) + 1)
        for index, change in enumerate(self._changes):
            if index < upto if in_order else rng.random() < 0.5:
                change.apply()
        databases = {**self._databases(), **self.torn}
        if self.unsynced is not None:
            databases, self.unsynced = self.unsynced, None
        self.torn.clear()
        _remove_content(self.root)
        self._write_out(self._top, self.root, rng, databases)
        self.take_as_synced()

    def _databases(self) -> dict[str, bytes]:
        found = {}
        for path in self.root.rglob(f"{DATABASE}*"):
            if path.is_file() and not path.name.endswith("-shm"):
                found[str(path)] = path.read_bytes()
        return found

    def _write_out(self, node: Folder, at: Path, rng: random.Random, databases: dict[str, bytes]) -> None:
        for name, child in node.kept.items():
            path = at / name
            if isinstance(child, Folder):
                path.mkdir(mode=0o700)
                self._write_out(child, path, rng, databases)
            else:
                path.write_bytes(child.after_cut(rng))
        for path_text, content in databases.items():
            if Path(path_text).parent == at:
                Path(path_text).write_bytes(content)

    def files(self) -> Iterator[Path]:
        """Every file that there is."""
        for path in sorted(self.root.rglob("*")):
            if path.is_file():
                yield path

    def _at(self, path: str) -> tuple[Folder, str]:
        *folders, name = path[len(self.prefix) :].rstrip("/").split("/")
        folder = self._top
        for part in folders:
            child = folder.now.get(part)
            if not isinstance(child, Folder):  # made behind this one's back: SQLite's, or before it watched
                child = Folder()
                folder.now[part] = folder.kept[part] = child
            folder = child
        return folder, name

    def _change(self, items: list[tuple[Folder, str, File | Folder | None]]) -> None:
        for folder, name, node in items:
            if node is None:
                folder.now.pop(name, None)
            else:
                folder.now[name] = node
        self._changes.append(_Change(items))


def _load(path: Path) -> Folder:
    folder = Folder()
    for child in path.iterdir():
        if child.name.startswith(DATABASE):
            continue
        if child.is_dir():
            folder.now[child.name] = _load(child)
        else:
            file = File()
            file.kept[:] = child.read_bytes()
            folder.now[child.name] = file
    folder.kept = dict(folder.now)
    return folder


def _remove_content(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
        else:
            with contextlib.suppress(FileNotFoundError):
                child.unlink()
