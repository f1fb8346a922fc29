"""The store in PostgreSQL: rows and small updates there, everything larger in objects."""

from .address import Address, schema_name
from .store import PostgresStore

__all__ = ["Address", "PostgresStore", "schema_name"]
