"""Objects in S3, and in what is compatible with it."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import from_url

from ...errors import ConfigError, StoreError, StoreUnavailable

__all__ = ["S3Objects"]

# A server that is away is tried again for so long before its caller hears of it.
RETRY_SECONDS = 10
RETRIES = 5


class S3Objects:
    """
    The :class:`~coordinator.store.objects.interface.Objects` of a bucket, ``s3://bucket/prefix``.

    Credentials, region and endpoint come from the environment: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
    ``AWS_REGION``, ``AWS_ENDPOINT_URL``, or from the machine's role.

    Raises:
        ConfigError: if ``url`` is no address of a bucket.

    """

    def __init__(self, url: str) -> None:
        self._url = url
        try:
            self._store = from_url(
                url,
                client_options={"allow_http": True},  # inside a cluster, or on this machine
                retry_config={"max_retries": RETRIES, "retry_timeout": datetime.timedelta(seconds=RETRY_SECONDS)},
            )
        except BaseError as error:
            raise ConfigError(f"store.objects = {url!r} is no address of a bucket: {_first_line(error)}") from error

    def __str__(self) -> str:
        return self._url

    def put_if_absent(self, key: str, content: bytes | memoryview) -> bool:
        with self._errors(key):
            try:
                obstore.put(self._store, key, bytes(content), mode="create")
            except AlreadyExistsError:
                return False
        return True

    def get(self, key: str) -> bytes:
        with self._errors(key):
            return bytes(obstore.get(self._store, key).bytes())

    def range(self, key: str, start: int, size: int) -> bytes:
        with self._errors(key):
            return bytes(obstore.get_range(self._store, key, start=start, length=size))

    def delete(self, key: str) -> None:
        with self._errors(key), contextlib.suppress(NotFoundError):
            obstore.delete(self._store, key)

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (NotFoundError, FileNotFoundError):
            raise StoreError(f"{self._url} has no object {key}: restore it from a backup") from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise StoreUnavailable(
                f"{self._url} lets nobody in with these credentials: {_first_line(error)}; see AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY"
            ) from error
        except (BaseError, OSError) as error:
            raise StoreUnavailable(f"{self._url} cannot be used just now: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]
