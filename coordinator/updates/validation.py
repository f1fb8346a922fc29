"""Is an update what it claims to be? Decided before anything is written down."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mobile_sdk import safetensors
from mobile_sdk.errors import PayloadError
from mobile_sdk.payload import SteppedVector, decode_update, decode_vector
from mobile_sdk.payload.steps import OPEN
from mobile_sdk.protocol.messages import Offer

from ..errors import UpdateRefused
from ..merge.contribution import MAX_SAMPLES
from ..merge.step_sizes import Ranges, steps_of_ranges
from ..merge.sums import Elements, largest_magnitude, to_steps
from ..programs.tiers import Tier
from ..store.records import AssignmentRecord

__all__ = ["check_offer", "most_bytes", "parse_elements", "parse_update", "plain_report"]

# What a safetensors header takes, whatever the model, and each of up to three arrays of a parameter beside its name.
HEADER_BYTES = 10_000
ARRAY_HEADER_BYTES = 120

# An element beyond this is no training step; summed, such elements could overflow the weights.
MAX_MAGNITUDE = 1e6

# The numbers of a report that are kept, beside its metrics.
REPORTED = ("version", "samples", "steps", "loss", "seconds", "cpu_seconds", "saturated")

# More metrics than a task has are somebody's attempt to fill the database.
MAX_METRICS = 64


def check_offer(
    offer: Offer,
    assignment: AssignmentRecord | None,
    device: str,
    tier: Tier | None,
    staleness: int,
    maximum: int | None,
) -> tuple[AssignmentRecord, Tier]:
    """
    Whether an update of this description can be taken at all.

    Args:
        offer: what the device announced.
        assignment: the assignment that it names, if there is one.
        device: who offers it.
        tier: the assignment's tier.
        staleness: versions merged since the one that it was trained from.
        maximum: the run's limit of staleness, or none.

    Returns:
        The assignment and the tier that the update answers.

    Raises:
        UpdateRefused: with a code and a sentence for the device.

    """
    if assignment is None or assignment.device != device or tier is None:
        raise UpdateRefused("unknown-assignment", f"{offer.assignment} was never given to this device")
    if not assignment.open:
        raise UpdateRefused("unknown-assignment", f"{offer.assignment} was given back or replaced")
    if offer.report.get("version") != assignment.version:
        raise UpdateRefused(
            "unknown-version",
            f"the update was trained from version {_quoted(offer.report.get('version'))}; "
            f"{offer.assignment} is for version {assignment.version}",
        )
    samples = offer.report.get("samples")
    if not isinstance(samples, int) or isinstance(samples, bool) or not 1 <= samples <= MAX_SAMPLES:
        raise UpdateRefused("report", f"the update counts {_quoted(samples)} samples; it must be 1 to {MAX_SAMPLES}")
    if maximum is not None and staleness > maximum:
        raise UpdateRefused("stale", f"the update is {staleness} versions old; this run takes {maximum} at the most")
    if offer.artifact.encoding != "identity":
        raise UpdateRefused("payload", f"updates are not packed; this one is {offer.artifact.encoding}")
    most = most_bytes(tier)
    if offer.artifact.size > most:
        raise UpdateRefused(
            "size", f"the update has {offer.artifact.size} bytes; the tier {tier.name} takes at most {most}"
        )
    return assignment, tier


def most_bytes(tier: Tier) -> int:
    """The most bytes that an update of the tier may have: no packing of its arrays is longer than float32."""
    return tier.update_bytes + HEADER_BYTES + 3 * _names_bytes(tuple(tier.manifest.subset))


@functools.lru_cache(64)
def _names_bytes(parameters: tuple[str, ...]) -> int:
    """Bytes of the names of a subset's parameters in a header, once each."""
    return sum(len(name.encode()) + ARRAY_HEADER_BYTES for name in parameters)


def _quoted(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def parse_update(
    content: bytes | memoryview, sha256: str, tier: Tier, ranges: Mapping[str, Ranges] | None = None
) -> Elements:
    """
    The update's elements in the order of ``tier.positions``: integers on their steps, or float32 multiples of ``STEP``.

    Args:
        content: the update's file.
        sha256: its announced hash, hex.
        tier: whose subset it must hold.
        ranges: of the version that it was trained from, by tier: its steps must be those that follow. Without them any
            steps will do: of updates that were accepted before.

    Returns:
        float32, shape ``(len(tier.positions),)``, or as many integers.

    Raises:
        UpdateRefused: if the bytes are not what was announced, or no update of the tier's subset in a packing that
            :mod:`mobile_sdk.payload` knows, finite and of a sane magnitude.

    """
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UpdateRefused("corrupted", "the update came with another hash than was announced")
    return parse_elements(content, tier, ranges)


def parse_elements(content: bytes | memoryview, tier: Tier, ranges: Mapping[str, Ranges] | None = None) -> Elements:
    """
    As :func:`parse_update`, of bytes whose hash was checked before.

    Args:
        content: the update's file.
        tier: whose subset it must hold.
        ranges: of the version that it was trained from, by tier.

    Returns:
        float32, shape ``(len(tier.positions),)``, or as many integers.

    Raises:
        UpdateRefused: as :func:`parse_update`, except for the hash.

    """
    subset = tier.manifest.subset
    try:
        arrays, metadata = safetensors.loads(content)
        stepped = decode_vector(arrays, metadata, subset)
        decoded = dict(decode_update(arrays, metadata, subset)) if stepped is None else {}
    except PayloadError as error:
        raise UpdateRefused("payload", f"not an update of the tier {tier.name}: {error}") from error
    if stepped is not None:
        return _check_steps(stepped, metadata["format"], tier, ranges)
    given = None if ranges is None or not metadata.get("format", "").startswith("int") else ranges.get(tier.name)
    if given is not None and (given != OPEN).any():
        raise UpdateRefused("steps", "the update has scales of its own in the place of the steps that were given")
    parts = [array.reshape(-1) for array in decoded.values()]
    for name, part in zip(decoded, parts, strict=True):
        if not len(part):
            continue
        # Neither makes a copy, and both are not a number if any element is.
        largest = max(float(np.maximum.reduce(part)), -float(np.minimum.reduce(part)))
        if not math.isfinite(largest):
            raise UpdateRefused("not-finite", f"{name!r} holds values that are infinite or not a number")
        if largest > MAX_MAGNITUDE:
            raise UpdateRefused("magnitude", f"{name!r} holds values beyond {MAX_MAGNITUDE:g}")
    if not parts:
        return np.empty(0, np.float32)
    return to_steps(parts[0] if len(parts) == 1 else np.concatenate(parts))


def _check_steps(stepped: SteppedVector, dtype: str, tier: Tier, ranges: Mapping[str, Ranges] | None) -> SteppedVector:
    """Integers on the steps that were given, and on no others."""
    if ranges is not None and tier.name in ranges:
        given = steps_of_ranges(stepped.steps.shapes, ranges[tier.name], dtype)
        if not stepped.steps.answers(given):
            raise UpdateRefused("steps", "the update has other steps than were given with its assignment")
        if (given.exponents != OPEN).all():
            stepped = dataclasses.replace(stepped, steps=given)  # one object for all updates
    if largest_magnitude(stepped) > MAX_MAGNITUDE:
        raise UpdateRefused("magnitude", f"the update holds values beyond {MAX_MAGNITUDE:g}")
    return stepped


def plain_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """The report's known numbers; anything else that a device says is not kept."""
    plain: dict[str, Any] = {name: report[name] for name in REPORTED if name in report and _is_number(report[name])}
    plain["metrics"] = _numbers(report.get("metrics"))
    # Where the task has parameters that stay on devices: both models on the device's own samples.
    for name in ("global_metrics", "personal_metrics"):
        if name in report:
            plain[name] = _numbers(report[name])
    return plain


def _numbers(values: Any) -> dict[str, float]:
    if not isinstance(values, dict) or len(values) > MAX_METRICS:
        return {}
    return {name: v for name, v in values.items() if _is_number(v) and len(name) <= 64 and name.isprintable()}


def _is_number(value: Any) -> bool:
    # The comparison holds for no NaN and no infinity, and takes integers of any length.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63
