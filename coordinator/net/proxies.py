"""Connections that load balancers pass on, with the address of who is behind them."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Sequence
from typing import Protocol, cast

from .peer_log import PeerLog
from .proxy_header import HeaderReader, WrongHeader

__all__ = ["Addressed", "PassedOn", "Proxies"]

log = logging.getLogger(__name__)
peers = PeerLog(log)


class Addressed(Protocol):
    """An asyncio protocol that is told the address of its peer before it is given the connection."""

    address: str


class Proxies:
    """
    Load balancers that are believed.

    Args:
        networks: their addresses, such as ``10.0.0.0/8``.

    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(network) for network in networks]
        self.pending: dict[asyncio.Task[None], None] = {}

    def __contains__(self, address: str) -> bool:
        try:
            peer = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(peer in network for network in self._networks)

    def close(self) -> None:
        """Cut connections that have not come so far as to be somebody's."""
        for task in self.pending:
            task.cancel()


class PassedOn(asyncio.Protocol):
    """
    Reads the header that a load balancer sends first, then hands the connection over.

    Not a byte beyond the header is read: what follows is for TLS, which neither asyncio nor uvloop can begin with bytes
    that were read before. So the socket itself is taken from the transport, before that reads anything. Whoever is none
    of ``proxies`` speaks for themself, and a header of theirs is what any other wrong beginning is.

    Args:
        door: gets the connection.
        proxies: who is believed.
        tls: of the connection, if it has any.
        seconds: how long the header may take, and again TLS.

    """

    def __init__(self, door: Addressed, proxies: Proxies, tls: ssl.SSLContext | None, seconds: float) -> None:
        self._door = door
        self._proxies = proxies
        self._tls = tls
        self._seconds = seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = str((transport.get_extra_info("peername") or ("",))[0])
        taken = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        taken.setblocking(False)
        cast(asyncio.Transport, transport).abort()  # which closes its own descriptor of the connection alone
        task = asyncio.get_running_loop().create_task(self._serve(taken, peer))
        self._proxies.pending[task] = None
        task.add_done_callback(self._proxies.pending.pop)

    async def _serve(self, taken: socket.socket, peer: str) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            stack.callback(taken.close)
            try:
                self._door.address = peer
                if peer in self._proxies:
                    async with asyncio.timeout(self._seconds):
                        self._door.address = await _read_header(taken) or peer
                handshake = {"ssl_handshake_timeout": self._seconds} if self._tls else {}
                door = cast(asyncio.Protocol, self._door)
                await loop.connect_accepted_socket(lambda: door, taken, ssl=self._tls, **handshake)
                stack.pop_all()  # the connection closes it
            except WrongHeader as error:
                peers.warning(peer, "the load balancer at %s sends no header: %s", peer, error)
            except (OSError, TimeoutError) as error:  # errors of TLS are OSErrors, too
                log.debug("a connection from %s came to nothing: %s", self._door.address, error)


async def _read_header(taken: socket.socket) -> str:
    reader, loop = HeaderReader(), asyncio.get_running_loop()
    while reader.wanted:
        data = await loop.sock_recv(taken, reader.wanted)
        if not data:
            raise ConnectionResetError("it ended before its header")  # as when a load balancer looks who listens
        reader.feed(data)
    return reader.address
