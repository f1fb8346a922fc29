"""
Links that invite a device to a run: ``ftte://join?url=...&run=...&key=...``.

`ftte invite` prints one as text and as a QR code; an app that opens it has all that ``Client`` needs. The
query is percent-encoded UTF-8. Each of these fields may come once, in any order:

    v       version of the link, 1
    url     where the coordinator is: wss://host[:port], or ws:// to this machine
    run     the run's name
    key     the run's Ed25519 public key, 64 hex digits: what the app pins
    token   what to enrol with; left out where enrolment is open
    cert    SHA-256 of the server's certificate (DER), 64 hex digits: trust this very certificate
            instead of the system's authorities; left out where those vouch for it

The same fields behind the ``#`` of ``https://host[:port]/join`` are the same invitation: cameras open such a link, and
show one of another scheme as text. A coordinator with TLS serves the page, which hands the link on to the app.

Fields that are not known are refused: a newer link may carry something that must not be passed over.
"""

from __future__ import annotations

import dataclasses
import re
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from .errors import InviteError
from .protocol.texts import NAME_RULE, is_name, shortened

__all__ = ["PAGE_PATH", "Invite"]

VERSION = "1"
# Where a coordinator serves the page.
PAGE_PATH = "/join"
_HEX = re.compile(r"[0-9a-f]{64}")
_FIELDS = ("v", "url", "run", "key", "token", "cert")


@dataclasses.dataclass(frozen=True)
class Invite:
    """
    What a device needs to join a run; ``str(invite)`` is the link, ``repr`` hides the token.

    Raises:
        InviteError: if a field is not what the module's table says.

    """

    url: str
    run: str
    key: str
    token: str = dataclasses.field(default="", repr=False)
    certificate: str = ""

    def __post_init__(self) -> None:
        if not _is_address(self.url):
            raise InviteError(f"the link's url is {shortened(self.url)}, not an address such as wss://example.org:8765")
        if not is_name(self.run):
            raise InviteError(f"the link names the run {shortened(self.run)}: a name has {NAME_RULE}")
        if _HEX.fullmatch(self.key) is None:
            raise InviteError("the link's key must be 64 hex digits: ask for a new link")
        if self.certificate and _HEX.fullmatch(self.certificate) is None:
            raise InviteError("the link's cert must be 64 hex digits: ask for a new link")
        if len(self.token) > 256 or not self.token.isprintable():
            raise InviteError("the link's token must be printable, of at most 256 characters: ask for a new link")

    def __str__(self) -> str:
        fields = {"v": VERSION, "url": self.url, "run": self.run, "key": self.key}
        if self.token:
            fields["token"] = self.token
        if self.certificate:
            fields["cert"] = self.certificate
        return f"ftte://join?{urlencode(fields, quote_via=quote, safe=':/')}"

    @property
    def page(self) -> str:
        """
        The invitation as an ``https`` link to the coordinator's own page.

        Raises:
            InviteError: if the coordinator has no TLS.

        """
        parts = urlsplit(self.url)
        if parts.scheme != "wss":
            raise InviteError(f"{self.url} has no page for the invitation: it needs TLS, wss://")
        return f"https://{parts.netloc}{PAGE_PATH}#{str(self).partition('?')[2]}"

    @classmethod
    def parse(cls, link: str) -> Invite:
        """
        Read a link.

        Raises:
            InviteError: if it is none, saying what is wrong.

        """
        try:
            parts = urlsplit(link.strip())
        except ValueError as error:
            raise InviteError(f"the link is damaged: {error}") from error
        if parts.scheme == "https" and parts.path == PAGE_PATH and parts.fragment:
            query = parts.fragment
        elif parts.scheme == "ftte" and parts.netloc == "join" and parts.path in ("", "/"):
            query = parts.query
        else:
            raise InviteError(
                "this is not a link that invites to a run: it must begin with ftte://join?, or be https://.../join#..."
            )
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict")
        except ValueError as error:
            raise InviteError(f"the link is damaged: {error}") from error
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise InviteError("the link has a field twice: ask for a new link")
        unknown = sorted(fields.keys() - set(_FIELDS))
        if unknown:
            raise InviteError(f"the link has a field {unknown[0]!r} that this SDK does not know: update the app")
        if fields.get("v", VERSION) != VERSION:
            raise InviteError(f"the link is of version {fields['v']!r}, this SDK reads {VERSION}: update the app")
        for name in ("url", "run", "key"):
            if name not in fields:
                raise InviteError(f"the link lacks {name!r}: ask for a new link")
        return cls(fields["url"], fields["run"], fields["key"], fields.get("token", ""), fields.get("cert", ""))


def _is_address(url: str) -> bool:
    """Whether ``url`` is one of a WebSocket server, with a host and a port that can be."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("ws", "wss") and bool(parts.hostname) and port != 0 and url.isprintable()
