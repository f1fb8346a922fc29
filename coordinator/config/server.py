"""``[server]`` and ``[gateways]``: where devices connect, and the machines that take connections for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from mobile_sdk.net.loopback import is_loopback

from .section import HostPort, Network, Section

__all__ = ["GatewaysSection", "ServerSection", "split_address"]


class ServerSection(Section):
    """
    Where devices connect. Off loopback, TLS is needed, and devices enrol with a token.

    ``token`` lets any number of devices enrol; without it (and off loopback) they need one that ``ftte invite`` made.
    ``public_url`` is what invites say where it differs from host and port, behind a proxy for instance. At most
    ``connections`` are open at once, ``handshakes`` of them by peers that have not proved who they are, and
    ``handshakes_per_address`` of those from one address; each has ``handshake_seconds`` for it. ``proxies``: addresses
    of load balancers, such as ``10.0.0.0/8``, that say by the PROXY protocol whose connection they pass on.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    certificate: Path | None = None
    private_key: Path | None = None
    token: str = ""
    insecure: bool = False
    open_enrolment: bool | None = None
    public_url: Annotated[str, Field(pattern=r"^wss?://[^\s]+$")] | None = None
    connections: Annotated[int, Field(ge=1)] = 10_000
    handshakes: Annotated[int, Field(ge=1)] = 1_000
    handshakes_per_address: Annotated[int, Field(ge=1)] = 500
    handshake_seconds: Annotated[float, Field(gt=0)] = 20.0
    drain_seconds: Annotated[float, Field(ge=0)] = 20.0
    proxies: tuple[Network, ...] = ()

    @property
    def needs_token(self) -> bool:
        """Whether a device must give a token to enrol."""
        if self.open_enrolment is not None:
            return not self.open_enrolment
        return bool(self.token) or not is_loopback(self.host)

    @model_validator(mode="after")
    def _safe_off_loopback(self) -> ServerSection:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together: give both or neither")
        if not is_loopback(self.host):
            if self.certificate is None and not self.insecure:
                raise ValueError(
                    f"host {self.host} is not this machine: give certificate and private_key, or set insecure = true"
                )
            if self.open_enrolment:
                raise ValueError(f"host {self.host} is not this machine: open_enrolment would let anybody in")
        return self


class GatewaysSection(Section):
    """
    How gateways of other machines and their conductor find and know each other; see docs/how-to/scaling.md.

    ``listen``: where the conductor waits for gateways, ``HOST:PORT``, by TLS. ``address``: what they call instead,
    where ``listen`` is no address that they can; with the run in a database they find it there. ``conductor``: the
    address, for gateways of a run that is in none. ``secret``: a file that conductors and gateways have, which lets
    them in. ``folder``: where a gateway keeps copies of files and what has come of uploads; by default a temporary one.
    """

    listen: HostPort | None = None
    address: HostPort | None = None
    conductor: HostPort | None = None
    secret: Path | None = None
    folder: Path | None = None

    @model_validator(mode="after")
    def _proved(self) -> GatewaysSection:
        if self.secret is None and (self.listen or self.conductor):
            raise ValueError(
                "listen and conductor need a secret that both sides have: give secret = FILE with 32 random bytes"
            )
        if self.address is not None and self.listen is None:
            raise ValueError("address is where gateways reach what listens: give listen as well")
        return self


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; brackets around an IPv6 address are taken off."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
