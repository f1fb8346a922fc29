"""
What can go wrong on a device, as exceptions.

    FtteError
    ├── LayoutError          parameter layout or subset that contradicts itself
    ├── PayloadError         a safetensors file that is not what it should be
    ├── ProgramError         a program that cannot be loaded or executed
    │   ├── ProgramRejected  unsigned, altered, of another run, or older than the one held
    │   └── SelfCheckFailed  this device's runtime computes wrong numbers with it
    ├── DataError            samples that break the task's input contract
    ├── StorageError         the device's folder is damaged or in use
    ├── InviteError          a link that invites to no run
    ├── NoModel              nothing to predict with yet
    ├── ProtocolError        the peer broke the protocol
    │   └── VersionMismatch  it speaks another version of it
    └── Refused              the coordinator said no, and why
        └── Unproven         somebody said no who has not proved to be the coordinator

"""

from __future__ import annotations

__all__ = [
    "DataError",
    "FtteError",
    "InviteError",
    "LayoutError",
    "NoModel",
    "PayloadError",
    "ProgramError",
    "ProgramRejected",
    "ProtocolError",
    "Refused",
    "SelfCheckFailed",
    "StorageError",
    "Unproven",
    "VersionMismatch",
]


class FtteError(Exception):
    """Base class of every error that FTTE raises on purpose."""


class LayoutError(FtteError):
    """A parameter layout or a subset of it contradicts itself."""


class PayloadError(FtteError):
    """A safetensors file is malformed, or does not hold what was announced."""


class ProgramError(FtteError):
    """
    A program cannot be loaded or executed.

    ``code`` is ExecuTorch's name of the error (``"InvalidArgument"``), or
    :obj:`None` when FTTE refused before ExecuTorch was asked.
    """

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class ProgramRejected(ProgramError):
    """A program is unsigned, altered, of another run, or older than the one held."""


class SelfCheckFailed(ProgramError):
    """A program ran, but this device's runtime computes other numbers with it than a right one."""


class DataError(FtteError):
    """Samples break the task's input contract."""


class StorageError(FtteError):
    """The device's folder is damaged, or another process is using it."""


class InviteError(FtteError):
    """A link does not invite to a run."""


class NoModel(FtteError):
    """No version of the model has come to this device yet."""


class ProtocolError(FtteError):
    """
    The peer sent something that the protocol does not allow at this point.

    ``code`` is what the peer is told; see ``docs/reference/protocol.md``.
    """

    code = "protocol"


class VersionMismatch(ProtocolError):
    """The peer speaks another version of the protocol."""

    code = "version"


class Refused(FtteError):
    """
    The coordinator refused a request and said why.

    ``code`` is one of the codes in ``docs/reference/protocol.md``; ``message`` is what was said, without it.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} [{code}]")
        self.code = code
        self.message = message


class Unproven(Refused):
    """Whoever answered has not proved to be the run's coordinator: nothing that it says is final."""
