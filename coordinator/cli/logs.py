"""What the coordinator logs: lines for people, or one JSON object per line for machines."""

from __future__ import annotations

import datetime
import json
import logging

from rich.console import Console
from rich.logging import RichHandler

__all__ = ["configure_logging", "is_ours"]


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def is_ours(record: logging.LogRecord) -> bool:
    """A logging filter: not the stack trace that a stranger's malformed request would be in the log."""
    from aiohttp.http_exceptions import HttpProcessingError  # most commands serve nothing, and start sooner without

    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


def configure_logging(console: Console, *, verbose: bool, as_json: bool) -> None:
    """
    Set the process's logging up.

    Args:
        console: where lines for people go.
        verbose: from INFO on; otherwise from WARNING on.
        as_json: JSON lines on standard error instead.

    """
    handler: logging.Handler = logging.StreamHandler()
    if as_json:
        handler.setFormatter(_JsonFormatter())
    elif console.is_terminal:
        handler = RichHandler(console=console, show_path=False)
    else:  # into a file or a pipe: one line per entry, however long
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # every port scan would be a stack trace
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").addFilter(is_ours)
