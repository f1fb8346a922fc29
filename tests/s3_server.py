"""An S3 server for tests: moto's, which keeps its objects in memory."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

__all__ = ["S3Server", "open_s3_server"]


class S3Server:
    """A server that answers at ``endpoint``."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._numbers = itertools.count(1)

    def environment(self) -> dict[str, str]:
        """What clients need, as environment variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "a secret of the bucket",
            "AWS_REGION": "us-east-1",
        }

    def bucket(self) -> str:
        """The address of a new bucket."""
        import urllib.request

        name = f"bucket-{next(self._numbers)}"
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")).close()
        return f"s3://{name}/runs"


def _one_at_a_time(server_module: Any) -> Any:
    """S3 looks whether an object is there and writes it in one step; moto does so only where nobody else is served."""
    lock = threading.Lock()

    class Application(server_module.DomainDispatcherApplication):
        def __call__(self, environ: Any, start_response: Any) -> Any:
            with lock:
                return super().__call__(environ, start_response)

    return Application


@contextlib.contextmanager
def open_s3_server() -> Iterator[S3Server]:
    """A running server; the test is skipped where moto is not installed."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[server]'")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with mock.patch.object(server_module, "DomainDispatcherApplication", _one_at_a_time(server_module)):
        server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()
