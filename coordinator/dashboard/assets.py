"""The page's files, read once, packed once, and served from memory."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from aiohttp import web

__all__ = ["Assets"]

_FOLDER = Path(__file__).with_name("static")
_TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}


class Assets:
    """The files of ``static``, by their paths; ``/`` is ``index.html``. Reads them, and blocks for it."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[str, bytes, bytes, str]] = {}
        for file in sorted(_FOLDER.rglob("*")):
            kind = _TYPES.get(file.suffix)
            if file.is_file() and kind is not None:
                name = file.relative_to(_FOLDER).as_posix()
                content = file.read_bytes()
                tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
                path = "/" if name == "index.html" else f"/{name}"
                self._files[path] = (kind, content, gzip.compress(content, 9, mtime=0), tag)

    @property
    def paths(self) -> frozenset[str]:
        """Where there is something."""
        return frozenset(self._files)

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Register every path."""
        for path in self._files:
            router.add_get(path, self._file)

    async def _file(self, request: web.Request) -> web.Response:
        kind, content, packed, tag = self._files[request.path]
        # A browser asks whether a file is still the same: after an update of FTTE no old script runs.
        headers = {"Cache-Control": "no-cache", "ETag": tag, "Vary": "Accept-Encoding"}
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return web.Response(
                body=packed, content_type=kind, charset="utf-8", headers=headers | {"Content-Encoding": "gzip"}
            )
        return web.Response(body=content, content_type=kind, charset="utf-8", headers=headers)
