"""Objects as files in a folder, which the machines that need them share."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from mobile_sdk.system.syncs import sync_file, sync_folder

from ...errors import StoreError
from ..artifacts import disk_available

__all__ = ["FolderObjects"]


class FolderObjects:
    """
    The :class:`~coordinator.store.objects.interface.Objects` of a folder; created if missing.

    Each file is synced, then linked to its name, then its folder is synced: a file of that name is whole.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __str__(self) -> str:
        return str(self._folder)

    def put_if_absent(self, key: str, content: bytes | memoryview) -> bool:
        with disk_available():
            path = self._folder / key
            if path.exists():
                sync_folder(path.parent)  # whoever wrote it may not have come to this point
                return False
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
            try:
                with temporary.open("xb") as file:
                    file.write(content)
                    file.flush()
                    sync_file(file.fileno())
                # Unlike a rename, a link does not take the place of another's file.
                os.link(temporary, path)
                new = True
            except FileExistsError:
                new = False
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(path.parent)
            return new

    def get(self, key: str) -> bytes:
        with disk_available():
            try:
                return (self._folder / key).read_bytes()
            except FileNotFoundError:
                raise StoreError(f"the file {self._folder / key} is missing: restore it from a backup") from None

    def range(self, key: str, start: int, size: int) -> bytes:
        with disk_available():
            try:
                with (self._folder / key).open("rb") as file:
                    file.seek(start)
                    return file.read(size)
            except FileNotFoundError:
                raise StoreError(f"the file {self._folder / key} is missing: restore it from a backup") from None

    def delete(self, key: str) -> None:
        with disk_available():
            (self._folder / key).unlink(missing_ok=True)
