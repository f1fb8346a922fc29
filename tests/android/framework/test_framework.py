"""
The app's own Python and Java on Android's real framework code, level by level, with a real coordinator.

One old and one new level by default; ``make test-android`` fetches what is needed and runs all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mobile_sdk.invite import Invite
from tests.system.conftest import Site, planned  # noqa: F401

from . import parts
from .build import ROOT, Built, build
from .scenarios import SCENARIOS

# Several devices of one run, one after the other: each trains and is merged alone.
SETTINGS = "[merge]\nbuffer = 1\n[stop]\nversions = 100000\n"
LIMIT_SECONDS = 900


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The app, compiled once."""
    return build(tmp_path_factory.mktemp("android"))


@pytest.fixture(scope="module")
def outcomes(
    built: Built,
    tmp_path_factory: pytest.TempPathFactory,
    planned: Path,  # noqa: F811
) -> Callable[[int], dict[str, str]]:
    """What each scenario came to at a level; a level runs once, in a process of its own."""
    known: dict[int, dict[str, str]] = {}

    def run(level: int) -> dict[str, str]:
        if level not in known:
            site = Site(tmp_path_factory.mktemp("site"), planned)
            try:
                site.serve(SETTINGS)
                known[level] = _run(built, level, str(Invite(site.url, "digits", site.key)), site.folder)
            finally:
                site.close()
        return known[level]

    return run


def _run(built: Built, level: int, invitation: str, folder: Path) -> dict[str, str]:
    outcomes, log = folder / "outcomes.json", folder / "log"
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "tests.android.framework.run", str(level), str(built.folder), str(outcomes)],
            cwd=ROOT,
            env=os.environ | {"FTTE_FRAMEWORK_INVITATION": invitation, "FTTE_ANDROID_FRAMEWORK": str(parts.CACHE)},
            stdout=output,
            stderr=output,
            check=False,
            timeout=LIMIT_SECONDS,
        )
    if not outcomes.exists():
        pytest.fail(f"level {level} ended with {done.returncode}:\n{log.read_text(errors='replace')[-4000:]}")
    found: dict[str, str] = json.loads(outcomes.read_text())
    return found


@pytest.mark.parametrize("level", parts.wanted())
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_on_androids_framework(request: pytest.FixtureRequest, level: int, name: str) -> None:
    if lack := parts.missing(level):
        pytest.skip(lack)
    found = request.getfixturevalue("outcomes")(level)
    assert not found.get("the sandbox"), found["the sandbox"]
    assert name in found, f"it was not reached: {list(found)}"
    assert not found[name], found[name]
