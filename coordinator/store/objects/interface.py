"""What a place for large things can do: four methods."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Objects"]


class Objects(Protocol):
    """
    Large things, by keys such as ``artifacts/<sha256>``; they never change. Methods block.

    Each raises :exc:`~coordinator.errors.StoreUnavailable` where the place cannot be used just now.
    """

    def put_if_absent(self, key: str, content: bytes | memoryview) -> bool:
        """Keep an object, durably when this returns; false if there is one of this key already."""
        ...

    def get(self, key: str) -> bytes:
        """
        An object.

        Raises:
            StoreError: if there is none of this key.

        """
        ...

    def range(self, key: str, start: int, size: int) -> bytes:
        """
        ``size`` bytes of an object from ``start`` on; fewer where it ends before.

        Raises:
            StoreError: if there is none of this key.

        """
        ...

    def delete(self, key: str) -> None:
        """Delete an object, if there is one."""
        ...
