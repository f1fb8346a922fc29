"""Every input that was found keeps to what its target promises, and so does every seed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .operator_targets import close
from .target import CORPUS, replay
from .targets import TARGETS

INPUTS = [path for path in sorted(CORPUS.glob("*/*")) if path.is_file()]


@pytest.fixture(autouse=True, scope="module")
def _prepared() -> Iterator[None]:
    for target in TARGETS.values():
        target.prepare()
    yield
    close()


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_kept_input_is_parsed_or_refused_as_documented(path: Path) -> None:
    replay(TARGETS[path.parent.name], path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_of_a_target_is_kept(name: str) -> None:
    target = TARGETS[name]
    # By name: zlib's bytes are not the same everywhere, and formats grow.
    kept = {path.name for path in target.corpus.glob("seed-*")}
    assert kept == {f"seed-{name}" for name in target.seeds()}
