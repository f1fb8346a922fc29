"""A connection to PostgreSQL, as far as the store uses it: the driver itself has no types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

__all__ = ["Connection"]

Row = Sequence[Any]


class Connection(Protocol):
    """What :class:`asyncpg.Connection` and those that a pool gives have in common."""

    async def execute(self, query: str, *arguments: Any) -> str:
        """Run a statement; its tag, such as ``DELETE 3``."""
        ...

    async def executemany(self, query: str, arguments: Iterable[Row]) -> None:
        """Run a statement for each of ``arguments``."""
        ...

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        """The rows that a query gives."""
        ...

    async def fetchrow(self, query: str, *arguments: Any) -> Any:
        """The first row, or None."""
        ...

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        """The first value of the first row, or None."""
        ...

    async def copy_records_to_table(
        self, table_name: str, *, columns: Iterable[str], records: Iterable[Row], timeout: float | None = None
    ) -> str:
        """Add rows by ``COPY`` in its binary format."""
        ...

    def transaction(self, *, isolation: str | None = None, readonly: bool = False) -> Any:
        """A transaction, to be started and ended, or for ``async with``."""
        ...

    def cursor(self, query: str, *arguments: Any) -> Any:
        """The rows of a query, little by little; in a transaction."""
        ...

    def terminate(self) -> None:
        """Close it at once, whatever it does."""
        ...

    def get_server_version(self) -> Any:
        """The server's version."""
        ...
