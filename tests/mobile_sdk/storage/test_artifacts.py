"""What comes down is kept in parts, and counts once its hash is right."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from mobile_sdk import safetensors
from mobile_sdk.payload import Grid, make_difference
from mobile_sdk.payload.grid import METADATA
from mobile_sdk.protocol.messages import ArtifactRef, Sha256
from mobile_sdk.storage.artifacts import Artifacts

CONTENT = bytes(range(256)) * 8


def ref(content: bytes) -> ArtifactRef:
    return ArtifactRef(Sha256(hashlib.sha256(content).hexdigest()), len(content))


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path)


def put(artifacts: Artifacts, content: bytes) -> ArtifactRef:
    whole = ref(content)
    artifacts.append(whole.sha256, 0, content)
    assert artifacts.complete(whole.sha256)
    return whole


def test_an_artifact_comes_in_parts_and_is_there_once_it_is_whole(artifacts: Artifacts, tmp_path: Path) -> None:
    wanted = ref(CONTENT)
    assert artifacts.partial_size(wanted) == 0
    artifacts.append(wanted.sha256, 0, CONTENT[:1000])
    assert artifacts.partial_size(wanted) == 1000
    assert artifacts.find(wanted.sha256) is None
    # After a restart that lost the end of the part.
    again = Artifacts(tmp_path)
    again.append(wanted.sha256, 900, CONTENT[900:])
    assert again.partial_size(wanted) == len(CONTENT)
    assert again.complete(wanted.sha256)
    path = again.find(wanted.sha256)
    assert path is not None
    assert path.read_bytes() == CONTENT
    assert again.has(wanted.sha256)
    assert again.partial_size(wanted) == 0


def test_a_part_as_long_as_the_artifact_is_kept_and_a_longer_one_is_not(artifacts: Artifacts) -> None:
    wanted = ref(CONTENT)
    artifacts.append(wanted.sha256, 0, CONTENT + b"!")
    assert artifacts.partial_size(wanted) == 0
    artifacts.append(wanted.sha256, 0, CONTENT)
    assert artifacts.partial_size(wanted) == len(CONTENT)


def test_a_part_with_another_hash_is_thrown_away(artifacts: Artifacts) -> None:
    wanted = ref(CONTENT)
    artifacts.append(wanted.sha256, 0, CONTENT[:-1] + b"!")
    assert not artifacts.complete(wanted.sha256)
    assert artifacts.partial_size(wanted) == 0
    assert artifacts.find(wanted.sha256) is None


def test_an_artifact_that_was_damaged_since_is_removed_when_it_is_looked_for(artifacts: Artifacts) -> None:
    whole = put(artifacts, CONTENT)
    path = artifacts.find(whole.sha256)
    assert path is not None
    path.write_bytes(CONTENT[:-1] + b"!")
    assert not artifacts.has(whole.sha256)
    assert artifacts.find(whole.sha256) is None
    assert not artifacts.has(whole.sha256)


def version(offset: int) -> bytes:
    weights = np.linspace(-1.0, 1.0, 200, dtype=np.float32).reshape(20, 10)
    grid = Grid.of({"w": weights})
    moved = grid.snap("w", weights + np.float32(0.01 * offset))
    return safetensors.dumps({"w": moved}, {METADATA: grid.to_text()})


@pytest.mark.parametrize("based", [True, False])
def test_a_difference_makes_the_new_version_and_is_gone(based: bool, artifacts: Artifacts) -> None:
    old, new = version(0), version(3)
    base = put(artifacts, old).sha256 if based else ""
    step = make_difference(memoryview(old) if based else None, memoryview(new))
    assert step is not None
    difference = put(artifacts, step)
    assert artifacts.rebuild(base, difference.sha256, ref(new))
    path = artifacts.find(ref(new).sha256)
    assert path is not None
    assert path.read_bytes() == new
    assert artifacts.find(difference.sha256) is None


def test_a_difference_that_makes_something_else_leaves_nothing(artifacts: Artifacts, tmp_path: Path) -> None:
    old, new, other = version(0), version(3), version(5)
    base = put(artifacts, old)
    step = make_difference(memoryview(old), memoryview(new))
    assert step is not None
    for content in (step, b"no difference at all"):
        difference = put(artifacts, content)
        assert not artifacts.rebuild(base.sha256, difference.sha256, ref(other))
    assert not artifacts.rebuild("ab" * 32, put(artifacts, step).sha256, ref(new)), "its base is not here"
    assert [path.name for path in tmp_path.iterdir()] == [base.sha256]


def test_only_what_is_wanted_stays_with_its_parts(artifacts: Artifacts, tmp_path: Path) -> None:
    kept, gone = put(artifacts, b"kept"), put(artifacts, b"gone")
    artifacts.append("cd" * 32, 0, b"on its way")
    artifacts.append("ef" * 32, 0, b"not wanted any more")
    artifacts.keep([kept.sha256, "cd" * 32])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kept.sha256, "cd" * 32 + ".part"])
    assert not artifacts.has(gone.sha256)
