"""``make`` finds a Python that the project can be set up with, or says in a sentence what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def find(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the script says where ``folder`` is all of the PATH."""
    return subprocess.run(
        ["/bin/sh", str(ROOT / "scripts" / "find_python.sh")],
        env={"PATH": str(folder)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def put(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


THIS = f'exec {sys.executable} "$@"'


def test_a_fit_one_is_taken_and_named(tmp_path: Path) -> None:
    put(tmp_path, "python3", THIS)
    found = find(tmp_path)
    assert (found.returncode, found.stdout) == (0, "python3\n")
    version = sys.version.split()[0]
    assert found.stderr == f"make: setting up with {tmp_path}/python3 (CPython {version})\n"


def test_a_shim_that_runs_nothing_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "python3.13", "echo no version is chosen >&2; exit 127")
    put(tmp_path, "python3.12", "exit 1")
    put(tmp_path, "python3.11", THIS)
    assert find(tmp_path).stdout == "python3.11\n"


def test_one_without_venv_is_not_fit(tmp_path: Path) -> None:
    # As Debian's python3 without python3-venv: the modules are not found.
    put(tmp_path, "python3", f'exec {sys.executable} -S -c "import sys; sys.path.clear(); exec(sys.argv[2])" "$@"')
    found = find(tmp_path)
    assert found.returncode == 1
    assert "CPython 3.11 to 3.14 with venv is needed" in found.stderr


def test_where_there_is_none_the_remedy_is_said(tmp_path: Path) -> None:
    found = find(tmp_path)
    assert (found.returncode, found.stdout) == (1, "")
    assert "found: none" in found.stderr
    assert "apt-get install python3 python3-venv" in found.stderr
    assert "make PYTHON=/path/to/python3.13" in found.stderr


def test_the_one_that_is_asked_for_is_taken_or_refused(tmp_path: Path) -> None:
    put(tmp_path, "python3", THIS)
    own = put(tmp_path, "my-python", THIS)
    assert find(tmp_path, PYTHON=str(own)).stdout == f"{own}\n"
    old = put(tmp_path, "old", 'case "$2" in *platform*) echo CPython 3.9.2;; *) exit 1;; esac')
    refused = find(tmp_path, PYTHON=str(old))
    assert refused.returncode == 1
    assert refused.stderr == f"make: PYTHON={old} is CPython 3.9.2; CPython 3.11 to 3.14 with venv is needed\n"
