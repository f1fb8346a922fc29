"""What this machine must have for a run: a free port, room on the disk, open files, an admin folder."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator

from mobile_sdk.net.loopback import is_loopback
from mobile_sdk.sizes import format_bytes
from mobile_sdk.system.open_files import open_file_limits

from ..config import Config, ServerSection
from .findings import Finding

__all__ = ["check_disk", "check_open_files", "check_port", "check_server"]

ROOM_BYTES = 1_000_000_000
# Files that the process opens beside one per connection.
OTHER_FILES = 200


def check_port(section: ServerSection) -> Iterator[Finding]:
    """Whether devices' port can be listened on."""
    try:
        found = socket.getaddrinfo(section.host, section.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        yield Finding("error", f"server.host {section.host!r} is no address of this machine: {error.strerror or error}")
        return
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            try:
                probe.bind(address)
                probe.listen(1)
            except OSError as error:
                yield Finding(
                    "error",
                    f"cannot listen on {section.host}:{section.port}: {os.strerror(error.errno or 0)}; stop what uses "
                    "it, or set server.port (0: any that is free)",
                )
                return


def check_server(section: ServerSection) -> Iterator[Finding]:
    """Who can connect, and how they enrol."""
    if section.certificate is None and not is_loopback(section.host):
        yield Finding("warning", f"host {section.host} is served without TLS: anyone on the way can read updates")
    if is_loopback(section.host):
        yield Finding("ok", f"devices of this machine alone can connect, at {section.host}:{section.port}")
    elif section.token:
        yield Finding(
            "warning",
            "server.token lets whoever knows it enrol any number of devices: `ftte invite` makes better ones",
        )


def check_disk(config: Config) -> Iterator[Finding]:
    """Whether the state directory has room and can be written."""
    folder = config.run.state
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    yield Finding("ok" if free >= ROOM_BYTES else "warning", f"{format_bytes(free)} are free at {folder}")
    if not os.access(folder, os.W_OK) or not folder.is_dir():
        yield Finding("error", f"run.state: {folder} is no folder that can be written")


def check_open_files(section: ServerSection) -> Iterator[Finding]:
    """Whether as many files may be open as connections are allowed."""
    soft, hard = open_file_limits()
    wanted = section.connections + OTHER_FILES
    if soft < wanted:
        yield Finding(
            "warning",
            f"{soft} files may be open (at most {hard}), {section.connections} connections need {wanted}: "
            f"`ulimit -n {wanted}`, or LimitNOFILE of the systemd unit",
        )
    else:
        yield Finding("ok", f"{soft} files may be open")
