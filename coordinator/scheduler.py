"""
Who trains what next.

Every device that asks gets work at once: the newest version, in the largest tier that fits its
budget. It may train the same version again, with another seed; no device ever waits for another.
"""

from __future__ import annotations

from mobile_sdk.errors import Refused
from mobile_sdk.protocol.messages import Assign, Hex, Name, Ready
from mobile_sdk.sizes import format_bytes

from .run import Run
from .store.base import AssignmentRecord
from .tiers import Tier, choose_tier

__all__ = ["next_assignment"]

# Versions that an assignment may lag behind and still be given again.
LONGEST_RESUME = 20


async def next_assignment(run: Run, device: str, ready: Ready) -> tuple[Assign, Tier]:
    """
    Work for a device.

    A device that comes back with its work undone gets the same assignment again while that is not too stale, so
    that what it has downloaded stays good: on a link that keeps breaking, newer weights would never arrive whole.

    Raises:
        Refused: if nothing fits the device.

    """
    tier = choose_tier(run.tiers, ready.budget)
    if tier is None:
        least = run.tiers[0]
        raise Refused(
            "budget",
            f"the budget of {format_bytes(ready.budget)} is too small: the smallest tier, {least.name}, "
            f"needs {format_bytes(least.needs_bytes)}",
        )
    if ready.executorch != tier.manifest.executorch:
        raise Refused(
            "runtime",
            f"the device runs ExecuTorch {ready.executorch}, the programs need {tier.manifest.executorch}: "
            f"install the SDK that belongs to this coordinator",
        )
    version = run.versions.newest
    record: AssignmentRecord | None = await run.offload(run.store.open_assignment, device)
    limit = run.config.merge.staleness.maximum
    patience = LONGEST_RESUME if limit is None else min(limit, LONGEST_RESUME)
    if record is None or record.tier != tier.name or run.versions.staleness(record.version) > patience:
        record = await run.offload(run.store.assign, device, version.version, tier.name, run.clock.wall())
    else:
        version = await run.offload(run.store.version, record.version)
    assign = Assign(
        assignment=Name(record.id),
        version=version.version,
        manifest=tier.record.manifest,
        signature=Hex(tier.record.signature),
        program=tier.record.program,
        weights=version.weights,
        settings=run.config.training.settings.to_json(),
        seed=record.number,
    )
    return assign, tier
