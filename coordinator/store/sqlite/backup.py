"""
Backups: one archive that holds a state directory as it was at one moment, taken while a coordinator works on it.

The database is copied as of one transaction. While what it names is copied, nothing is erased or removed: the
coordinator puts that off until the backup is done. An archive is a tar file that holds keys and secrets, and the
updates that waited at that moment: keep it as safe as the directory itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from mobile_sdk.system.locks import hold_lock, take_lock
from mobile_sdk.system.secret_files import create_secret
from mobile_sdk.system.syncs import make_folder, sync_file, sync_folder

from ...errors import StoreError
from ..segments import Location, Segments
from .audit import write_audit
from .database import SCHEMA_VERSION

__all__ = ["BACKUP_LOCK", "backup", "backup_runs", "remove_leftovers", "restore"]

BACKUP_LOCK = "backup.lock"

# What a state directory holds beside the database, its artifacts and updates.
KEYS = ("run.key", "succession.json")

# A restored run does not know the assignments and versions made after the backup: it skips far beyond their numbers.
ASSIGNMENT_GAP = 1_000_000
VERSION_GAP = 1_000

# And for each second that has passed since, by more than a run uses in one: the same backup may be restored again,
# after what was restored first has gone on for a while.
ASSIGNMENTS_PER_SECOND = 10_000
VERSIONS_PER_SECOND = 10

_COPY = ".backup-"

# Told how much of something is done, and how much there is.
Progress = Callable[[int, int], None]

_MEMBER = re.compile(
    r"state\.sqlite|run\.key|succession\.json|contents\.json|artifacts/[0-9a-f]{64}|updates/a[0-9]{8,}"
)


@contextlib.contextmanager
def backup_runs(folder: Path) -> Iterator[bool]:
    """Whether a backup is under way; if not, none begins for as long as this lasts."""
    with hold_lock(folder / BACKUP_LOCK) as free:
        yield not free


def remove_leftovers(folder: Path) -> None:
    """Remove what a backup left that was killed."""
    for left in folder.glob(f"{_COPY}*"):
        shutil.rmtree(left)


def backup(state: Path, archive: Path, progress: Progress = lambda done, total: None) -> int:
    """
    Write a backup of the state directory ``state``, in use or not, to the new file ``archive``.

    Args:
        state: what to save.
        archive: the file to make.
        progress: told how many files are saved, of how many.

    Returns:
        Its size in bytes.

    Raises:
        StoreError: if there is no state, a file of it is damaged, or the archive is there or cannot be written.

    """
    if archive.exists():
        raise StoreError(f"{archive} is there already, and no backup is overwritten: name another file, or remove it")
    if not (state / "state.sqlite").exists():
        raise StoreError(f"{state} is not a state directory: it has no state.sqlite")
    temporary = archive.with_name(archive.name + ".new")
    try:
        with (
            take_lock(state / BACKUP_LOCK, shared=True, wait=True),
            os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file,
        ):
            _write(state, file, progress)
            file.flush()
            sync_file(file.fileno())
        temporary.replace(archive)
        sync_folder(archive.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot write the backup {archive}: {error.strerror or error}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return archive.stat().st_size


def _write(state: Path, file: IO[bytes], progress: Progress) -> None:
    with tempfile.TemporaryDirectory(dir=state, prefix=_COPY) as folder:
        copy = Path(folder) / "state.sqlite"
        with (
            contextlib.closing(sqlite3.connect(f"file:{state / 'state.sqlite'}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
            (found,) = target.execute("PRAGMA user_version").fetchone()
            if found != SCHEMA_VERSION:
                raise StoreError(f"{state} has schema {found}, not {SCHEMA_VERSION}: start its coordinator once first")
            artifacts = _named_artifacts(target)
            updates = target.execute(
                "SELECT assignment, segment, start, size, sha256 FROM updates "
                "WHERE merged_into IS NULL AND discarded IS NULL ORDER BY arrival"
            ).fetchall()
        contents: dict[str, str] = {}
        keys = [name for name in KEYS if (state / name).exists()]
        total = 2 + len(keys) + len(artifacts) + len(updates)  # with the database and the list of contents
        with tarfile.open(fileobj=file, mode="w") as tar:

            def add(name: str, content: bytes) -> None:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
                contents[name] = hashlib.sha256(content).hexdigest()
                progress(len(contents), total)

            add("state.sqlite", copy.read_bytes())
            for name in keys:
                add(name, (state / name).read_bytes())
            for sha256 in artifacts:
                path = state / "artifacts" / sha256
                if not path.exists() or hashlib.sha256(content := path.read_bytes()).hexdigest() != sha256:
                    raise StoreError(f"{path} is damaged or missing: this state cannot be backed up whole")
                add(f"artifacts/{sha256}", content)
            segments = Segments(state / "updates")
            for assignment, segment, start, size, sha256 in updates:
                content = segments.read(Location(segment, start, size))
                if hashlib.sha256(content).hexdigest() == sha256:  # else the coordinator will find it damaged, too
                    add(f"updates/{assignment}", content)
            add("contents.json", json.dumps({"format": 1, "files": contents}).encode())
        progress(total, total)  # also where an update was damaged


def _named_artifacts(database: sqlite3.Connection) -> list[str]:
    """Every artifact that a row names, as :meth:`SqliteStore.collect` keeps them."""
    named = {sha256 for (sha256,) in database.execute("SELECT evaluation FROM run") if sha256}
    for row in database.execute("SELECT manifest, program, graph FROM tiers"):
        named |= {json.loads(ref)["sha256"] for ref in row if ref}
    for weights, private in database.execute("SELECT weights, private FROM versions WHERE NOT pruned"):
        named |= {ref["sha256"] for ref in (*json.loads(weights), *json.loads(private).values())}
    return sorted(named)


def restore(archive: Path, state: Path, at: float, *, by: str, progress: Progress = lambda done, total: None) -> None:
    """
    Make a state directory from a backup, whole or not at all.

    The numbers of assignments and versions skip ahead, so that none given out after the backup is used again.

    Args:
        archive: what :func:`backup` wrote.
        state: the directory to make; it must not exist, or be empty.
        at: wall time, and
        by: who restores, for the audit log.
        progress: told how many bytes of the archive are read, of how many.

    Raises:
        StoreError: if the archive is damaged, of a later release, or ``state`` is in use.

    """
    if state.exists() and any(state.iterdir()):
        raise StoreError(f"{state} is not empty: move it away first; a restore never overwrites")
    temporary = state.with_name(state.name + ".restoring")
    if temporary.exists():
        raise StoreError(f"{temporary} is left from a restore that broke off: remove it first")
    make_folder(state.parent)
    try:
        temporary.mkdir(mode=0o700)
        (temporary / "artifacts").mkdir()
        updates = _unpack(archive, temporary, progress)
        _take_up(temporary, updates, at, by, archive.name)
        for folder in (temporary / "artifacts", temporary):
            sync_folder(folder)
        if state.exists():
            state.rmdir()
        temporary.rename(state)
        sync_folder(state.parent)
    except (OSError, tarfile.TarError, sqlite3.DatabaseError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"cannot restore {archive} to {state}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack(archive: Path, folder: Path, progress: Progress) -> dict[str, bytes]:
    """Write the files of a backup, verified; the updates in it, by assignment."""
    updates = {}
    found = {}
    listed: dict[str, str] = {}
    size = archive.stat().st_size
    with tarfile.open(archive, "r:") as tar:
        for entry in tar:
            file = tar.extractfile(entry) if entry.isfile() else None
            # A sparse file claims more than the archive holds.
            if file is None or entry.issparse() or not _MEMBER.fullmatch(entry.name):
                raise StoreError(f"{archive} holds {entry.name!r}: it is not a backup of FTTE")
            content = file.read()
            progress(entry.offset_data + len(content), size)
            if entry.name == "contents.json":
                listed = _listed(archive, content)
                continue
            found[entry.name] = hashlib.sha256(content).hexdigest()
            if entry.name.startswith("artifacts/") and entry.name != f"artifacts/{found[entry.name]}":
                raise StoreError(f"{archive} is damaged: {entry.name} has another hash than its name")
            if entry.name.startswith("updates/"):
                updates[entry.name.removeprefix("updates/")] = content
            else:
                create_secret(folder / entry.name, content)
    if found != listed:
        raise StoreError(f"{archive} is damaged: its files are not those that it lists; use another backup")
    missing = {"state.sqlite", "run.key"} - found.keys()
    if missing:
        raise StoreError(f"{archive} has no {' and no '.join(sorted(missing))}: it is not a backup of a run")
    return updates


def _listed(archive: Path, content: bytes) -> dict[str, str]:
    """The files that an archive says it holds, and their hashes."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        data = None
    files = data.get("files") if isinstance(data, dict) and data.get("format") == 1 else None
    if not isinstance(files, dict):
        raise StoreError(f"{archive} is damaged: contents.json lists no files of format 1; use another backup")
    return files


def _take_up(folder: Path, updates: dict[str, bytes], at: float, by: str, archive: str) -> None:
    """Put the updates where the database looks for them, and go on beyond every number that may have been used."""
    segments = Segments(folder / "updates")
    with contextlib.closing(sqlite3.connect(folder / "state.sqlite", isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = FULL")
        database.execute("BEGIN IMMEDIATE")
        for (assignment, content), location in zip(
            updates.items(), segments.append(list(updates.values())), strict=True
        ):
            database.execute(
                "UPDATE updates SET segment = ?, start = ? WHERE assignment = ? AND size = ?",
                (location.segment, location.start, assignment, len(content)),
            )
        (last,) = database.execute("SELECT max(at) FROM audit").fetchone()
        seconds = math.ceil(max(at - (last or 0.0), 0.0))
        skipped = ASSIGNMENT_GAP + ASSIGNMENTS_PER_SECOND * seconds
        database.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'assignments'", (skipped,))
        (newest,) = database.execute("SELECT max(version) FROM versions").fetchone()
        if not isinstance(newest, int) or newest < 0:
            raise StoreError(f"{archive} holds no versions: it is not a backup of a run")
        for sha256 in _named_artifacts(database):
            if not (folder / "artifacts" / sha256).is_file():
                raise StoreError(f"{archive} lacks the artifact {sha256} that its database names; use another backup")
        first = (newest // VERSION_GAP + 1) * VERSION_GAP + VERSIONS_PER_SECOND * seconds
        database.execute("UPDATE run SET first_number = max(first_number, ?)", (first,))
        write_audit(database, at, by, "restored", "run", {"backup": archive, "version": newest})
        database.execute("COMMIT")
    segments.close()
