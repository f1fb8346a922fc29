"""Raise the limit on open files: a simulated fleet needs more than the default of most systems."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mobile_sdk.system.open_files import TooFewFiles, allow_open_files

from ..config import Config
from ..errors import ConfigError

__all__ = ["enough_files"]

# A device that has trained keeps its program, weights and what they are patched with mapped, at the most.
_MAPPED = 4
# What this process opens besides, and devices whose updates are not merged.
_SPARE = 512


@contextlib.contextmanager
def enough_files(config: Config, devices: int) -> Iterator[None]:
    """
    Let this process open as many files as a run with so many devices takes: every device's lock, and what is mapped.

    Raises:
        ConfigError: if the system does not allow it.

    """
    trained = _trained(config, devices)
    wanted = devices + _MAPPED * trained + _SPARE
    try:
        with allow_open_files(wanted):
            yield
    except TooFewFiles as error:
        raise ConfigError(
            f"{devices} devices, {trained} of which train, need {wanted} open files and this system allows "
            f"{error.allowed}: raise it with ulimit -n, or simulate fewer devices"
        ) from None


def _trained(config: Config, devices: int) -> int:
    """How many devices may train before the run ends: every version takes a buffer of them, and others are at it."""
    versions, at_once, buffer = config.stop.versions, config.scheduling.concurrency, config.merge.buffer
    if versions is None or buffer == "auto" or isinstance(at_once, str) or at_once == 0:
        return devices
    return min(devices, versions * buffer + at_once)
