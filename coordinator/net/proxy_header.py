"""
The PROXY protocol, versions 1 and 2: with what a load balancer says whose connection it passes on.

https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt. The header comes before everything else, before TLS too. It
is read byte for byte and no further, and strictly: there is no guessing whether one is there.
"""

from __future__ import annotations

import ipaddress
import struct

__all__ = ["HeaderReader", "WrongHeader"]

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = struct.Struct(">12sBBH")

# The longest line of version 1, its end included; the most of version 2 that follows its fixed part.
MOST_LINE_BYTES = 107
MOST_BYTES = 4_096

_FAMILIES = {b"TCP4": ipaddress.IPv4Address, b"TCP6": ipaddress.IPv6Address}
_LOCAL, _PROXY = 0x20, 0x21
_UNKNOWN, _TCP4, _TCP6 = 0x00, 0x11, 0x21


class WrongHeader(ValueError):
    """What came is no header of the PROXY protocol; the message says why not."""


class HeaderReader:
    """
    Reads one header without I/O.

    ``wanted`` is how many bytes to :meth:`feed` next, at the most; 0 once the header is complete. ``address`` is then
    the address of the peer; empty where the load balancer speaks for itself, or does not know.
    """

    def __init__(self) -> None:
        self.wanted = len(_SIGNATURE)
        self.address = ""
        self._bytes = b""
        self._length = 0

    def feed(self, data: bytes) -> None:
        """
        Take the next bytes, no more than are ``wanted``.

        Raises:
            WrongHeader: if they are no part of a header.

        """
        self._bytes += data
        self.wanted -= len(data)
        if self._bytes[:1] == b"P":
            self._read_line()
        elif not _SIGNATURE.startswith(self._bytes[: len(_SIGNATURE)]):
            raise WrongHeader("it begins with no header of the PROXY protocol")
        elif not self.wanted:
            self._read_binary()

    def _read_line(self) -> None:
        if not self._bytes.startswith(b"PROXY "[: len(self._bytes)]):
            raise WrongHeader("it begins with no header of the PROXY protocol")
        if self.wanted:
            return
        if not self._bytes.endswith(b"\r\n"):
            if len(self._bytes) >= MOST_LINE_BYTES:
                raise WrongHeader("its line does not end")
            # Nobody may read beyond the line: two bytes end it, and after "\r" one is missing.
            self.wanted = 1
            return
        words = self._bytes[:-2].split(b" ")
        if words[1:2] == [b"UNKNOWN"]:
            return
        if len(words) != 6 or words[1] not in _FAMILIES:
            raise WrongHeader("its line is not PROXY TCP4|TCP6 and two addresses and ports")
        try:
            source, _ = (_FAMILIES[words[1]](word.decode("ascii")) for word in words[2:4])
        except ValueError:
            raise WrongHeader("its line has an address that is none of its family") from None
        for port in words[4:]:
            if not port.isdigit() or str(int(port)).encode() != port or int(port) > 65_535:
                raise WrongHeader("its line has a port that is none")
        self.address = str(source)

    def _read_binary(self) -> None:
        if len(self._bytes) < _FIXED.size:
            self.wanted = _FIXED.size - len(self._bytes)
            return
        _, command, family, length = _FIXED.unpack_from(self._bytes)
        if len(self._bytes) == _FIXED.size:
            if command not in (_LOCAL, _PROXY):
                raise WrongHeader("it has another version or command than LOCAL and PROXY of version 2")
            if length > MOST_BYTES:
                raise WrongHeader(f"it is {length} bytes long")
            if command == _PROXY and length < {_TCP4: 12, _TCP6: 36}.get(family, 0):
                raise WrongHeader("it is too short for its addresses")
            if command == _PROXY and family not in (_UNKNOWN, _TCP4, _TCP6):
                raise WrongHeader("it is about something else than TCP")
            self.wanted = length
            if length:
                return
        if command == _PROXY and family == _TCP4:
            self.address = str(ipaddress.IPv4Address(self._bytes[16:20]))
        elif command == _PROXY and family == _TCP6:
            self.address = str(ipaddress.IPv6Address(self._bytes[16:32]))
