"""An invitation with its QR code, as squares that a page can draw."""

from __future__ import annotations

from typing import Any

import segno

from mobile_sdk.invite import Invite

__all__ = ["qr_rows"]


def qr_rows(link: str) -> dict[str, Any]:
    """
    The QR codes of an invitation.

    Args:
        link: of :mod:`mobile_sdk.invite`.

    Returns:
        ``rows``: the code's modules without a border, a text of 0 and 1 for each row; ``page``: the ``https`` link that
        cameras open, where the coordinator has TLS.

    """
    invite = Invite.parse(link)
    code = segno.make(link, error="m", micro=False)
    rows = ["".join("1" if module else "0" for module in row) for row in code.matrix]
    return {"rows": rows, "page": invite.page if invite.url.startswith("wss://") else ""}
