"""``python -m tests.fuzz`` says what it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_without_atheris_the_command_that_installs_it_is_said() -> None:
    without = "import runpy, sys; sys.modules['atheris'] = None; runpy.run_module('tests.fuzz', run_name='__main__')"
    command = [sys.executable, "-c", without, "frames"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'ftte[fuzz]'" in done.stderr
