"""From an address in the run file to objects."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from ...errors import ConfigError
from .folder import FolderObjects
from .interface import Objects

__all__ = ["open_objects"]

_REMOTE = ("s3", "s3a", "gs", "az", "abfs", "abfss")


def open_objects(address: str) -> Objects:
    """
    Open the place that ``store.objects`` names: a folder, ``file:///folder``, or ``s3://bucket/prefix``.

    Raises:
        ConfigError: if it is none of these, or what it needs is not installed.

    """
    scheme = urlsplit(address).scheme
    if scheme in ("", "file"):
        return FolderObjects(Path(urlsplit(address).path if scheme else address))
    if scheme not in _REMOTE:
        raise ConfigError(f"store.objects = {address!r}: write s3://bucket/prefix, or a folder")
    try:
        from .s3 import S3Objects
    except ImportError as error:
        raise ConfigError(
            f"store.objects = {address!r} needs obstore: install it with `pip install 'ftte[s3]'`"
        ) from error
    return S3Objects(address)
