"""
The state of an Android device, through its system services.

pyjnius is imported when a provider is made: make it in the main thread of the app or the service, where Java's classes
can be found. No permission beyond ``ACCESS_NETWORK_STATE`` is needed.
"""

from __future__ import annotations

import importlib
from typing import Any

from .base import Conditions

__all__ = ["AndroidConditions"]

# android.os.BatteryManager.BATTERY_PROPERTY_CAPACITY
_CAPACITY = 4

# getCurrentThermalStatus came with Android 10.
_THERMAL_API = 29


class AndroidConditions:
    """
    Asks BatteryManager, ConnectivityManager and PowerManager; idle means that the screen is off.

    Raises:
        ImportError: where there is no pyjnius.

    """

    def __init__(self) -> None:
        autoclass = importlib.import_module("jnius").autoclass
        context = _context(autoclass)
        name = autoclass("android.content.Context")
        self._battery: Any = context.getSystemService(name.BATTERY_SERVICE)
        self._network: Any = context.getSystemService(name.CONNECTIVITY_SERVICE)
        self._power: Any = context.getSystemService(name.POWER_SERVICE)
        self._api = int(autoclass("android.os.Build$VERSION").SDK_INT)

    def __call__(self) -> Conditions:
        """One look."""
        level = int(self._battery.getIntProperty(_CAPACITY))
        return Conditions(
            charging=bool(self._battery.isCharging()),
            battery=level / 100 if 0 <= level <= 100 else None,
            unmetered=not self._network.isActiveNetworkMetered(),
            idle=not self._power.isInteractive(),
            thermal=int(self._power.getCurrentThermalStatus()) if self._api >= _THERMAL_API else None,
        )


def _context(autoclass: Any) -> Any:
    """The service, if this is its process, or else the activity."""
    service = autoclass("org.kivy.android.PythonService").mService
    return service if service is not None else autoclass("org.kivy.android.PythonActivity").mActivity
