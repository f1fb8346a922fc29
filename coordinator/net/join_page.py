"""
The page that an invitation's ``https`` link opens: it hands the invitation on to the app.

Cameras open ``https`` links, and show links of an app's own scheme as text. The invitation stands behind the ``#``,
which a browser does not send: neither this server nor a proxy sees the token. The page is the same for everybody.
"""

from __future__ import annotations

import base64
import hashlib
import re
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from mobile_sdk.invite import PAGE_PATH

__all__ = ["answer_page"]

# Only letters that an invitation has: what stands there is put into links.
_SCRIPT = """
const query = location.hash.slice(1);
if (/^[A-Za-z0-9%&=:/._~+-]+$/.test(query) && query.includes("run=")) {
  document.getElementById("app").href = "ftte://join?" + query;
  document.getElementById("android").href =
    "intent://join?" + query + "#Intent;scheme=ftte;package=org.ftte.demo;end";
  document.getElementById("link").textContent = "ftte://join?" + query;
} else {
  document.body.textContent = "This link carries no invitation: ask for a new one.";
}
"""

_PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Join with FTTE</title>
<body>
<h1>An invitation to train together</h1>
<p><a id="android">Open it in the FTTE app</a> (Android)</p>
<p><a id="app">Open it in another app that reads FTTE's links</a></p>
<p>Or copy it into the app's page Join:</p>
<p><code id="link"></code></p>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _policy() -> str:
    """The browser runs this script alone, loads nothing, and tells no other site of the link."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def answer_page(connection: ServerConnection, request: Request) -> Response | None:
    """The page, for those who ask for it; none for a device, which goes on to its WebSocket."""
    if re.split(r"[?#]", request.path)[0] != PAGE_PATH or "Upgrade" in request.headers:
        return None
    body = _PAGE.encode()
    headers = Headers(
        {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": _policy(),
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
        }
    )
    return Response(HTTPStatus.OK, "OK", headers, body)
