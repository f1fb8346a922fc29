"""Sockets between processes of one machine, and ports that several of them share; Windows has neither."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

__all__ = ["LIMIT", "Serve", "connect_locally", "listen_locally", "share_port"]

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

# The longest line or part that a stream holds before its reader has taken it, in bytes.
LIMIT = 2**20


async def connect_locally(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """
    Connect to the process that listens on the Unix socket ``path``.

    Raises:
        OSError: if nobody listens there, or this is Windows.

    """
    if sys.platform == "win32":
        raise OSError(f"{path} is a Unix socket, which Windows has not")
    return await asyncio.open_unix_connection(str(path), limit=LIMIT)


async def listen_locally(serve: Serve, path: Path) -> asyncio.Server:
    """
    Listen on the Unix socket ``path``; ``serve`` is called for each connection.

    Raises:
        OSError: if that is not possible there, or this is Windows.

    """
    if sys.platform == "win32":
        raise OSError(f"{path} is a Unix socket, which Windows has not")
    return await asyncio.start_unix_server(serve, str(path), limit=LIMIT)


def share_port(held: socket.socket) -> None:
    """
    Let other processes of this user listen on the port that ``held`` is about to be bound to.

    Raises:
        OSError: on Windows.

    """
    if sys.platform == "win32":
        raise OSError("Windows does not spread the connections of one port over processes")
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
