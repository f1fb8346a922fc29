"""One simulated device: the SDK's own client, and the life that it leads."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mobile_sdk import Client
from mobile_sdk.clock import Clock
from mobile_sdk.data import ArrayDataset, Dataset
from mobile_sdk.engines.base import Engine
from mobile_sdk.events import Event, RunFinished
from mobile_sdk.layout import Arrays
from mobile_sdk.participation.surroundings import Surroundings
from mobile_sdk.training.checkpoint import Keeper
from mobile_sdk.training.settings import TrainingSettings
from mobile_sdk.training.train import TrainingProgress, TrainingResult

from .compute.pool import Pool
from .compute.step_times import Timing
from .compute.workshop import TrainingJob
from .virtual_time import offload
from .world.fleet import Delay, Profile
from .world.links import Network

__all__ = ["SimulatedDevice", "World"]

# What simulated devices say of their process: they share this one, whose size is not theirs.
SHOWN_RSS_BYTES = 0


class _Process:
    """Facts that are the same in every simulation."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def peak_rss_bytes(self) -> int:
        return SHOWN_RSS_BYTES

    def cpu_seconds(self) -> float:
        return self.seconds

    def torch_loaded(self) -> bool:
        return False

    def device_model(self) -> str:
        return "simulated"

    def release_memory(self, *, garbage: bool = True) -> None:
        """It is shared with the others."""


class World:
    """
    What all devices share.

    Args:
        run: the run's name.
        key: its public key.
        token: for enrolling.
        network: leads to the coordinator.
        clock: virtual.
        pool: trains.
        timing: how long training takes.
        delay: of stragglers.
        load: gives the engine of an installed program.
        storage: a folder in which every device gets its own.
        samples: all devices' samples, x and y.
        listener: is told of every device's events.

    """

    def __init__(
        self,
        *,
        run: str,
        key: str,
        token: str,
        network: Network,
        clock: Clock,
        pool: Pool,
        timing: Timing,
        delay: Delay,
        load: Callable[[Path], Engine],
        storage: Path,
        samples: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]],
        listener: Callable[[str, Event], None],
    ) -> None:
        self.run = run
        self.key = key
        self.token = token
        self.network = network
        self.clock = clock
        self.pool = pool
        self.timing = timing
        self.delay = delay
        self.load = load
        self.storage = storage
        self.samples = samples
        self.listener = listener


class SimulatedDevice:
    """
    One device of the fleet.

    Args:
        world: what all devices share.
        profile: what this one is.
        indices: of its samples.
        seed: of everything that is random in its life.

    ``busy_seconds`` is the virtual time that it trained.
    """

    def __init__(
        self, world: World, profile: Profile, indices: npt.NDArray[np.int64], seed: np.random.SeedSequence
    ) -> None:
        self.profile = profile
        self.busy_seconds = 0.0
        self.trainings = 0
        self.drop_outs = 0
        self._world = world
        self._indices = indices
        # One stream for each purpose: whether the link jitters must not change who drops out.
        link, life, training, backoff = seed.spawn(4)
        self._link_rng, self._life_rng, self._training_rng = (np.random.default_rng(s) for s in (link, life, training))
        self._backoff = random.Random(int(backoff.generate_state(1)[0]))
        self._process = _Process()
        self._reachable = True
        self._killed = asyncio.Event()

    async def live(self) -> None:
        """Until the run has ended: the app runs while it may, is killed, and comes back."""
        outages = asyncio.create_task(self._outages()) if self.profile.section.outages_per_hour > 0 else None
        try:
            while True:
                online, change = self.profile.online(self._world.clock.wall())
                if not online:
                    await asyncio.sleep(change)
                    continue
                if await self._run_app(change):
                    return
                if self._killed.is_set():
                    await asyncio.sleep(float(self._life_rng.exponential(self.profile.section.away)))
        finally:
            if outages is not None:
                outages.cancel()

    async def _run_app(self, seconds: float) -> bool:
        """The app's process for at most ``seconds``; true if the run has ended."""
        self._killed.clear()
        world, profile = self._world, self.profile
        x, y = world.samples
        client = Client(
            world.network.connect(profile.name, profile.link, self._link_rng, lambda: self._reachable),
            run=world.run,
            key=world.key,
            dataset=ArrayDataset(x[self._indices], y[self._indices]),
            storage=world.storage / profile.name,
            name=profile.name,
            token=world.token,
            budget=profile.section.memory,
            surroundings=Surroundings(
                load=world.load,
                execute=self._execute,
                clock=world.clock,
                offload=offload,
                rng=self._backoff,
                process=self._process,
            ),
        )
        with contextlib.closing(client):
            running = asyncio.create_task(client.run(lambda event: world.listener(profile.name, event)))
            killed = asyncio.create_task(self._killed.wait())
            try:
                await asyncio.wait(
                    {running, killed},
                    timeout=None if math.isinf(seconds) else seconds,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                return running.done() and isinstance(running.result(), RunFinished)
            finally:
                killed.cancel()
                running.cancel()
                await asyncio.gather(running, killed, return_exceptions=True)

    async def _execute(
        self,
        engine: Engine,
        weights: Arrays,
        data: Dataset,
        settings: TrainingSettings,
        seed: int,
        keeper: Keeper,
        progress: TrainingProgress,
    ) -> TrainingResult:
        """Train elsewhere, for as long as this device would; or be killed half-way."""
        world, manifest = self._world, engine.manifest
        delay = world.delay.factor(self._training_rng) if self.profile.straggler else 1.0
        steps, seconds = world.timing.training(manifest, len(data), settings, self.profile.slowdown * delay)
        seconds = (seconds * self.profile.slowdown + self.profile.section.trip_seconds) * delay
        # The worker's own speed is not the device's: it does the steps that the device has time for.
        settings = dataclasses.replace(settings, steps=steps, seconds=0.0)
        dropped = self._training_rng.random() < self.profile.section.drop_out
        fraction = float(self._training_rng.random())
        if dropped:
            await asyncio.sleep(fraction * seconds)
            self.drop_outs += 1
            self.busy_seconds += fraction * seconds
            self._killed.set()
            await asyncio.Event().wait()  # whoever killed it ends this
        loop = asyncio.get_running_loop()
        ticket = world.pool.submit(
            loop.time() + seconds, TrainingJob(manifest.tier, dict(weights), self._indices, settings, seed)
        )
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            world.pool.cancel(ticket)
            raise
        self.busy_seconds += seconds
        self.trainings += 1
        self._process.seconds += seconds
        result: TrainingResult = world.pool.result(ticket)
        return result

    async def _outages(self) -> None:
        section = self.profile.section
        while True:
            await asyncio.sleep(float(self._life_rng.exponential(3600 / section.outages_per_hour)))
            self._reachable = False
            self._world.network.snap(self.profile.name)
            await asyncio.sleep(float(self._life_rng.exponential(section.outage)))
            self._reachable = True
