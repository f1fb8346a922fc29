"""
What can go wrong on the coordinator.

    CoordinatorError
    ├── ConfigError     a run file that cannot be used
    │   └── FolderInUse       another coordinator uses its admin folder
    ├── NotFoundError   a run, device or token that there is not
    ├── ConflictError   something that a run's present state does not allow
    ├── StoreError      a state directory that is damaged, in use, or of another run
    │   ├── StoreUnavailable  it cannot be written just now: a full disk, say
    │   │   └── Superseded    another process leads the run by now
    │   ├── LedElsewhere      another process leads the run
    │   └── Expelled          the device was revoked or withdrawn meanwhile
    └── UpdateRefused   an update that will never be merged

"""

from __future__ import annotations

from mobile_sdk.errors import FtteError

__all__ = [
    "ConfigError",
    "ConflictError",
    "CoordinatorError",
    "Expelled",
    "FolderInUse",
    "LedElsewhere",
    "NotFoundError",
    "StoreError",
    "StoreUnavailable",
    "Superseded",
    "UpdateRefused",
]


class CoordinatorError(FtteError):
    """Base class of the coordinator's own errors."""


class ConfigError(CoordinatorError):
    """A run file cannot be used."""


class FolderInUse(ConfigError):
    """Another coordinator uses the admin folder."""


class NotFoundError(CoordinatorError):
    """There is no such run, device or token."""


class ConflictError(CoordinatorError):
    """What was asked for does not go together with the state that a run is in."""


class StoreError(CoordinatorError):
    """A state directory is damaged, in use, or of another run."""


class StoreUnavailable(StoreError):
    """A state directory cannot be read or written just now; nothing has changed, and trying again may help."""


class LedElsewhere(StoreError):
    """Another process leads the run: it has to be stopped first, or waited for."""


class Superseded(StoreUnavailable):
    """Another process has taken over the lead of the run: this one writes nothing any more, and devices go to that."""


class Expelled(StoreError):
    """A device was revoked or withdrawn while something was being done for it."""


class UpdateRefused(CoordinatorError):
    """
    An update will never be merged.

    ``code`` is one of the codes in ``docs/reference/protocol.md``; the message goes to the device.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
