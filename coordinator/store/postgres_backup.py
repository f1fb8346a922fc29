"""Backups of runs in PostgreSQL: the same archives as those of state directories, so either becomes the other."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from mobile_sdk.system.secret_files import create_secret
from mobile_sdk.system.syncs import sync_folder

from ..config import Config
from ..errors import StoreError
from .open import open_postgres
from .sqlite import SqliteStore, backup, restore
from .sqlite.backup import KEYS

__all__ = ["backup_postgres", "restore_postgres"]


def backup_postgres(
    config: Config, archive: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """
    Write a backup of a run, in use or not, to the new file ``archive``. The keys are those of this machine.

    Args:
        config: the run file.
        archive: what to write.
        progress: called with how much is written, of how much.

    Returns:
        Its size in bytes.

    Raises:
        ConfigError: if the run file names no database.
        StoreError: if there is no run, a file of it is damaged, or the archive is there or cannot be written.

    """
    from .copying import copy_out

    state = config.run.state
    if not (state / "run.key").exists():
        raise StoreError(f"{state} has no run.key: make the backup on a machine that has the run's key")
    store = open_postgres(config, leading=False)
    try:
        with tempfile.TemporaryDirectory(dir=state, prefix=".backup-") as name:
            copy = Path(name) / "state"
            copy_out(store, copy)
            for key in KEYS:
                if (state / key).exists():
                    create_secret(copy / key, (state / key).read_bytes())
            return backup(copy, archive, progress)
    finally:
        store.close()


def restore_postgres(
    archive: Path,
    config: Config,
    at: float,
    *,
    by: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """
    Bring a backup into the database that a run file names, which holds no such run; whole or not at all.

    Args:
        archive: what :func:`backup_postgres` wrote, or the backup of a state directory.
        config: the run file; its state directory gets the keys, and must have none.
        at: wall time, and
        by: who restores, for the audit log.
        progress: called with how much is read, of how much.

    Raises:
        ConfigError: if the run file names no database.
        StoreError: if the archive is damaged or of a later release, or there is a run or a key already.

    """
    from .copying import copy_in

    state = config.run.state
    if any((state / key).exists() for key in KEYS):
        raise StoreError(f"{state} has a run.key already: move it away first; a restore never overwrites")
    store = open_postgres(config)
    try:
        with tempfile.TemporaryDirectory(dir=state, prefix=".restore-") as name:
            folder = Path(name) / "state"
            restore(archive, folder, at, by=by, progress=progress)
            copy = SqliteStore(folder)
            try:
                copy_in(copy, store)
            finally:
                copy.close()
            for key in KEYS:
                if (folder / key).exists():
                    shutil.move(folder / key, state / key)
            sync_folder(state)
    finally:
        store.close()
