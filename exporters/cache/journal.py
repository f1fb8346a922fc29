"""What a search has worked out so far, in a file, so that it can be stopped and goes on where it was."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from mobile_sdk.system.syncs import sync_file

from ..errors import ExportError

__all__ = ["Journal"]


class Journal:
    """
    Values by name; with a path, also after a restart.

    Every :meth:`put` replaces the file atomically: another process, or a crash, sees the old one or the new one.

    Args:
        path: the file, made when the first value is put; kept in memory alone where :obj:`None`.

    Raises:
        ExportError: if the file is no journal.

    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._values: dict[str, Any] = {}
        if path is not None and path.exists():
            try:
                self._values = dict(json.loads(path.read_text()))
            except (OSError, TypeError, ValueError) as error:
                raise ExportError(f"{path} is not the state of a search ({error}); remove it to begin anew") from error

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __len__(self) -> int:
        return len(self._values)

    def get(self, name: str) -> Any:
        """The value put as ``name``."""
        return self._values[name]

    def put(self, name: str, value: Any) -> None:
        """Keep a JSON value; it is on disk when this returns."""
        self._values[name] = value
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self.path.parent, prefix=self.path.name, delete=False) as file:
            json.dump(self._values, file)
            file.flush()
            sync_file(file.fileno())
        Path(file.name).replace(self.path)
