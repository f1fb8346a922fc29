"""What goes wrong becomes a sentence and a status."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from mobile_sdk.errors import FtteError

from ..errors import ConflictError, NotFoundError, StoreUnavailable

__all__ = ["answer_errors"]

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A middleware: an error that a handler raises is answered as JSON with the key ``error``."""
    try:
        return await handler(request)
    except NotFoundError as error:
        return web.json_response({"error": str(error)}, status=404)
    except ConflictError as error:
        return web.json_response({"error": str(error)}, status=409)
    except StoreUnavailable as error:
        return web.json_response({"error": str(error)}, status=503)
    except FtteError as error:
        return web.json_response({"error": str(error)}, status=400)
    except web.HTTPException:
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return web.json_response({"error": "the coordinator has a problem of its own: see its log"}, status=500)
