"""The devices of a scenario: what each is, drawn once, before anything runs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError
from .links import LinkProfile
from .scenario import DeviceSection, Scenario, StragglerSection

__all__ = ["Delay", "Profile", "draw_fleet"]

DAY = 86_400.0


@dataclasses.dataclass(frozen=True)
class Profile:
    """One device: ``slowdown`` and ``shift`` (seconds) are its own, the rest is its class's."""

    name: str
    section: DeviceSection
    kind: str
    straggler: bool
    slowdown: float
    shift: float

    @property
    def link(self) -> LinkProfile:
        """Its link."""
        s = self.section
        return LinkProfile(up=s.up, down=s.down, latency=s.latency, jitter=s.jitter, loss=s.loss)

    def online(self, wall: float) -> tuple[bool, float]:
        """Whether its app may run at ``wall`` (seconds since 1970, UTC), and in how many seconds that changes."""
        if not self.section.online:
            return True, math.inf
        now = (wall - self.shift) % DAY
        inside, change = False, math.inf
        for begin, end in ((3600 * b, 3600 * e) for b, e in self.section.online):
            for edge in (begin, end):
                # An edge that is due now has passed.
                change = min(change, (edge - now) % DAY or DAY)
            inside |= begin <= now < end if begin < end else now >= begin or now < end
        return inside, change


def draw_fleet(scenario: Scenario, rng: np.random.Generator) -> list[Profile]:
    """
    Every device of the scenario, in a fixed order.

    Classes get their shares to within one device, and so do stragglers, over the whole fleet.
    """
    count = scenario.simulation.devices
    kinds = list(scenario.devices)
    shares = np.array([scenario.devices[kind].share for kind in kinds])
    ends = np.round(np.cumsum(shares) / shares.sum() * count).astype(int)
    of = rng.permutation(np.searchsorted(ends, np.arange(count), side="right"))
    late = rng.permutation(np.arange(count) < round(scenario.stragglers.share * count))
    fleet = []
    for index in range(count):
        kind = kinds[of[index]]
        section = scenario.devices[kind]
        slowdown = section.slowdown * math.exp(section.spread * float(rng.normal()))
        shift = 3600 * section.shift * float(rng.normal())
        fleet.append(Profile(f"{kind}-{index:05d}", section, kind, bool(late[index]), slowdown, shift))
    return fleet


class Delay:
    """
    How much longer a straggler's trip takes: a factor per trip.

    Raises:
        ConfigError: if the trace cannot be read.

    """

    def __init__(self, section: StragglerSection) -> None:
        self._section = section
        self._trace = None if section.trace is None else _read(section.trace)

    def factor(self, rng: np.random.Generator) -> float:
        """
        The next draw; its mean is the scenario's ``slowdown``.

        Raises:
            ConfigError: if the law is a trace, and the scenario names none.

        """
        section = self._section
        match section.law:
            case "constant":
                relative = 1.0
            case "half-normal":
                relative = abs(float(rng.normal())) / math.sqrt(2 / math.pi)
            case "pareto":
                relative = (1.0 + float(rng.pareto(section.tail))) * (section.tail - 1) / section.tail
            case "trace":
                if self._trace is None:
                    raise ConfigError("stragglers.trace is missing")
                relative = float(rng.choice(self._trace))
        return section.slowdown * relative


def _read(path: Path) -> npt.NDArray[np.float64]:
    try:
        values = np.loadtxt(path, dtype=np.float64, ndmin=1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the trace {path}: {error}") from error
    if values.ndim != 1 or len(values) == 0 or not (np.isfinite(values) & (values > 0)).all():
        raise ConfigError(f"the trace {path} must hold positive numbers, one a line")
    relative: npt.NDArray[np.float64] = values / values.mean()
    return relative
