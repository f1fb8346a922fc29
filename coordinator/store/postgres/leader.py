"""Where the leader of a run is, for processes that read nothing else of its database."""

from __future__ import annotations

from typing import Any

import asyncpg

from ...errors import StoreError, StoreUnavailable
from .address import Address, schema_name
from .failures import translate
from .schema import quoted

__all__ = ["LeaderAddress"]

SECONDS = 5.0

# Nothing is there yet: the run has not begun, or it is of a release before addresses were kept.
_NOT_YET = (
    asyncpg.exceptions.InvalidSchemaNameError,
    asyncpg.exceptions.UndefinedTableError,
    asyncpg.exceptions.UndefinedColumnError,
)


class LeaderAddress:
    """
    Looks up where the conductor that leads ``run`` waits for gateways. The row ``lease`` is all that it reads.

    Args:
        address: of the database.
        run: the run's name.

    """

    def __init__(self, address: Address, run: str) -> None:
        self._address = address
        self._query = (
            f"SELECT address FROM {quoted(schema_name(run))}.lease WHERE until > clock_timestamp() AND holder <> ''"
        )
        self._connection: Any = None

    async def find(self) -> str:
        """
        The address as the leader gave it; empty where nobody leads, or the leader does not listen yet.

        Raises:
            StoreUnavailable: if the database does not answer, or lets nobody in.

        """
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self._address.url, timeout=SECONDS, command_timeout=SECONDS)
            return str(await self._connection.fetchval(self._query) or "")
        except _NOT_YET:
            return ""
        except Exception as error:
            translated = translate(error, self._address)
            if not isinstance(translated, StoreError):
                raise
            raise StoreUnavailable(str(translated)) from None

    async def close(self) -> None:
        """Close the connection to the database."""
        if self._connection is not None:
            self._connection.terminate()
