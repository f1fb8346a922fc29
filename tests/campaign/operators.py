"""What an operator does at random, and what must hold after it was told that it is done."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coordinator.admin.operations import Operations
from coordinator.errors import CoordinatorError
from coordinator.simulation.virtual_time import START
from coordinator.store.sqlite import backup, restore

from .service import HostedRun, Service

__all__ = ["Operator"]


class Operator:
    """
    Somebody at the coordinator's command line.

    Args:
        service: what serves the run.
        hosted: what is operated; what was done is written down in its ledger.
        vault: a folder elsewhere, for backups.
        sparing: devices that may be revoked or withdrawn before too few are left.

    """

    def __init__(self, service: Service, hosted: HostedRun, vault: Path, sparing: int) -> None:
        self._service = service
        self._hosted = hosted
        self._ledger = hosted.ledger
        self._vault = vault
        self._spare = sparing
        self._backups: list[tuple[Path, dict[str, Any]]] = []

    async def act(self, what: str, device: str, rng: random.Random) -> None:
        """Do one thing, if the service is up; it may refuse, and it may end in the middle."""
        run = self._hosted.served
        if run is None:
            return
        task = self._service.machine.start(self._act(Operations(run, self._ledger.operator), what, device, rng))
        await asyncio.wait({task}, timeout=60.0)
        if not task.done():
            self._ledger.fail("an operation ends", f"{what} {device} goes on after a minute")
        elif not task.cancelled() and isinstance(error := task.exception(), Exception):
            if isinstance(error, CoordinatorError):
                self._note(f"{what} is refused: {type(error).__name__}")
            else:
                self._ledger.fail("no exception but the documented ones", f"{what}: {error!r}")

    def spares(self) -> bool:
        """Whether there are enough devices for one to leave for good; it is counted."""
        self._spare -= 1
        return self._spare >= 0

    def _note(self, words: str) -> None:
        self._ledger.note(asyncio.get_running_loop().time(), f"operator: {words}")

    async def _act(self, operations: Operations, what: str, device: str, rng: random.Random) -> None:
        ledger = self._ledger
        match what:
            case "pause":
                await self._phase("paused", operations.pause)
            case "drain":
                await self._phase("draining", operations.drain)
            case "resume":
                await self._phase("running", operations.resume)
            case "roll back":
                kept = [each["version"] for each in await operations.versions() if not each["pruned"]]
                await operations.roll_back(rng.choice(kept), "at random")
            case "rotate key":
                ledger.key = ""  # between here and the answer nobody knows which one it is
                ledger.key = await operations.rotate_key()
            case "revoke" | "withdraw" if self.spares():
                ledger.maybe_gone.add(device)
                if what == "revoke":
                    await operations.revoke(device)
                    ledger.revoked.add(device)
                else:
                    await operations.withdraw(device)
                    ledger.withdrawn.add(device)
                    ledger.revoked.discard(device)
            case "export":
                await operations.weights(None)
            case "token":
                token, record = await operations.create_token(1, None, "for nobody")
                ledger.secrets.add(token)
                if record["id"] not in [each["id"] for each in await operations.tokens()]:
                    ledger.fail("what an operator was told is done stays done", "a token that was made is not there")
            case "backup":
                self._backup()
            case "restore":
                self._restore()
            case _:
                return
        self._note(what)

    async def _phase(self, phase: str, change: Callable[[], Any]) -> None:
        self._ledger.phase = ""
        await change()
        self._ledger.phase = phase

    def _backup(self) -> None:
        archive = self._vault / f"{self._hosted.config.run.name}-{len(self._backups)}.tar"
        snapshot = self._ledger.snapshot()
        backup(self._hosted.config.run.state, archive)
        self._backups.append((archive, snapshot))

    def _restore(self) -> None:
        """The machine is lost; its newest backup is restored onto another folder, with the newest key."""
        if not self._backups or self._service.between is not None:
            return
        archive, snapshot = self._backups[-1]
        state = self._hosted.config.run.state
        self._service.between = lambda _: self._start_from(state, archive, snapshot)
        self._service.machine.cut_after(1, whole=True)

    def _start_from(self, state: Path, archive: Path, snapshot: dict[str, Any]) -> None:
        keys = {}
        for name in ("run.key", "succession.json"):
            path = state / name
            if path.exists():
                keys[name] = path.read_bytes()
        shutil.rmtree(state)
        now = START + asyncio.get_running_loop().time()
        restore(archive, state, now, by=self._ledger.operator)
        for name, content in keys.items():
            (state / name).write_bytes(content)
            (state / name).chmod(0o600)
        key = self._ledger.key
        self._ledger.go_back(snapshot)
        self._ledger.key = key
        self._note("restored a backup")
