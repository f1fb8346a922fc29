"""``[admin]`` and ``[dashboard]``: how people and programs operate a coordinator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from mobile_sdk.net.loopback import is_loopback

from .section import Section

__all__ = ["AdminSection", "DashboardSection"]


class AdminSection(Section):
    """
    Where `ftte runs`, `ftte devices` and the like reach the coordinator.

    ``folder`` gets the bearer token (``admin.token``) and the Unix socket (``admin.sock``); with a ``port``, loopback
    is listened on instead of the socket.
    """

    folder: Path = Path(".ftte")
    port: Annotated[int, Field(ge=0, le=65535)] | None = None


class DashboardSection(Section):
    """
    The web page on which people see and operate the runs; `ftte dashboard` gives an address that lets one in.

    It listens on ``port`` (by default 8766, or any free one where that is taken). Off loopback it needs TLS, with
    ``certificate`` and ``private_key`` of its own. ``names``: host names by which browsers reach it, besides ``host``;
    requests under another name are refused. Whoever is in stays so for ``hours``.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    names: tuple[str, ...] = ()
    hours: Annotated[float, Field(gt=0, le=720)] = 12.0

    @model_validator(mode="after")
    def _safe_off_loopback(self) -> DashboardSection:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together: give both or neither")
        if not is_loopback(self.host) and self.certificate is None:
            raise ValueError(
                f"host {self.host} is not this machine: give certificate and private_key, as `ftte certificate` makes"
            )
        if self.host in ("0.0.0.0", "::") and not self.names:
            raise ValueError(f'host {self.host} is no name of a machine: give names = ["..."], as browsers call it')
        return self
