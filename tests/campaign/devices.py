"""Devices: the SDK's own client on a machine that fails, with training whose numbers are known."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mobile_sdk import Client, safetensors
from mobile_sdk.clock import Clock
from mobile_sdk.data import ArrayDataset, Dataset
from mobile_sdk.engines.base import Engine
from mobile_sdk.errors import FtteError, Refused
from mobile_sdk.events import (
    Assigned,
    Declined,
    Disconnected,
    Event,
    Postponed,
    RunFinished,
    UpdateAccepted,
    UpdateRejected,
)
from mobile_sdk.layout import Arrays, Vector
from mobile_sdk.manifest import MANIFEST_FILE, Manifest
from mobile_sdk.participation.surroundings import Surroundings
from mobile_sdk.payload import decode_update
from mobile_sdk.storage.pending_update import UpdateFolder
from mobile_sdk.training.checkpoint import Checkpoint, Keeper
from mobile_sdk.training.settings import TrainingSettings
from mobile_sdk.training.train import Diverged, TrainingProgress, TrainingResult

from .interposer import PowerCut
from .ledger import Acknowledged, Ledger
from .links import Network
from .machines import Machine
from .model import SUBSETS, TARGET
from .plan import HONEST, DevicePlan

__all__ = ["SimulatedPhone", "StandIn", "watch_updates"]

# The share of the way to the target that one training goes.
STEP = 0.3

RETRY_SECONDS = 5.0


class StandIn:
    """An engine that computes nothing: it says how far weights are from the target."""

    runtime = ""

    def __init__(self, folder: Path) -> None:
        self.manifest = Manifest.from_bytes((folder / MANIFEST_FILE).read_bytes())

    def train_step(
        self,
        x: npt.NDArray[Any],
        y: npt.NDArray[Any],
        sample_weight: Vector,
        weights: Arrays,
        dropout: np.random.Generator | None = None,
    ) -> tuple[float, dict[str, float], dict[str, Vector]]:
        raise AssertionError("training is done by the stand-in")

    def evaluate(
        self, x: npt.NDArray[Any], y: npt.NDArray[Any], sample_weight: Vector, weights: Arrays
    ) -> tuple[float, dict[str, float]]:
        distance = sum(float(np.square(w - TARGET).sum()) for w in weights.values())
        total = float(sample_weight.sum())
        return total * distance, {"accuracy": total / (1.0 + distance)}

    def predict(self, x: npt.NDArray[Any], weights: Arrays) -> npt.NDArray[np.float32]:
        raise AssertionError("nobody predicts")

    def close(self) -> None:
        """Nothing is held."""


class _Process:
    """What devices say of their process."""

    def peak_rss_bytes(self) -> int:
        return 1_000_000

    def cpu_seconds(self) -> float:
        return 0.0

    def torch_loaded(self) -> bool:
        return False

    def device_model(self) -> str:
        return "simulated"

    def release_memory(self, *, garbage: bool = True) -> None:
        """It is shared with the others."""


class SimulatedPhone:
    """
    One device: its app runs, is killed, and comes back.

    Args:
        plan: what it is like.
        machine: what it runs on.
        network: leads to the coordinator.
        ledger: is told what it hears.
        run: the run's name.
        key: the run's first public key.
        token: what it enrols with.

    """

    def __init__(
        self, plan: DevicePlan, machine: Machine, network: Network, ledger: Ledger, *, run: str, key: str, token: str
    ) -> None:
        self.plan = plan
        self.machine = machine
        self.acknowledged_at = -math.inf
        self.finished = False
        self.out = ""
        self.away_until = 0.0
        self._reinstalled = 0
        self._diverged = False
        self._network = network
        self.ledger = ledger
        self._run, self._key, self._token = run, key, token
        self._rng = random.Random(plan.seed)
        self._numbers = np.random.default_rng(plan.seed)

    @property
    def folder(self) -> Path:
        """Where the app keeps its things."""
        return self.machine.disk.root / "app"

    async def live(self) -> None:
        """Until the run has ended, or the device is out for good."""
        loop = asyncio.get_running_loop()
        while not self.finished and not self.out:
            if loop.time() < self.away_until:
                await asyncio.sleep(self.away_until - loop.time())
            app = self.machine.start(self._app(self.folder, self.machine.clock, self.machine.offload))
            cut = asyncio.ensure_future(self.machine.ended.wait())
            await asyncio.wait({app, cut}, return_when=asyncio.FIRST_COMPLETED)
            cut.cancel()
            if app.done() and not app.cancelled() and not isinstance(app.exception(), PowerCut | None):
                self.ledger.fail("no exception but the documented ones", f"{self.plan.name}: {app.exception()!r}")
            if self.machine.ended.is_set():
                await self._restart()
                await asyncio.sleep(self._rng.uniform(0.5, 8.0))
            elif not self.finished and not self.out:
                await asyncio.sleep(RETRY_SECONDS)

    async def _restart(self) -> None:
        self._network.device_gone(self.plan.place, silently=self._rng.random() < 0.5)
        await self.machine.stopped()

    async def twin(self, seconds: float) -> None:
        """The device's folder was copied to another one, which runs for a while: two connections of one device."""
        copy = self.machine.disk.root.parent / f"twin-{self.plan.place}"
        with self.machine.powered():
            if copy.exists() or not (self.folder / "device.json").exists():
                return
            shutil.copytree(self.folder, copy)
        try:
            async with asyncio.timeout(seconds):
                await self._app(copy, self.machine.clock, _at_once)
        except TimeoutError:
            pass
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    async def reinstall(self, seconds: float) -> None:
        """The app is removed with all that it has, and comes back later."""
        self.away_until = asyncio.get_running_loop().time() + seconds
        self._network.device_gone(self.plan.place, silently=False)
        self.machine.cut_after(1, whole=True)
        await self.machine.ended.wait()
        while self.machine.tasks:
            await asyncio.sleep(0.5)
        with self.machine.powered():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.machine.disk.take_as_synced()
        self._reinstalled += 1

    async def _app(self, folder: Path, clock: Clock, offload: Any) -> None:
        plan = self.plan
        try:
            client = Client(
                self._network.connect(plan.place),
                run=self._run,
                key=self._key,
                dataset=ArrayDataset(np.zeros((plan.samples, 1), np.float32), np.zeros(plan.samples, np.int64)),
                storage=folder,
                name=self._name(),
                token=self._token,
                budget=plan.budget,
                surroundings=Surroundings(
                    load=StandIn,
                    execute=self._train,
                    clock=clock,
                    offload=offload,
                    rng=self._rng,
                    process=_Process(),
                ),
            )
        except (FtteError, OSError) as error:
            if not self.machine.troubled:
                self.ledger.fail("a device starts again after any end", f"{plan.name}: {error!r}")
            return
        with contextlib.closing(client):
            self.ledger.secrets.add(client._storage.identity.secret.hex())
            try:
                name = client._storage.identity.device  # a copy of the folder keeps it
                await client.run(lambda event: self._heard(name, event))
            except Refused as error:
                self._refused(error)
            except FtteError as error:
                if plan.persona == HONEST:
                    self.ledger.fail("no exception but the documented ones", f"{plan.name}: {error!r}")
                self.out = str(error)
            except OSError as error:
                self.ledger.fail("no exception but the documented ones", f"{plan.name}: {error!r}")
                self.out = str(error)

    def _name(self) -> str:
        return self.plan.name + "-again" * self._reinstalled  # every time, the name before is taken

    def _refused(self, error: Refused) -> None:
        self.out = f"{error.code}: {error}"
        self.ledger.refused[self.plan.name] = error.code
        self._note(f"is out: {error.code}")

    def _note(self, words: str) -> None:
        self.ledger.note(asyncio.get_running_loop().time(), f"{self.plan.name} {words}")

    def _heard(self, name: str, event: Event) -> None:
        now = asyncio.get_running_loop().time()
        match event:
            case UpdateAccepted():
                self.acknowledged_at = now
                self.ledger.acknowledged.setdefault(event.assignment, Acknowledged(self.plan.name, now))
                self._note(f"was told that {event.assignment} is accepted")
            case Assigned():
                owner = self.ledger.given.setdefault(event.assignment, name)
                if owner != name:
                    self.ledger.fail("no number is used twice", f"{event.assignment} was given to {owner} and {name}")
            case UpdateRejected():
                self._note(f"was told that {event.assignment} is not: {event.code}")
            case Postponed() | Disconnected() | Declined():
                self._note(f"  {type(event).__name__.lower()}: {str(event)[:150]}")
            case RunFinished():
                self.finished = True
                self._note("was told of the end")

    # Training.

    async def _train(
        self,
        engine: Engine,
        weights: Arrays,
        data: Dataset,
        settings: TrainingSettings,
        seed: int,
        keeper: Keeper,
        progress: TrainingProgress,
    ) -> TrainingResult:
        kept = keeper.load()
        seconds = self.plan.seconds * (0.5 if kept is not None else 1.0)
        await asyncio.sleep(seconds / 2)
        if kept is None:
            keeper.save(Checkpoint({}, {"half": 1}))
        await asyncio.sleep(seconds / 2)
        # Not twice in a row: who hands nothing in three times is set aside for hours, and is not what is tried here.
        self._diverged = self._rng.random() < 0.02 and not self._diverged
        if self._diverged:
            raise Diverged("the loss is not a number")
        # Of the assignment alone, so that the same work gives the same bytes.
        noise = np.random.default_rng((seed, self.plan.seed))
        update = {}
        for name in engine.manifest.trained:
            shape = engine.manifest.trained.shape(name)
            start = weights[name][engine.manifest.trained.selector(name)]
            step = STEP * (TARGET - start) + noise.normal(0.0, 0.02, shape)
            update[name] = np.ascontiguousarray(step, np.float32)
        samples = len(data)
        match self.plan.persona:
            case "nan":
                next(iter(update.values())).flat[0] = self._rng.choice((math.nan, math.inf))
            case "huge":
                for array in update.values():
                    array *= self._rng.choice((1e3, 1e5, 1e30))
            case "samples":
                samples = self._rng.choice((10**9, 65_536, 0))
            case "shape":
                update = {name: np.zeros(array.size + 1, np.float32) for name, array in update.items()}
        return TrainingResult(update, samples, steps=1, loss=0.5, metrics={"accuracy": 0.5})


async def _at_once(function: Any, *args: Any) -> Any:
    return function(*args)


def watch_updates(find: Callable[[Path], Ledger]) -> Any:
    """
    Note the bytes of every update that a device keeps; gives the function that undoes it.

    ``find`` gives the ledger of the run of the device whose folder it is.
    """
    real = UpdateFolder.save

    def save(self: UpdateFolder, assignment: str, content: Any, *rest: Any, **options: Any) -> Any:
        ledger = find(self._folder)
        whole = b"".join(bytes(piece) for piece in content)
        ledger.made.add(hashlib.sha256(whole).hexdigest())
        body = whole[8 + int.from_bytes(whole[:8], "little") :]
        if len(body) >= 16:
            ledger.canaries[assignment] = body[-16:]
        with contextlib.suppress(FtteError):  # a liar's
            arrays, metadata = safetensors.loads(whole)
            subset = SUBSETS["large" if any(name.startswith("body") for name in arrays) else "small"]
            parts = [part.reshape(-1) for _, part in decode_update(arrays, metadata, subset)]
            ledger.deltas[assignment] = np.concatenate(parts)
        return real(self, assignment, content, *rest, **options)

    UpdateFolder.save = save  # type: ignore[method-assign]

    def undo() -> None:
        UpdateFolder.save = real  # type: ignore[method-assign]

    return undo
