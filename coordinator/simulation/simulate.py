"""
A scenario from its file to its result.

The coordinator with its session, store and merge, and the device's client with its session and storage are those that
run in production. Replaced are time, the socket, the processor of the devices, and what they say of their process. The
state directory and the devices' folders lie in memory (``/dev/shm``, where there is one), so syncing them costs
nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.errors import BudgetError
from mobile_sdk import safetensors
from mobile_sdk.events import Event, UpdateAccepted
from mobile_sdk.fields import named_in
from mobile_sdk.layout import Vector
from mobile_sdk.manifest import MANIFEST_FILE, Manifest
from mobile_sdk.system.memory import peak_rss_bytes

from ..config import Config
from ..errors import ConfigError
from ..loop.coordinator import Coordinator
from ..programs.begin import begin_or_resume, with_found
from ..programs.export_workers import check_budget
from ..programs.run_key import RunKey
from ..programs.tiers import Tier, unpacked_manifest
from ..store.interface import Store
from ..store.sqlite import SqliteStore
from ..tracking.from_config import open_trackers
from ..tracking.trackers import Trackers
from .compute.pool import Pool, local_pool, ray_pool
from .compute.step_times import Timing, calibrate
from .compute.workshop import Evaluation, Workshop, WorkshopFiles
from .device import SimulatedDevice, World
from .open_files import enough_files
from .result import Point, summarise_simulation
from .virtual_time import START, VirtualClock, offload, run
from .world.fleet import Delay, Profile, draw_fleet
from .world.links import Network
from .world.samples import SimulationSamples, load_simulation_samples
from .world.scenario import Scenario
from .world.split import split

__all__ = ["draw_world", "simulate"]

EVALUATION_BATCH = 500


def simulate(
    scenario: Scenario,
    *,
    workers: int | None = None,
    ray: str | None = None,
    plans: Path | None = None,
    history: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: Callable[[Point], None] = lambda point: None,
) -> dict[str, Any]:
    """
    Simulate a scenario.

    Args:
        scenario: from :func:`~coordinator.simulation.world.scenario.load_scenario`.
        workers: processes that train; by default one for each processor, 0 to train in this one.
        ray: address of a Ray cluster that trains instead.
        plans: folder that keeps the planned programs for later simulations of the same task and budgets.
        history: folder that gets the files that a served run has in ``history`` of its state directory.
        say: called with a sentence while things are prepared.
        progress: called with the run's state whenever an update was accepted or a version evaluated.

    Returns:
        See :func:`~coordinator.simulation.result.summarise_simulation`; and ``machine``, with what the simulation
        itself took (``seconds``, ``trips_per_second``, ``peak_rss_bytes``), which differs from run to run.

    Raises:
        CoordinatorError: if the scenario cannot be run.
        ExportError: if a program cannot be made.

    """
    with tempfile.TemporaryDirectory(prefix="ftte-", dir=_memory()) as name, contextlib.ExitStack() as limits:
        folder = Path(name)
        config = scenario.config(folder)
        limits.enter_context(enough_files(config, scenario.simulation.devices))
        if plans is not None and plans.exists():
            shutil.copytree(plans, config.run.state)
        # What cannot be simulated is found before a minute of planning.
        samples = load_simulation_samples(scenario.data.source, folder)
        draw_world(scenario, samples)
        for sentence in scenario.doubts():
            say(f"warning: {sentence}")
        store = SqliteStore(config.run.state)
        try:
            key = RunKey.load_or_create(config.run.state / "run.key")
            if store.run() is None:
                _check_memory(scenario, config, say)
            tiers = begin_or_resume(config, store, key, START, say)
            config = with_found(config, store, tiers[0].manifest.metrics)
            scenario.check_memory(tiers[0].name, tiers[0].needs_bytes)
            if plans is not None and not plans.exists():
                _keep(config.run.state, plans)
            say("measuring the programs' steps")
            timing = Timing(calibrate(store.artifacts, tiers, scenario.simulation.step_seconds))
            files = WorkshopFiles(
                config.run.task,
                {tier.name: unpacked_manifest(store.artifacts, tier.record) for tier in tiers},
                samples.x_path,
                samples.y_path,
                tuple(sys.path),
                config.planning.frozen_bits,
                _held_out(store, folder),
            )
            say("starting workers")
            count = (os.cpu_count() or 1) if workers is None else workers
            with ray_pool(files, ray) if ray else local_pool(files, count) as pool:
                simulation = _Simulation(
                    scenario, config, store, key, tiers, samples, files, pool, timing, folder, history, progress
                )
                began = time.monotonic()
                result = run(simulation.main())
                seconds = time.monotonic() - began
        finally:
            store.close()
    machine = {
        "seconds": seconds,
        "trips_per_second": result["trips"] / seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        "workers": ray or count,
    }
    return {**result, "machine": machine}


def _check_memory(scenario: Scenario, config: Config, say: Callable[[str], None]) -> None:
    """
    Before planning: a class of devices for which there cannot be a program ends the simulation.

    Raises:
        ConfigError: if there is one.

    """
    name, section = min(scenario.devices.items(), key=lambda item: item[1].memory)
    if section.memory < min(config.budgets.values()):
        say(f"importing torch, to check devices.{name}.memory")
        try:
            check_budget(config.run.task, section.memory)
        except BudgetError as error:
            raise ConfigError(f"devices.{name}.memory: {error}") from error


def draw_world(
    scenario: Scenario, samples: SimulationSamples
) -> tuple[list[Profile], list[npt.NDArray[np.int64]], list[np.random.SeedSequence]]:
    """
    What the scenario's seed decides before anything runs: devices, the indices of their samples, their own seeds.

    Args:
        scenario: with its seed.
        samples: what is split.

    Returns:
        Per device: its profile, the positions of its samples (int64), and a seed.

    """
    simulation = scenario.simulation
    fleet_seed, split_seed, *device_seeds = np.random.SeedSequence(simulation.seed).spawn(2 + simulation.devices)
    fleet = draw_fleet(scenario, np.random.default_rng(fleet_seed))
    parts = split(
        scenario.data,
        np.asarray(samples.y),
        samples.writers,
        [profile.straggler for profile in fleet],
        np.random.default_rng(split_seed),
    )
    return fleet, parts, device_seeds


def _keep(state: Path, plans: Path) -> None:
    """Copy a state directory in which nothing but planning has happened; whole or not at all."""
    plans.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=plans.parent) as folder:
        copied = shutil.copytree(state, Path(folder) / "state")
        with contextlib.suppress(OSError):  # another simulation was faster
            copied.rename(plans)


def _held_out(store: Store, folder: Path) -> tuple[Path, Path] | None:
    """The samples that the run is evaluated on, as files that workers map; ``None`` where it is not evaluated."""
    record = store.run()
    if record is None or not record.evaluation:
        return None
    arrays, _ = safetensors.loads(store.artifacts.path(record.evaluation).read_bytes())
    paths = folder / "held-out-x.npy", folder / "held-out-y.npy"
    for path, name in zip(paths, "xy", strict=True):
        np.save(path, named_in(arrays, name))
    return paths


def _memory() -> str | None:
    """A folder that lies in memory, if this system has one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class _Simulation:
    """One scenario under way."""

    def __init__(
        self,
        scenario: Scenario,
        config: Config,
        store: Store,
        key: RunKey,
        tiers: Sequence[Tier],
        samples: SimulationSamples,
        files: WorkshopFiles,
        pool: Pool,
        timing: Timing,
        folder: Path,
        history: Path | None,
        progress: Callable[[Point], None],
    ) -> None:
        self._scenario = scenario
        self._config = config
        self._store = store
        self._key = key
        self._tiers = tiers
        self._samples = samples
        self._workshop = Workshop(files)
        self._pool = pool
        self._timing = timing
        self._folder = folder
        self._history = history
        self._progress = progress
        self._curve: list[Point] = []
        self._labels = None if files.held_out is None else np.load(files.held_out[1], mmap_mode="r")

    async def main(self) -> dict[str, Any]:
        """Let the fleet live until the run has ended."""
        loop = asyncio.get_running_loop()
        simulation = self._scenario.simulation
        clock = VirtualClock(loop, START + 3600 * simulation.start)
        trackers = open_trackers(self._config, ("loss", *self._tiers[0].manifest.metrics), self._history)
        try:
            return await self._live(clock, trackers)
        finally:
            trackers.close()

    async def _live(self, clock: VirtualClock, trackers: Trackers) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        self._coordinator = Coordinator(
            self._config,
            self._store,
            self._key,
            self._tiers,
            self._evaluate,
            clock=clock,
            offload=offload,
            trackers=trackers,
        )
        self._network = Network(self._coordinator.serve)
        fleet, parts, device_seeds = draw_world(self._scenario, self._samples)
        world = World(
            run=self._config.run.name,
            key=self._key.public,
            token=self._config.server.token,
            network=self._network,
            clock=clock,
            pool=self._pool,
            timing=self._timing,
            delay=Delay(self._scenario.stragglers),
            load=self._load,
            storage=self._folder / "devices",
            samples=(self._samples.x, self._samples.y),
            listener=self._listen,
        )
        devices = [
            SimulatedDevice(world, profile, indices, seed)
            for profile, indices, seed in zip(fleet, parts, device_seeds, strict=True)
        ]
        self._note(self._store.versions.latest().metrics)
        lives = asyncio.gather(*(device.live() for device in devices))
        ended = await self._until_the_end(lives)
        seconds = loop.time()
        traffic = self._network.traffic()
        self._note(self._coordinator.state.versions.newest.metrics or self._metrics())
        lives.cancel()
        await asyncio.gather(lives, return_exceptions=True)
        await self._network.drained()
        return self._of_straggler_classes() | summarise_simulation(
            self._coordinator.state,
            devices,
            self._curve,
            ended=ended,
            seconds=seconds,
            traffic=traffic,
            repeated_bytes=self._network.repeated_bytes,
            step_seconds=self._timing.step_seconds,
        )

    async def _until_the_end(self, lives: asyncio.Future[Any]) -> str:
        """Why the run has ended; what a device could not bear ends the simulation."""
        hours = self._scenario.simulation.hours
        running = asyncio.create_task(self._coordinator.run())
        done, _ = await asyncio.wait({running, lives}, timeout=3600 * hours, return_when=asyncio.FIRST_COMPLETED)
        if lives in done and lives.exception() is not None:
            running.cancel()
            await lives
        if running in done:
            return running.result().reason
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return f"{hours:g} hours are over"

    def _load(self, folder: Path) -> Any:
        """The torch step of an installed program; all devices of a tier share it."""
        manifest = Manifest.from_bytes((folder / MANIFEST_FILE).read_bytes())
        return self._workshop.engines[manifest.tier]

    def _listen(self, device: str, event: Event) -> None:
        if isinstance(event, UpdateAccepted):
            self._progress(self._point({}))

    def _evaluate(self, vector: Vector) -> Mapping[str, float]:
        """Central evaluation of the version that is being made, if it is its turn."""
        version = self._coordinator.state.versions.newest.version + 1
        if self._labels is None or not self._is_due(version):
            return {}
        metrics = self._metrics(vector)
        self._note(metrics, version=version)
        return metrics

    def _is_due(self, version: int) -> bool:
        """Whether it is a version's turn to be evaluated."""
        simulation, last = self._scenario.simulation, self._curve[-1].trips
        if not simulation.evaluate_trips:
            return version % simulation.evaluate_every == 0
        trips = self._point({}, version).trips
        return trips // simulation.evaluate_trips > last // simulation.evaluate_trips

    def _of_straggler_classes(self) -> dict[str, Any]:
        """How well those classes are known in the end that stragglers alone have."""
        classes = self._scenario.data.straggler_classes
        if not classes or self._labels is None:
            return {}
        chosen = np.flatnonzero(np.isin(self._labels, classes))
        return {"straggler_classes": {"classes": list(classes), "metrics": self._metrics(chosen=chosen)}}

    def _metrics(self, vector: Vector | None = None, chosen: npt.NDArray[np.int64] | None = None) -> dict[str, float]:
        """The loss and metrics of ``vector``, by default of the newest version, on the ``chosen`` of the held-out."""
        if self._labels is None:
            return {}
        state = self._coordinator.state
        weights = state.layout.views(state.versions.vector if vector is None else vector)
        samples = np.arange(len(self._labels)) if chosen is None else chosen
        tier = self._tiers[0].name
        totals = dict.fromkeys(("loss", *self._workshop.engines[tier].manifest.metrics), 0.0)
        parts = (samples[start : start + EVALUATION_BATCH] for start in range(0, len(samples), EVALUATION_BATCH))
        # Before any training: virtual time stands still until all are there.
        for ticket in [self._pool.submit(0.0, Evaluation(tier, weights, part)) for part in parts]:
            loss, metrics = self._pool.result(ticket)
            totals["loss"] += loss
            for name, value in metrics.items():
                totals[name] += value
        return {name: total / max(len(samples), 1) for name, total in totals.items()}

    def _point(self, metrics: Mapping[str, float], version: int | None = None) -> Point:
        status = self._coordinator.state
        # A version that is being made takes what its merge has not yet taken out of the buffer.
        trips = status.updates_merged + (0 if version is None else len(status.buffer.oldest()))
        traffic = self._network.traffic() if metrics else None
        version = status.versions.newest.version if version is None else version
        return Point(
            seconds=asyncio.get_running_loop().time(),
            version=version,
            trips=trips,
            bytes_up=traffic.up if traffic else 0,
            bytes_down=traffic.down if traffic else 0,
            metrics=dict(metrics),
        )

    def _note(self, metrics: Mapping[str, float], version: int | None = None) -> None:
        point = self._point(metrics, version)
        self._curve.append(point)
        self._progress(point)
