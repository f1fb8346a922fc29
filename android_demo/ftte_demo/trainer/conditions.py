"""
The state of the phone: the system's own word, or on a desktop what a file pretends.

``FTTE_DEMO_CONDITIONS`` names a JSON file such as ``{"charging": false, "battery": 0.2, "unmetered": true}``; it is
read anew at every look, so one can play a day of a phone on a desktop.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from mobile_sdk.conditions import Conditions, Provider, system_conditions

__all__ = ["provider"]


def provider() -> Provider:
    """Who tells the state of this device."""
    name = os.environ.get("FTTE_DEMO_CONDITIONS", "")
    if not name:
        return system_conditions()
    return lambda: Conditions(**json.loads(Path(name).read_text("utf-8")))
