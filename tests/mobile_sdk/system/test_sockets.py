"""Processes of one machine reach each other; where the system has no means for it, that is said."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from mobile_sdk.system import sockets


def test_what_is_written_on_one_side_is_read_on_the_other(tmp_path: Path) -> None:
    async def main() -> bytes:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.readline()).upper())
            writer.close()

        async with await sockets.listen_locally(answer, tmp_path / "s"):
            reader, writer = await sockets.connect_locally(tmp_path / "s")
            writer.write(b"hello\n")
            try:
                return await reader.read()
            finally:
                writer.close()

    assert asyncio.run(main()) == b"HELLO\n"


def test_a_port_is_shared_by_those_that_agree_to_it_and_by_nobody_else() -> None:
    with socket.socket() as first, socket.socket() as second, socket.socket() as other:
        for each in (first, second):
            sockets.share_port(each)
        first.bind(("127.0.0.1", 0))
        second.bind(first.getsockname())
        with pytest.raises(OSError, match="in use"):
            other.bind(first.getsockname())


def test_windows_is_told_what_it_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("nobody can connect")

    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(OSError, match="Windows"):
        asyncio.run(sockets.connect_locally(tmp_path / "s"))
    with pytest.raises(OSError, match="Windows"):
        asyncio.run(sockets.listen_locally(serve, tmp_path / "s"))
    with socket.socket() as held, pytest.raises(OSError, match="Windows"):
        sockets.share_port(held)
