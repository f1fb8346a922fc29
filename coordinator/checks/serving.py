"""What ``ftte serve`` checks before it plans anything: all that needs no task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..config import Config, shared_server
from .certificate import check_certificate
from .findings import Finding
from .fleet import check_together
from .machine import check_disk, check_open_files, check_port, check_server

__all__ = ["check_before_serving"]


def check_before_serving(configs: Mapping[Path, Config], *, port: bool = True) -> Iterator[Finding]:
    """
    Whether these run files can be served together on this machine.

    Args:
        configs: the run files, by their paths.
        port: whether this process is to listen for devices; else gateways do.

    """
    yield from check_together(configs)
    for config in configs.values():
        yield from check_disk(config)
    section = shared_server(list(configs.values()))
    if port:
        yield from check_port(section)
    yield from check_server(section)
    yield from check_certificate(section)
    yield from check_open_files(section)
