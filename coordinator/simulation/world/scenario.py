"""
The scenario file: a run file, and the world that the run meets.

Everything outside ``[simulation]``, ``[data]``, ``[devices.*]`` and ``[stragglers]`` is the run file itself, so an
operator adds these sections to the file that ``ftte serve`` takes, and sees what would come.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mobile_sdk.sizes import format_bytes, parse_bytes

from ...config import Config, Size, parse_config
from ...config.section import Section
from ...config.toml_files import explain, read_toml
from ...errors import ConfigError

__all__ = [
    "DataSection",
    "DeviceSection",
    "Scenario",
    "SimulationSection",
    "StragglerSection",
    "load_scenario",
    "parse_scenario",
]

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]
Hour = Annotated[float, Field(ge=0, le=24)]
Reference = Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]


class SimulationSection(Section):
    """
    How much to simulate.

    ``seed`` fixes every draw. ``start`` is the hour of the day at which the run begins. A version is evaluated
    centrally if its number is a multiple of ``evaluate_every``, or instead, if that is not 0, whenever another
    ``evaluate_trips`` updates are merged. ``hours`` of virtual time end the run, if its own
    ``[stop]`` does not before. ``step_seconds`` fixes what an optimiser's micro-batch takes in the program of a
    tier on a device with slowdown 1; tiers that it does not name are measured on this machine.
    """

    devices: Annotated[int, Field(ge=1, le=1_000_000)]
    seed: Annotated[int, Field(ge=0)] = 0
    hours: Annotated[float, Field(gt=0)] = 24.0
    start: Hour = 0.0
    evaluate_every: Annotated[int, Field(ge=1)] = 1
    evaluate_trips: Annotated[int, Field(ge=0)] = 0
    step_seconds: dict[str, Annotated[float, Field(gt=0)]] = Field({})


class DataSection(Section):
    """
    Whose samples are where.

    ``source`` gives the training samples of all devices: ``(x, y)``, or ``(x, y, writer)`` for the split ``by-writer``.

    - ``dirichlet``: every device has the same number of samples, its classes in proportions drawn from
      Dirichlet(``alpha``) (Hsu, Qi and Brown 2019);
    - ``by-class``: every device has samples of ``classes`` classes only;
    - ``by-writer``: a device has the samples of one writer (or of several, where there are more writers than devices);
    - ``even``: every device has a random sample of everything.

    ``straggler_classes`` are held by stragglers alone; the result says how well they are known in the end.
    """

    source: Reference
    split: Literal["dirichlet", "by-class", "by-writer", "even"] = "dirichlet"
    alpha: Annotated[float, Field(gt=0)] = 0.3
    classes: Annotated[int, Field(ge=1)] = 2
    samples: Annotated[int, Field(ge=1)] | None = None
    straggler_classes: tuple[int, ...] = ()


class DeviceSection(Section):
    """
    A class of devices.

    ``share`` is this class's part of the fleet, relative to the others'. ``memory`` is its budget for training.
    ``slowdown`` compares its processor with the one that programs were measured on; a device's own deviates from it
    by a factor whose logarithm is normal with standard deviation ``spread``. ``trip_seconds`` is what a trip takes on
    the device beside its steps and the link (loading, packing, writing); stragglers are late with that as well. ``up``
    and ``down`` are bytes per second.
    ``online`` lists the hours of the day in which its app may run, each device's shifted by a normal draw of
    ``shift`` hours. ``drop_out`` is the fraction of trainings during which the app is killed; it comes back after
    ``away`` seconds on average (exponential).
    """

    share: Annotated[float, Field(gt=0)] = 1.0
    memory: Size
    slowdown: Annotated[float, Field(gt=0)] = 1.0
    spread: Annotated[float, Field(ge=0)] = 0.0
    trip_seconds: Seconds = 0.0
    up: Size = 1_000_000
    down: Size = 1_000_000
    latency: Seconds = 0.03
    jitter: Seconds = 0.0
    loss: Annotated[float, Field(ge=0, lt=1)] = 0.0
    outages_per_hour: Annotated[float, Field(ge=0)] = 0.0
    outage: Annotated[float, Field(gt=0)] = 30.0
    online: tuple[tuple[Hour, Hour], ...] = ()
    shift: Annotated[float, Field(ge=0)] = 0.0
    drop_out: Share = 0.0
    away: Annotated[float, Field(gt=0)] = 600.0

    @model_validator(mode="after")
    def _windows_are_windows(self) -> DeviceSection:
        for begin, end in self.online:
            if begin == end:
                raise ValueError(f"online has the window [{begin:g}, {end:g}], which is empty: leave it out")
        return self


class StragglerSection(Section):
    """
    Devices that are late, whatever their class.

    A trip of a straggler trains ``slowdown`` times as long, times a random factor with mean 1 drawn anew for every
    trip:

    - ``constant``: 1;
    - ``half-normal``: the absolute value of a normal draw (as FedBuff's evaluation has it), over its mean;
    - ``pareto``: Pareto with tail index ``tail`` above 1, over its mean;
    - ``trace``: drawn from the numbers in the file ``trace``, one a line, over their mean.
    """

    share: Share = 0.0
    slowdown: Annotated[float, Field(ge=1)] = 10.0
    law: Literal["constant", "half-normal", "pareto", "trace"] = "half-normal"
    tail: Annotated[float, Field(gt=1)] = 2.0
    trace: Path | None = None

    @model_validator(mode="after")
    def _trace_has_a_file(self) -> StragglerSection:
        if (self.law == "trace") != (self.trace is not None):
            raise ValueError('law = "trace" and the file in trace belong together: give both or neither')
        return self


class _World(Section):
    simulation: SimulationSection
    data: DataSection
    devices: Annotated[dict[str, DeviceSection], Field(min_length=1)]
    stragglers: StragglerSection = StragglerSection()


class Scenario(BaseModel):
    """A checked scenario: the world, and the run file as data: each simulation has a state directory of its own."""

    model_config = ConfigDict(frozen=True)

    simulation: SimulationSection
    data: DataSection
    devices: dict[str, DeviceSection]
    stragglers: StragglerSection
    run: dict[str, Any]

    def with_seed(self, seed: int) -> Scenario:
        """The same world, drawn again."""
        return self.model_copy(update={"simulation": self.simulation.model_copy(update={"seed": seed})})

    def doubts(self) -> list[str]:
        """What may turn out to be impossible once programs are planned."""
        least = min(parse_bytes(size) for size in self.run["budgets"].values())
        return [
            f"devices.{name}.memory {format_bytes(section.memory)} is less than the smallest budget, "
            f"{format_bytes(least)}: its devices train only if the program turns out to need less"
            for name, section in self.devices.items()
            if section.memory < least
        ]

    def check_memory(self, tier: str, needs: int) -> None:
        """
        Compare every class's memory with what the smallest program needs, in bytes.

        Raises:
            ConfigError: if one has less.

        """
        for name, section in self.devices.items():
            if section.memory < needs:
                raise ConfigError(
                    f"devices.{name}.memory is {format_bytes(section.memory)}, and the smallest tier, {tier}, needs "
                    f"{format_bytes(needs)}: raise it, or add a smaller budget to [budgets]"
                )

    def config(self, folder: Path) -> Config:
        """The run file, with its state directory in ``folder``."""
        run = {**self.run, "run": {**self.run["run"], "state": "state"}}
        return parse_config(run, folder, "the scenario")


def load_scenario(path: Path, overrides: Sequence[str] = ()) -> Scenario:
    """
    Read a scenario file.

    Args:
        path: the file.
        overrides: ``section.key=value``, in place of what the file has.

    Raises:
        ConfigError: naming file, key, value and remedy.

    """
    return parse_scenario(read_toml(path, "scenario", overrides), path.parent, str(path))


def parse_scenario(data: dict[str, Any], folder: Path, name: str = "the scenario") -> Scenario:
    """
    Check the contents of a scenario file; relative paths start at ``folder``.

    Args:
        data: what TOML gave.
        folder: of the file.
        name: of the file, for messages.

    Raises:
        ConfigError: naming key, value and remedy.

    """
    sections = _World.model_fields
    try:
        world = _World.model_validate({key: value for key, value in data.items() if key in sections})
    except ValidationError as error:
        raise ConfigError(f"{name}: {explain(error, _World)}") from error
    stragglers = world.stragglers
    if stragglers.trace is not None:
        stragglers = stragglers.model_copy(update={"trace": folder / stragglers.trace})
    run = {key: value for key, value in data.items() if key not in sections}
    config = parse_config(run, folder, name)  # says now what is wrong with it
    # Relative to the scenario's file, as in a run file.
    for section, key, path in (
        ("planning", "plans", config.planning.plans),
        ("tracking", "tensorboard", config.tracking.tensorboard),
    ):
        if path is not None:
            run = {**run, section: {**run[section], key: str(path.absolute())}}
    return Scenario(simulation=world.simulation, data=world.data, devices=world.devices, stragglers=stragglers, run=run)
