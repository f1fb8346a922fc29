"""Commands that need ExecuTorch's runtime: where it is missing one sentence says where they run, with the command."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from mobile_sdk.system.support import is_windows, runs_native_programs

from ..errors import CoordinatorError

__all__ = ["LINUX_COMMANDS", "require_linux"]

# They make, run or measure programs. The others ask a running coordinator, or read files.
LINUX_COMMANDS = ("conduct", "demo", "doctor", "export", "gateway", "plan", "serve", "simulate")
# The port of the devices is published for the command that listens.
_PUBLISH = {"serve": "-p 8765:8765 ", "gateway": "-p 8765:8765 "}


def require_linux(arguments: Sequence[str]) -> None:
    """
    Refuse a command that this system cannot run.

    Args:
        arguments: of ``ftte``, the command among them.

    Raises:
        CoordinatorError: if the command is one of :data:`LINUX_COMMANDS` and the system has no such
            runtime. It names the same command for WSL (on Windows) and for the image.

    """
    command = next((each for each in arguments if not each.startswith("-")), "")
    if command not in LINUX_COMMANDS or runs_native_programs():
        return
    # WSL and the image know the current folder, and slashes alone.
    again = subprocess.list2cmdline([each.replace("\\", "/") for each in arguments])
    image = f"`docker run --rm -it {_PUBLISH.get(command, '')}-v .:/runs ftte {again}`"
    if is_windows():
        raise CoordinatorError(
            f"`ftte {command}` does not run on Windows itself: install FTTE in WSL (`wsl --install`) and run "
            f"`wsl ftte {again}`, or build the image of deploy/Dockerfile and run {image}"
        )
    raise CoordinatorError(
        f"`ftte {command}` does not run on a Mac with Intel's processor: build the image of deploy/Dockerfile and run "
        f"{image}"
    )
