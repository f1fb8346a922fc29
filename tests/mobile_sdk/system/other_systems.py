"""
Modules as macOS and Windows would load them, on Linux: what those systems lack is missing here, too.

A module of :mod:`mobile_sdk.system` decides at import which system it is on, so it is loaded anew under another name of
the platform. What a system has and Linux has not is given by the caller, and behaves as its documentation says.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# What Python has on Linux and not on the other system (the standard library's documentation, "Availability").
LACKS: dict[str, dict[str, tuple[str, ...]]] = {
    "darwin": {"modules": (), "os": ("fdatasync",), "signal": ()},
    "win32": {
        "modules": ("fcntl", "resource", "pwd"),
        "os": ("fdatasync", "getuid", "fork", "nice", "getpriority", "PRIO_PROCESS", "fchmod"),
        "signal": ("SIGKILL", "SIGHUP"),
    },
}


@contextmanager
def as_on(platform: str, given: dict[str, types.ModuleType] | None = None) -> Iterator[pytest.MonkeyPatch]:
    """The process as if on ``platform``, with the modules ``given`` that only that system has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "platform", platform)
        for name in LACKS[platform]["modules"]:
            patch.setitem(sys.modules, name, None)
        for module, names in ((os, LACKS[platform]["os"]), (signal, LACKS[platform]["signal"])):
            for name in names:
                patch.delattr(module, name, raising=False)
        for name, module in (given or {}).items():
            patch.setitem(sys.modules, name, module)
        yield patch


def load(name: str) -> Any:
    """The module ``name``, loaded anew: what it decides at import, it decides for the platform of now."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
