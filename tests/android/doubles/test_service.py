"""The app's service and job on phones that refuse, time out, restart and kill, at every level."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .compile import compile_app, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, str]]:
    """Case -> level -> what went wrong, or ok."""
    classes = compile_app(tmp_path_factory.mktemp("doubles"))
    done = subprocess.run(
        ["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", classes, "org.ftte.doubles.Cases"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[int, str]] = {}
    for line in done.stdout.splitlines():
        level, name, outcome = line.split("\t")
        found.setdefault(name, {})[int(level)] = outcome
    return found


@pytest.mark.parametrize(
    "case", [line.split('"')[1] for line in (Path(__file__).parent / "java/org/ftte/doubles/Cases.java").read_text()
             .splitlines() if "cases.put(" in line]
)  # fmt: skip
def test_on_a_phone_that_behaves(outcomes: dict[str, dict[int, str]], case: str) -> None:
    assert {level: outcome for level, outcome in outcomes[case].items() if outcome != "ok"} == {}
    assert len(outcomes[case]) == 7
