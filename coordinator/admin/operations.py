"""What an operator can do to a run: tokens, invites, devices, keys, weights. Every change is in the audit log."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import secrets
from collections.abc import Iterator
from typing import Any

from mobile_sdk import safetensors
from mobile_sdk.invite import Invite

from ..errors import ConflictError, NotFoundError
from ..loop.kept_merges import KeptMerges
from ..net.tls import certificate_fingerprint
from ..programs.signing import sign_tiers
from ..reports.device_classes import device_classes
from ..reports.waiting import waiting_words
from ..runs.served_run import ServedRun
from ..store.records import DeviceRecord, SetAside, TokenRecord, VersionRecord

__all__ = ["Operations", "device_values"]

# A token has so many random bytes; its name is for people and says nothing about it.
TOKEN_BYTES = 18
TOKEN_ID_BYTES = 4


class Operations:
    """
    Operations on one run.

    Args:
        running: the run.
        by: who asks, for the audit log.

    """

    def __init__(self, running: ServedRun, by: str) -> None:
        self._running = running
        self._run = running.coordinator.state
        self._store = running.store
        self._offload = self._run.offload
        self._by = by

    # The run.

    def overview(self) -> dict[str, Any]:
        """The run in a few numbers."""
        status = self._run.status()
        scheduler = self._running.coordinator.dispatcher.scheduler
        return {
            "name": status.name,
            "task": self._run.config.run.task,
            "phase": status.phase,
            "reason": status.reason,
            "waits_for": status.waits_for,
            "words": waiting_words(status),
            "notice": status.notice,
            "version": status.version,
            "metrics": dict(status.metrics),
            "watched": status.watched,
            "best": self._running.coordinator.watch.best,
            "buffered": status.buffered,
            "capacity": status.capacity,
            "adaptive": status.adaptive,
            "mean_staleness": status.mean_staleness,
            "merged": status.merged,
            "devices": len(status.devices),
            "connected": sum(device.state != "offline" for device in status.devices),
            "working": scheduler.training,
            "waiting": len(scheduler.waiting),
            "key": self._run.key.public,
            "classes": device_classes(status.devices),
            "federated": [dataclasses.asdict(result) for result in self._run.federated.results[-1:]],
        }

    async def start(self) -> None:
        """
        Give out work: the first time, or again.

        Raises:
            ConflictError: if the run has finished by a limit of ``[stop]`` that it would meet again at once.

        """
        before, phases = self._run.phase, self._running.coordinator.phases
        if before == "finished" and (reached := await phases.reached()):
            raise ConflictError(
                f"the run stays finished: {reached}. Raise that limit in its run file, serve it again with --stay, "
                "and start it then"
            )
        await phases.enter("running", f"started by {self._by}", by=self._by)
        if before == "finished":
            await self._running.ended()  # its summary may still be being written
            self._running.start()

    async def resume(self) -> None:
        """
        Give out work again after a pause or a drain.

        Raises:
            ConflictError: if the run was not started yet, or has finished.

        """
        phase = self._run.phase
        if phase in ("created", "finished"):
            how = "takes it up again" if phase == "finished" else "begins it"
            raise ConflictError(f"the run is {phase}, not paused: `ftte runs start {self._running.name}` {how}")
        await self.start()

    async def pause(self) -> None:
        """Give no work out, and merge nothing; what devices hand in is taken."""
        await self._running.coordinator.phases.enter("paused", f"paused by {self._by}", by=self._by)

    async def drain(self) -> None:
        """Give no work out, merge what comes in, and pause when nobody works any more."""
        await self._running.coordinator.phases.enter("draining", f"drained by {self._by}", by=self._by)

    async def finish(self) -> None:
        """End the run now."""
        await self._running.coordinator.phases.enter("finished", f"finished by {self._by}", by=self._by)

    async def roll_back(self, to: int, why: str) -> dict[str, Any]:
        """Go on from an older version."""
        record = await self._running.coordinator.version_maker.roll_back(
            to, why or f"rolled back by {self._by}", by=self._by
        )
        return _version(record)

    # Versions.

    async def versions(self, before: int | None = None, limit: int | None = None) -> list[dict[str, Any]]:
        """
        Versions, oldest first.

        Args:
            before: only those below this number.
            limit: so many of them, the newest.

        """
        best, line = self._running.coordinator.watch.best, self._run.versions

        def read() -> list[VersionRecord]:
            records = self._store.versions.all()
            found = [record for record in records if before is None or record.version < before]
            return found if limit is None else found[max(len(found) - limit, 0) :]

        records = await self._offload(read)
        return [
            _version(record) | {"best": record.version == best, "current_line": line.is_ancestor(record.version)}
            for record in records
        ]

    async def weights(self, number: int | None) -> tuple[int, bytes]:
        """A version's number and its weights as a safetensors file; the best version by default, else the newest."""
        wanted = number if number is not None else self._running.coordinator.watch.best
        newest = self._run.versions.newest

        def load() -> tuple[int, bytes]:
            record = newest if wanted in (None, newest.version) else self._store.versions.get(wanted)
            vector = self._run.versions.load(record)
            content = safetensors.dumps(
                self._run.layout.views(vector),
                {"run": self._run.config.run.name, "version": str(record.version)},
            )
            details = {"version": record.version, "sha256": hashlib.sha256(content).hexdigest()}
            self._store.audit.write(self._run.clock.wall(), self._by, "exported", "weights", details)
            return record.version, content

        result: tuple[int, bytes] = await self._offload(load)
        return result

    # Devices.

    async def devices(self) -> list[dict[str, Any]]:
        """The registry, with what goes on just now."""
        records = await self._offload(self._store.devices.all)
        merged = sum(record.updates for record in records) or 1
        return [
            device_values(self._running, record) | {"contribution": round(record.updates / merged, 4)}
            for record in records
        ]

    async def revoke(self, device: str) -> None:
        """
        The device may not come back. What it has contributed stays.

        Raises:
            NotFoundError: if there is no such device.

        """
        with self._membership():
            now = self._run.clock.wall()
            known = await self._offload(lambda: self._store.devices.revoke(device, now, by=self._by))
        if not known:
            raise NotFoundError(f"there is no device {device!r}: see `ftte devices`")
        await self._running.coordinator.expel(device)

    async def withdraw(self, device: str) -> int:
        """
        Delete all that is known of a device; how many of its updates were stopped.

        Raises:
            NotFoundError: if there is no such device.

        """
        async with self._running.coordinator.version_maker.idle():
            with self._membership():
                now = self._run.clock.wall()
                # Before its row goes: after a kill in between, the operator finds the device still there.
                await self._offload(KeptMerges(self._run.config.run.state).forget, device)
                stopped = await self._offload(lambda: self._store.devices.withdraw(device, now, by=self._by))
            if stopped is None:
                raise NotFoundError(f"there is no device {device!r}: see `ftte devices`")
            # An update may have been written down before, and come into the buffer after this.
            self._run.withdrawn.add(device)
            self._run.buffer.remove([u for u in self._run.buffer.all() if u.record.device == device])
        await self._running.coordinator.expel(device)
        self._run.forget(device)
        await self._running.update_summary()
        return len(stopped)

    @contextlib.contextmanager
    def _membership(self) -> Iterator[None]:
        """What is known of devices changes while the context lasts: who has looked before looks again."""
        self._run.membership += 1
        try:
            yield
        finally:
            self._run.membership += 1

    # Tokens and invites.

    async def tokens(self) -> list[dict[str, Any]]:
        """Every token, without its secret part, which nobody knows but who was given it."""
        return [_token(record) for record in await self._offload(self._store.tokens.all)]

    async def create_token(self, uses: int | None, seconds: float | None, note: str) -> tuple[str, dict[str, Any]]:
        """
        A new token, and its record.

        Args:
            uses: devices that may enrol with it; none for any number.
            seconds: how long it is good for; none for ever.
            note: for whom.

        """
        token, now = secrets.token_urlsafe(TOKEN_BYTES), self._run.clock.wall()
        record = TokenRecord(
            id=secrets.token_hex(TOKEN_ID_BYTES),
            digest=hashlib.sha256(token.encode()).hexdigest(),
            uses_left=uses,
            expires_at=None if seconds is None else now + seconds,
            created_at=now,
            note=note,
        )
        await self._offload(lambda: self._store.tokens.add(record, by=self._by))
        return token, _token(record)

    async def revoke_token(self, token: str) -> None:
        """
        Nobody enrols with it any more; who has enrolled with it stays.

        Raises:
            NotFoundError: if there is no such token.

        """
        if not await self._offload(lambda: self._store.tokens.revoke(token, self._run.clock.wall(), by=self._by)):
            raise NotFoundError(f"there is no token {token!r}: see `ftte tokens`")

    def invite(self, url: str, token: str) -> str:
        """The link for a token, where the service is reached at ``url``."""
        server, fingerprint = self._run.config.server, ""
        if server.certificate is not None and url.startswith("wss://") and server.public_url is None:
            digest, self_signed = certificate_fingerprint(server.certificate)
            fingerprint = digest if self_signed else ""
        return str(Invite(url, self._run.config.run.name, self._run.key.public, token, fingerprint))

    # Keys.

    async def rotate_key(self) -> str:
        """
        A new key for the run, signed by the old one, which signs all programs again.

        Connected devices are sent away and follow when they come back.

        Raises:
            ConflictError: if the run has finished.

        """
        run, coordinator = self._run, self._running.coordinator
        if run.phase == "finished":
            raise ConflictError("the run has finished: its key has nothing more to sign")

        def rotate() -> None:
            key = run.key.rotated(run.config.run.state / "run.key", run.config.run.name)
            sign_tiers(self._store, key)
            details = {"key": key.public, "previous": run.key.public}
            self._store.audit.write(run.clock.wall(), self._by, "rotated", "key", details)
            run.use_key(key)

        async with coordinator.version_maker.idle():
            await self._offload(rotate)
        await coordinator.dismiss("unavailable", "the run has a new key")
        return run.key.public

    async def audit(self) -> list[dict[str, Any]]:
        """The audit log, checked."""
        return [dataclasses.asdict(entry) for entry in await self._offload(self._store.audit.entries)]


def _version(record: VersionRecord) -> dict[str, Any]:
    return {
        "version": record.version,
        "parent": record.parent,
        "kind": record.kind,
        "metrics": dict(record.metrics),
        "created_at": record.created_at,
        "pruned": record.pruned,
    }


def _token(record: TokenRecord) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(record).items() if name != "digest"}


def _aside(aside: SetAside | None) -> dict[str, Any]:
    if aside is None:
        return {"set_aside": "", "set_aside_reason": "", "set_aside_until": None}
    return {"set_aside": aside.why, "set_aside_reason": aside.reason, "set_aside_until": aside.until}


def device_values(running: ServedRun, record: DeviceRecord) -> dict[str, Any]:
    """A device of the registry as JSON values, with what goes on just now."""
    run = running.coordinator.state
    status = run.device(record.id)
    return {
        "id": record.id,
        "state": "revoked" if record.revoked_at is not None else status.state,
        "tier": status.tier or record.tier,
        "updates": status.updates,
        "failures": max(record.failures, status.failures),
        "staleness": status.staleness,
        "bytes_up": status.bytes_up,
        "bytes_down": status.bytes_down,
        "enrolled_at": record.enrolled_at,
        "last_seen": record.last_seen,
        "revoked_at": record.revoked_at,
        "token": record.token,
        "model": status.model,
        "self_check": status.self_check,
        "profile": dict(record.profile),
        "lost": running.coordinator.dispatcher.scheduler.lost(record.id),
        **_aside(run.aside.get(record.id) if run.aside_seconds(record.id) else None),
    }
