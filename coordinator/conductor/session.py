"""A device that is connected to a gateway, as its run sees it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mobile_sdk.net.connection import ConnectionLost
from mobile_sdk.protocol.messages import Announce, ArtifactRef, Assign, Evaluate, Finished, MergedMessage, Ready

from ..gateway.pipe import Pipe
from ..gateway.run import KNOWN_VERSIONS
from ..net.traffic import Traffic
from ..programs.tiers import Tier
from ..run_state import RunState
from ..sessions.profile import note_ready

__all__ = ["RemoteDevice"]


class RemoteDevice:
    """
    The :class:`~coordinator.sessions.access.ConnectedDevice` and :class:`~coordinator.scheduling.dispatcher.Applicant`
    of a connection at a gateway.

    Args:
        device: its name.
        run: its run.
        pipe: to its gateway.
        number: of the connection, at that gateway.
        known_since: the first version whose files the gateway knows.
        finish: tells the gateway of the end of the run.

    """

    def __init__(
        self,
        device: str,
        run: RunState,
        pipe: Pipe,
        *,
        number: int,
        known_since: int,
        finish: Callable[[Finished], None],
    ) -> None:
        self.device = device
        self.number = number
        self._known_since = known_since
        self._finish = finish
        self.gone = False
        self._run = run
        self._pipe = pipe
        self._profile: dict[str, Any] | None = None
        self._traffic = Traffic()
        self._status = run.device(device)
        self._status.current = self._traffic
        self._status.state = "idle"

    def move(self, up: int, down: int) -> None:
        """So many bytes have moved over the connection by now."""
        self._traffic.up, self._traffic.down = up, down

    def ready(self, message: Ready) -> None:
        """The device asks for work."""
        self._profile = note_ready(self._status, message)
        self._status.state = "waiting"

    async def assign(self, message: Assign, tier: Tier) -> None:
        self.assign_at_once(message, tier)

    def assign_at_once(self, message: Assign, tier: Tier) -> bool:
        self._status.state, self._status.tier = "training", tier.name
        self._say("assign", number=message.seed, payload=message.payload, **self._work(message, tier))
        return True

    def expect(self, weights: Sequence[ArtifactRef]) -> None:
        """Its gateway looks for shorter ways to the files."""

    async def evaluate(self, message: Evaluate, tier: Tier) -> None:
        self._status.state, self._status.tier = "evaluating", tier.name
        self._say("evaluate", evaluation=message.evaluation, **self._work(message, tier))

    def _work(self, message: Assign | Evaluate, tier: Tier) -> Mapping[str, Any]:
        work: dict[str, Any] = {"version": message.version, "tier": tier.name, "graph": tier.served is not None}
        age = self._run.versions.newest.version - message.version
        if message.version < self._known_since or age >= KNOWN_VERSIONS // 2:
            work["weights"] = message.weights
        return work

    async def postpone(self, seconds: float, reason: str) -> None:
        self._status.state = "idle"
        self._say("later", seconds=seconds, reason=reason)

    async def wait(self, reason: str) -> None:
        self._say("wait", reason=reason)

    def push(self, message: Announce | Finished) -> None:
        if isinstance(message, Finished):
            self._finish(message)  # of versions gateways hear first, and tell their devices

    def tell(self, message: MergedMessage) -> None:
        if not self.gone:
            self._say("merged", **dataclasses.asdict(message))

    async def fail(self, code: str, message: str) -> None:
        if not self.gone:
            self._say("fail", code=code, text=message)

    async def replace(self) -> None:
        await self.fail("replaced", "the device has connected again")

    async def leave(self) -> None:
        status = self._status
        status.earlier.up += self._traffic.up
        status.earlier.down += self._traffic.down
        if status.current is self._traffic:
            status.current = Traffic()
            status.state = "offline"
        devices = self._run.store.devices
        await self._run.offload(devices.add_traffic, self.device, self._traffic.up, self._traffic.down)
        await self._run.offload(devices.seen, self.device, self._run.clock.wall(), self._profile)

    def _say(self, kind: str, **values: Any) -> None:
        if self.gone:
            raise ConnectionLost(f"{self.device} has left its gateway")
        self._pipe.send({"m": kind, "r": self._run.config.run.name, "device": self.device, "n": self.number, **values})
