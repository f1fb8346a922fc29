"""The errors of PostgreSQL and its driver, as the store's own."""

from __future__ import annotations

import asyncpg

from ...errors import StoreError, StoreUnavailable, Superseded
from .address import Address

__all__ = ["REPEAT", "UNAVAILABLE", "is_lost", "translate"]

# The connection is gone, or will be: whether a commit under way happened is not known.
_LOST: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.exceptions.OperatorInterventionError,
)

# The server is there, but cannot write just now.
_BUSY: tuple[type[BaseException], ...] = (
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.exceptions.PostgresSystemError,
    asyncpg.exceptions.TransactionRollbackError,
)

# It passes: the same may succeed later.
UNAVAILABLE = (*_LOST, *_BUSY)

# Nothing happened, and the same again may succeed.
REPEAT: tuple[type[BaseException], ...] = (
    asyncpg.exceptions.SerializationError,
    asyncpg.exceptions.DeadlockDetectedError,
)

_FENCED = "FT001"


def is_lost(error: BaseException) -> bool:
    """Whether an error means that the connection is of no use any more."""
    # Errors of arguments are the driver's own as well, and values that cannot be sent.
    return isinstance(error, _LOST) and not isinstance(error, ValueError)


def translate(error: BaseException, address: Address) -> BaseException:
    """
    An error as the store raises it; one that is none of the database's stays as it is.

    Args:
        error: what came.
        address: of the database; the message names it without its password.

    """
    if getattr(error, "sqlstate", None) == _FENCED:
        return Superseded("another process leads the run by now: this one writes nothing any more; stop it")
    if is_lost(error) or isinstance(error, _BUSY):
        words = address.hide(str(error)) or type(error).__name__
        return StoreUnavailable(f"the database {address} cannot be used just now: {words}")
    if isinstance(
        error, asyncpg.exceptions.CharacterNotInRepertoireError | asyncpg.exceptions.UntranslatableCharacterError
    ):
        return StoreError("PostgreSQL holds no text with a zero character: give another")
    if isinstance(error, asyncpg.exceptions.InsufficientPrivilegeError):
        return StoreError(
            f"the database {address} refuses: {address.hide(str(error))}; give its user the right: "
            "GRANT CREATE ON DATABASE ... TO ..."
        )
    if isinstance(error, asyncpg.exceptions.InvalidAuthorizationSpecificationError):
        return StoreError(
            f"the database {address} lets this user not in: {address.hide(str(error))}; set PGPASSWORD, or see "
            "pg_hba.conf"
        )
    if isinstance(error, asyncpg.exceptions.InvalidCatalogNameError):
        return StoreError(f"the server has no database {address}: create it first, with `createdb`")
    return error
