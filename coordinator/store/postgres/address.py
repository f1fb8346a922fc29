"""Where a PostgreSQL database is, without its password wherever people read it."""

from __future__ import annotations

import hashlib
from urllib.parse import parse_qs, urlsplit

from ...errors import ConfigError

__all__ = ["Address", "schema_name"]

# PostgreSQL cuts names beyond this.
LONGEST_NAME = 63


class Address:
    """
    The address of a database, ``postgresql://user:password@host:port/database``.

    ``str()`` gives host, port and database alone; the address itself is in ``url``.

    Raises:
        ConfigError: if it is no such address; the message does not repeat it.

    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigError(_NO_ADDRESS) from None
        if parts.scheme not in ("postgresql", "postgres"):
            raise ConfigError(_NO_ADDRESS)
        given = parse_qs(parts.query)
        self.url = url
        self.password = parts.password or given.get("password", [""])[0]
        place = host or given.get("host", ["this machine"])[0]
        port_text = f":{port or given.get('port', [''])[0]}".rstrip(":")
        database = parts.path.lstrip("/") or given.get("dbname", given.get("database", [""]))[0]
        self._words = f"{place}{port_text}/{database}".rstrip("/")

    def __str__(self) -> str:
        return self._words

    def __repr__(self) -> str:
        return f"Address({self._words!r})"

    def hide(self, text: str) -> str:
        """``text`` without the password."""
        return text.replace(self.password, "***") if self.password else text


_NO_ADDRESS = (
    "store.postgres is no address of a database: write postgresql://user@host:port/database, and leave the password "
    "to the environment variable PGPASSWORD or to ~/.pgpass"
)


def schema_name(run: str) -> str:
    """The PostgreSQL schema that holds a run."""
    name = f"ftte_{run}"
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:46]}_{hashlib.sha256(run.encode()).hexdigest()[:16]}"
