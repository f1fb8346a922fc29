"""Devices get the shortest way to a version, whatever they say that they hold."""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.store.artifacts import Artifacts
from coordinator.versions import differences as downlink
from coordinator.versions.differences import Downlink
from mobile_sdk import safetensors
from mobile_sdk.clock import offload
from mobile_sdk.payload import Grid, apply_difference
from mobile_sdk.payload.grid import METADATA
from mobile_sdk.protocol.messages import ArtifactRef, Sha256


def put(artifacts: Artifacts, content: bytes) -> ArtifactRef:
    (entry,) = artifacts.put(content)
    return ArtifactRef(Sha256(entry.sha256), entry.size)


def test_what_a_device_makes_up_takes_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Artifacts(tmp_path)
    monkeypatch.setattr(downlink, "MOST_BYTES", 100 * downlink.ENTRY_BYTES)
    (target,) = versions(files, 1)
    link = Downlink(files)
    for number in range(20):
        holds = [hashlib.sha256(f"{number} {each}".encode()).hexdigest() for each in range(64)]
        link.differences(holds, [target])
    assert len(link._known) <= 100


@pytest.fixture
def files(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path)


def versions(files: Artifacts, count: int) -> list[ArtifactRef]:
    """Versions that move a little from one to the next."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((40, 50)).astype(np.float32)
    grid = Grid.of({"w": weights})
    refs = []
    for _ in range(count):
        refs.append(put(files, safetensors.dumps({"w": grid.snap("w", weights)}, {METADATA: grid.to_text()})))
        weights += 0.002 * rng.standard_normal(weights.shape).astype(np.float32)
    return refs


def rebuilt(files: Artifacts, way: Any, content: bytes, size: int) -> str:
    output = io.BytesIO()
    base = files.path(way.base).read_bytes() if way.base else None
    apply_difference(base, content, size, output)
    return hashlib.sha256(output.getvalue()).hexdigest()


def test_a_device_with_a_version_gets_a_difference_from_it_and_a_new_one_from_nothing(files: Artifacts) -> None:
    old, new = versions(files, 2)
    served = Downlink(files)
    ((near, short),) = served.differences([old.sha256], [new]).items()
    ((far, long),) = served.differences([], [new]).items()
    assert (str(near.base), str(far.base)) == (str(old.sha256), "")
    assert len(short) < len(long) < new.size
    assert len(short) < new.size / 5
    for way, content in ((near, short), (far, long)):
        assert rebuilt(files, way, content, new.size) == new.sha256 == way.target
        assert way.artifact == ArtifactRef(Sha256(hashlib.sha256(content).hexdigest()), len(content))


def test_the_shortest_of_several_ways_is_taken_and_nothing_for_what_is_there(files: Artifacts) -> None:
    first, second, third, newest = versions(files, 4)
    served = Downlink(files)
    (way,) = served.differences([first.sha256, third.sha256, second.sha256], [newest])
    assert str(way.base) == str(third.sha256)
    assert served.differences([newest.sha256], [newest]) == {}


def test_a_file_that_is_pruned_unknown_or_no_version_is_no_base(files: Artifacts) -> None:
    old, new = versions(files, 2)
    update = put(files, safetensors.dumps({"w": np.ones((40, 50), np.float32)}))
    files.path(old.sha256).unlink()
    (way,) = Downlink(files).differences([old.sha256, "ab" * 32, update.sha256], [new])
    assert way.base == ""


def test_a_device_that_claims_every_version_makes_the_coordinator_work_no_more_than_an_honest_one(
    files: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    *old, newest = versions(files, 20)
    made: list[str] = []
    monkeypatch.setattr(Downlink, "_make", lambda self, base, target: made.append(base))
    Downlink(files).differences([ref.sha256 for ref in old], [newest])
    assert made == [*(ref.sha256 for ref in old[-downlink.MOST_BASES :]), ""]


def test_weights_on_no_grid_are_fetched_as_they_are(files: Artifacts) -> None:
    frozen = put(files, safetensors.dumps({"w": np.ones((40, 50), np.float32)}))
    assert Downlink(files).differences([], [frozen]) == {}


def test_memory_for_differences_is_bounded(files: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downlink, "MOST_BYTES", 5000)
    refs = versions(files, 12)
    served = Downlink(files)
    for base, target in itertools.pairwise(refs):
        served.differences([base.sha256], [target])
    content = sum(len(packed.content) for packed in served._known.values() if packed)
    assert content + downlink.ENTRY_BYTES * len(served._known) == served._bytes <= 5000
    assert (refs[0].sha256, refs[1].sha256) not in served._known
    assert len(served.differences([refs[0].sha256], [refs[1]])) == 1, "what was dropped is made again"


def test_devices_that_ask_at_once_have_a_delta_made_once(files: Artifacts) -> None:
    async def ask() -> None:
        refs = versions(files, 2)
        served = Downlink(files)
        made: list[object] = []

        async def count(function: Callable[..., Any], *args: Any) -> Any:
            made.append(function)
            await asyncio.sleep(0)
            return function(*args)

        wanted = ([refs[0].sha256], [refs[1]])
        leaver = asyncio.create_task(served.find(*wanted, count))
        others = [asyncio.create_task(served.find(*wanted, count)) for _ in range(3)]
        await asyncio.sleep(0)
        leaver.cancel()
        answers = await asyncio.gather(*others)
        assert await served.find(*wanted, count) == answers[0] == served.differences(*wanted)
        assert len(made) == 1

    asyncio.run(ask())


def test_what_was_sought_before_anybody_asks_is_made_once(files: Artifacts) -> None:
    base, target = versions(files, 2)
    made = []

    async def count(function: Callable[..., Any], *args: Any) -> Any:
        made.append(args)
        return await offload(function, *args)

    async def main() -> None:
        served = Downlink(files)
        served.seek([base.sha256], [target], count)
        served.seek([base.sha256], [target], count)
        answer = await served.find([base.sha256], [target], count)
        served.seek([base.sha256], [target], count)
        assert len(made) == 1
        assert answer == served.known([base.sha256], [target]) == served.differences([base.sha256], [target])

    asyncio.run(main())


def test_remembered_answers_are_bounded(files: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        monkeypatch.setattr(downlink, "MOST_ANSWERS", 3)
        refs = versions(files, 6)
        served = Downlink(files)
        for base, target in itertools.pairwise(refs):
            await served.find([base.sha256], [target], offload)
        assert len(served._answers) == 3

    asyncio.run(ask())
