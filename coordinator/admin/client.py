"""The operator's side of the admin API: what the ``ftte`` commands talk through."""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from mobile_sdk.system.users import user_name

from ..errors import CoordinatorError
from .files import ADMIN_FOLDER, OPERATOR_HEADER, SOCKET_FILE, TOKEN_FILE, URL_FILE

__all__ = ["AdminClient", "find_admin_folder"]

# Planning a new run's programs takes minutes for a large model; everything else, seconds.
TIMEOUT_SECONDS = 3_600.0


def find_admin_folder(here: Path) -> Path:
    """
    The admin folder where none is named: ``FTTE_ADMIN`` of the environment, else a ``.ftte`` that is in use.

    ``.ftte`` is looked for in ``here``, in the folders in it, and in those around it: it lies beside its run file.

    Raises:
        CoordinatorError: if there are several.

    """
    if "FTTE_ADMIN" in os.environ:
        return Path(os.environ["FTTE_ADMIN"])
    own = here / ADMIN_FOLDER
    if (own / TOKEN_FILE).exists():
        return own
    below = [folder for folder in sorted(here.glob(f"*/{ADMIN_FOLDER}")) if (folder / TOKEN_FILE).exists()]
    if len(below) > 1:
        raise CoordinatorError(
            f"several coordinators run below {here}: name one with --admin: {', '.join(map(str, below))}"
        )
    above = (folder / ADMIN_FOLDER for folder in here.parents)
    return next((folder for folder in (*below, *above) if (folder / TOKEN_FILE).exists()), own)


class AdminClient:
    """
    Talks to the coordinator whose admin folder this is.

    Args:
        folder: what ``[admin] folder`` of the run file says.

    Raises:
        CoordinatorError: if no coordinator runs there.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._token = (folder / TOKEN_FILE).read_text().strip()
        except PermissionError as error:
            raise CoordinatorError(
                f"{folder / TOKEN_FILE} is another user's: be the one who runs the coordinator"
            ) from error
        except OSError as error:
            raise CoordinatorError(
                f"no coordinator runs with the admin folder {folder}: start it with `ftte serve`, or name its folder "
                "with --admin or FTTE_ADMIN"
            ) from error

    def get(self, *path: str) -> Any:
        """What is at a path."""
        return json.loads(self._request("GET", path, None)[1])

    def post(self, *path: str, **body: Any) -> Any:
        """Do something; the answer."""
        return json.loads(self._request("POST", path, body)[1])

    def delete(self, *path: str) -> Any:
        """Remove something; the answer."""
        return json.loads(self._request("DELETE", path, None)[1])

    def text(self, *path: str) -> str:
        """What is at a path, as text."""
        return self._request("GET", path, None)[1].decode()

    def weights(self, run: str, version: int | None) -> tuple[int, bytes]:
        """A version's number and its safetensors file."""
        query = "" if version is None else f"?version={version}"
        headers, content = self._request("GET", ("runs", run, "weights"), None, query)
        return int(headers["X-FTTE-Version"] or 0), content

    def _request(
        self, method: str, path: tuple[str, ...], body: dict[str, Any] | None, query: str = ""
    ) -> tuple[http.client.HTTPMessage, bytes]:
        connection = self._connection()
        headers = {"Authorization": f"Bearer {self._token}", OPERATOR_HEADER: user_name()}
        content = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, "/" + "/".join(quote(part, safe="") for part in path) + query, content, headers)
            answer = connection.getresponse()
            data = answer.read()
        except OSError as error:
            raise CoordinatorError(
                f"the coordinator of {self._folder} does not answer ({error}): is it running?"
            ) from error
        finally:
            connection.close()
        if answer.status >= 400:
            raise CoordinatorError(_reason(data) or f"the coordinator answered with status {answer.status}")
        return answer.headers, data

    def _connection(self) -> http.client.HTTPConnection:
        url = self._folder / URL_FILE
        if url.exists():
            parts = urlsplit(url.read_text().strip())
            return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
        return _UnixConnection(self._folder.absolute() / SOCKET_FILE)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        if not hasattr(socket, "AF_UNIX"):  # Windows
            raise OSError("this system has no Unix sockets: set admin.port where the coordinator runs")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


def _reason(data: bytes) -> str:
    try:
        return str(json.loads(data)["error"])
    except (ValueError, KeyError, TypeError):
        return ""
