"""Which of the SDK's engines trains on this device."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from mobile_sdk.engines import load_engine
from mobile_sdk.engines.android import bridge_class
from mobile_sdk.engines.base import Engine
from mobile_sdk.engines.dropout import generator
from mobile_sdk.engines.paced import PacedEngine

__all__ = ["best", "load", "prepare"]


def best() -> str:
    """
    ``native`` on a desktop, ``android`` on a 64-bit phone, ``interpreted`` on a 32-bit one: it has no ExecuTorch.

    ``FTTE_DEMO_ENGINE`` of the environment overrides it.
    """
    chosen = os.environ.get("FTTE_DEMO_ENGINE", "")
    if chosen:
        return chosen
    if not hasattr(sys, "getandroidapilevel"):
        return "native"
    return "android" if sys.maxsize > 2**32 else "interpreted"


def prepare(engine: str) -> None:
    """Import what an engine and training need, in the main thread: none of it is the memory of a program."""
    if engine == "android":
        bridge_class()  # training threads could not find Java's classes
    elif engine == "native":
        importlib.import_module("mobile_sdk.engines.native")
    else:
        importlib.import_module("mobile_sdk.engines.interpreted")
    generator(0)  # numpy imports its generators at the first one


def load(folder: Path, engine: str) -> Engine:
    """
    The program in ``folder``, loaded.

    Each step takes at least as many seconds as ``FTTE_DEMO_STEP_SECONDS`` of the environment says: a desktop is faster
    than the phone that it stands for.
    """
    loaded = load_engine(folder, engine)
    seconds = float(os.environ.get("FTTE_DEMO_STEP_SECONDS", "0"))
    return PacedEngine(loaded, seconds) if seconds else loaded
