"""Both wheels install where there is no checkout, and what they bring is complete."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped, unused-ignore]

ROOT = Path(__file__).parents[2]
# Of the coordinator's wheel.
PACKAGES = ("coordinator", "exporters", "ftte")


def run(*command: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources alone: a build in the checkout would leave its traces there."""
    folder = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def wheels(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The coordinator's wheel, built from its source distribution, and the SDK's."""
    folder = tmp_path_factory.mktemp("wheels")
    run(
        sys.executable,
        "-c",
        f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})",
        cwd=source,
    )
    (sdist,) = folder.glob("ftte-*.tar.gz")
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder)
    run(*pip, sdist, ROOT / "mobile_sdk", cwd=folder)
    return {path.name.split("-")[0]: path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment with both wheels; other packages are those of this one."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Only the folders: what is installed for development (a hook, not a folder's content) is not to be found.
    theirs = [*site.getsitepackages(), *(path for path in sys.path if path.endswith("site-packages"))]
    (packages / "others.pth").write_text("\n".join(dict.fromkeys(theirs)) + "\n")
    run(folder / "bin/python", "-m", "pip", "install", "--no-index", "--no-deps", *wheels.values(), cwd=folder)
    return folder / "bin"


def test_the_commands_are_those_of_the_wheels(installed: Path, tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(installed / "ftte", "--version", cwd=tmp_path) == f"ftte {version}\n"
    assert run(installed / "ftte-device", "--version", cwd=tmp_path).startswith(f"ftte-device {version} (protocol ")
    for package in (*PACKAGES, "mobile_sdk"):
        where = run(installed / "python", "-c", f"import {package}; print({package}.__file__)", cwd=tmp_path)
        assert Path(where).is_relative_to(installed.parent)


def test_a_program_is_exported_and_loaded(installed: Path, tmp_path: Path) -> None:
    run(installed / "ftte", "export", "exporters.zoo.dense:mlp", "--budget", "2MB", "-o", "program", cwd=tmp_path)
    load = "from mobile_sdk import load_engine; print(load_engine('program').manifest.task)"
    assert "mlp" in run(installed / "python", "-c", load, cwd=tmp_path)


def test_a_run_can_begin_where_there_is_no_checkout(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(
        '[run]\nname = "digits"\ntask = "exporters.zoo.digits:task"\n[budgets]\nall = "4MB"\n'
    )
    run(installed / "ftte", "doctor", "run.toml", cwd=tmp_path)


@pytest.mark.full
def test_a_new_project_runs_as_it_is_made(installed: Path, tmp_path: Path) -> None:
    """Its tests, the simulator, and a run that it serves to devices that are its own program."""
    folder = tmp_path / "my_project"
    run(installed / "ftte", "new", folder, cwd=tmp_path)
    assert "3 passed" in run(installed / "python", "-m", "pytest", "-q", cwd=folder)
    run(installed / "ftte", "simulate", "scenario.toml", "--set", "stop.versions=2", cwd=folder)
    serve: list[str | Path] = [
        installed / "ftte",
        "serve",
        "run.toml",
        "--set",
        "stop.versions=4",
        "--set",
        "stop.accuracy=1.0",
    ]
    with subprocess.Popen(serve, cwd=folder, stdout=subprocess.PIPE, text=True) as serving:
        devices: list[subprocess.Popen[str]] = []
        try:
            assert serving.stdout is not None
            while "waits for devices" not in (line := serving.stdout.readline()):
                assert line, "it has ended before it listened"
            (link,) = re.findall(
                r"ftte://join\S+", run(installed / "ftte", "invite", "--uses", "2", "--no-qr", cwd=folder)
            )
            for index in ("0", "1"):
                command: list[str | Path] = [installed / "python", "device.py", link, index]
                devices.append(subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True))
            told = [device.communicate(timeout=300)[0] for device in devices]
            serving.communicate(timeout=60)
        finally:
            for process in (*devices, serving):
                process.kill()
    assert [device.returncode for device in (*devices, serving)] == [0, 0, 0]
    assert all("RunFinished(version=4" in lines for lines in told)


def test_the_wheel_is_complete(wheels: dict[str, Path]) -> None:
    names = set(zipfile.ZipFile(wheels["ftte"]).namelist())
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
        files = [path for path in (ROOT / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        missing = {str(path.relative_to(ROOT)) for path in files} - names
        assert {name for name in missing if not re.search(r"(^|/)(\.|README)", name)} == set()
    (licence,) = (name for name in names if name.endswith("licenses/LICENSE"))
    assert zipfile.ZipFile(wheels["ftte"]).read(licence) == (ROOT / "LICENSE").read_bytes()


def test_both_packages_say_for_which_pythons_they_are() -> None:
    """The coordinator's are those of ``make``; what the SDK's classifiers say, its workflow runs."""
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    sdk = tomllib.loads((ROOT / "mobile_sdk" / "pyproject.toml").read_text())["project"]
    said = "3.11 to 3.14"
    assert own["requires-python"] == ">=3.11,<3.15"
    assert sdk["requires-python"] == ">=3.11"
    for text in ("scripts/find_python.sh", "CONTRIBUTING.md"):
        assert said in (ROOT / text).read_text()
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    for project, job in ((own, "tests"), (sdk, "sdk")):
        minors = [c.rsplit("::", 1)[1].strip() for c in project["classifiers"] if re.search(r":: 3\.\d+$", c)]
        assert minors == ["3.11", "3.12", "3.13", "3.14"]
        matrix = jobs[job]["strategy"]["matrix"]
        assert {*matrix["python"], *(each["python"] for each in matrix.get("include", []))} == set(minors)
