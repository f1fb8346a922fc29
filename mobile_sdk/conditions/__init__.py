"""What state a device is in: power, network, heat. Policies decide by it whether to train."""

from __future__ import annotations

import sys

from .base import Conditions, Provider, fixed

__all__ = ["Conditions", "Provider", "fixed", "system_conditions"]


def system_conditions() -> Provider:
    """What tells the state of the device that this process runs on: Android or Linux."""
    if hasattr(sys, "getandroidapilevel"):
        from .android import AndroidConditions

        return AndroidConditions()
    from .linux import LinuxConditions

    return LinuxConditions()
