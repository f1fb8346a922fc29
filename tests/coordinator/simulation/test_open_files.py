"""A fleet of one process opens more files than a system allows at first."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from coordinator.simulation.open_files import enough_files
from coordinator.simulation.world.scenario import load_scenario

DIGITS = Path(__file__).parents[3] / "scenarios" / "digits.toml"


def limited(soft: int, hard: int) -> Callable[[], None]:
    """For a new process, before it runs anything."""
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limit_is_raised_while_the_simulation_runs(tmp_path: Path) -> None:
    config = load_scenario(DIGITS).config(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, before[1]))
    try:
        with enough_files(config, 100):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 100 * 5
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 600
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_system_that_allows_too_few_is_named_before_anything_is_planned() -> None:
    command = [str(Path(sys.executable).with_name("ftte")), "simulate", str(DIGITS)]
    done = subprocess.run(
        command, preexec_fn=limited(400, 400), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    said = " ".join((done.stdout + done.stderr).split())
    assert "ftte: 16 devices" in said
    assert "this system allows 400" in said
    assert "ulimit -n" in said
