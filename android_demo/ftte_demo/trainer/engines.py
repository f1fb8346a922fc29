"""Which of the SDK's engines trains on this device."""

from __future__ import annotations

import os
import sys

__all__ = ["best"]


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
