"""What the sections of a run file are made of."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from mobile_sdk.sizes import parse_bytes

__all__ = ["HostPort", "Network", "Section", "Size"]

Size = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]


def _network(value: str) -> str:
    return str(ipaddress.ip_network(value))


# An address, or a network such as 10.0.0.0/8.
Network = Annotated[str, AfterValidator(_network)]

# HOST:PORT, an IPv6 address in brackets.
HostPort = Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$")]


class Section(BaseModel):
    """A table of a run file or a scenario: keys that it has not, and numbers without end, are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
