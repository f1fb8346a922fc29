"""The state of a Linux machine, as the kernel tells it in ``/sys`` and ``/proc``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .base import Conditions

__all__ = ["LinuxConditions"]

# Below this load per processor (mean of one minute) a machine counts as idle.
IDLE_LOAD = 0.3


class LinuxConditions:
    """
    Looks at power supplies, the interface of the default route, the load, and thermal zones with their trip points.

    A machine without a battery is charging. A network is metered if its interface is a modem (WWAN, PPP) or there is no
    default route; what a phone shares over Wi-Fi cannot be told from a network without limits.

    Args:
        root: where ``sys`` and ``proc`` are; tests give their own.

    """

    def __init__(self, root: str | Path = "/") -> None:
        self._root = Path(root)

    def __call__(self) -> Conditions:
        """One look."""
        batteries = [p for p in self._entries("sys/class/power_supply") if self._read(p / "type") == "Battery"]
        # Batteries of mice and keyboards have the scope "Device".
        batteries = [p for p in batteries if self._read(p / "scope") != "Device"]
        levels = [level for p in batteries if (level := self._number(p / "capacity")) is not None]
        return Conditions(
            charging=self._charging(batteries),
            battery=min(levels) / 100 if levels else None,
            unmetered=self._unmetered(),
            idle=self._idle(),
            thermal=self._thermal(),
        )

    def _charging(self, batteries: list[Path]) -> bool:
        if not batteries:
            return True
        online = any(self._read(p / "online") == "1" for p in self._entries("sys/class/power_supply"))
        return online or any(self._read(p / "status") in ("Charging", "Full", "Not charging") for p in batteries)

    def _unmetered(self) -> bool:
        for line in self._read(self._root / "proc/net/route").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 1 and fields[1] == "00000000":
                name = fields[0]
                kind = self._read(self._root / "sys/class/net" / name / "uevent")
                return "DEVTYPE=wwan" not in kind and not name.startswith(("wwan", "ppp", "rmnet"))
        return False

    def _idle(self) -> bool | None:
        load = self._read(self._root / "proc/loadavg").split()
        return float(load[0]) < IDLE_LOAD * (os.cpu_count() or 1) if load else None

    def _thermal(self) -> int | None:
        """The worst of all zones: past its passive trip point 2, hot 3, critical 4."""
        worst = None
        for zone in self._entries("sys/class/thermal"):
            temperature = self._number(zone / "temp") if zone.name.startswith("thermal_zone") else None
            if temperature is None:
                continue
            level = 0
            for kind in zone.glob("trip_point_*_type"):
                limit = self._number(kind.with_name(kind.name.replace("_type", "_temp")))
                reached = {"passive": 2, "hot": 3, "critical": 4}.get(self._read(kind), 0)
                if limit is not None and 0 < limit <= temperature:
                    level = max(level, reached)
            worst = max(worst or 0, level)
        return worst

    def _entries(self, folder: str) -> Iterator[Path]:
        path = self._root / folder
        yield from sorted(path.iterdir()) if path.is_dir() else ()

    def _number(self, path: Path) -> int | None:
        try:
            return int(self._read(path))
        except ValueError:
            return None

    @staticmethod
    def _read(path: Path) -> str:
        try:
            return path.read_text().strip()
        except (OSError, UnicodeDecodeError):
            return ""
