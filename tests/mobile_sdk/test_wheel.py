"""The SDK's wheel trains in an environment that has nothing but what pip installs with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from mobile_sdk.manifest import EXECUTORCH_VERSION

from .engines import native_program as sample

SDK = Path(__file__).parents[2] / "mobile_sdk"

TRAIN = """
import importlib.util, json, re, sys
from pathlib import Path
import numpy as np
from mobile_sdk import __file__ as where, load_engine

engine = load_engine(sys.argv[1])
rng = np.random.default_rng(0)
weights = {p.name: rng.standard_normal(p.shape).astype(np.float32) for p in engine.manifest.layout}
x = rng.standard_normal((4, 6)).astype(np.float32)
y, sample_weight = np.array([0, 1, 2, 0]), np.ones(4, np.float32)
losses = []
for _ in range(100):
    loss, _, gradients = engine.train_step(x, y, sample_weight, weights)
    losses.append(loss)
    for name, gradient in gradients.items():
        weights[name][engine.manifest.subset.selector(name)] -= 0.1 * gradient
status = Path("/proc/self/status").read_text()
print(json.dumps({
    "where": where,
    "losses": losses,
    "peak_rss_bytes": int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024,
    "torch_loaded": "torch" in sys.modules,
    "importable": [name for name in ("torch", "executorch") if importlib.util.find_spec(name)],
}))
"""


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """``command`` away from this checkout, which must not be what is imported."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run(
        [*map(str, command)], cwd=cwd, env=clean | environment, check=False, capture_output=True, text=True
    )


def build(folder: Path, *options: str, source: Path = SDK, **environment: str) -> subprocess.CompletedProcess[str]:
    options = ("--no-deps", "--no-cache-dir", "-w", str(folder), *options)
    return run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=folder, **environment)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a user does: in an environment of its own, for which ExecuTorch's headers are fetched."""
    folder = tmp_path_factory.mktemp("wheel")
    outcome = build(folder)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    script = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
    outcome = run(sys.executable, "-c", script, cwd=SDK)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment with the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    outcome = run(folder / "bin/python", "-m", "pip", "install", wheel, cwd=folder)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return folder / "bin"


def test_one_wheel_serves_every_cpython_and_says_which_c_library_it_needs(wheel: Path) -> None:
    name, version, python, abi, platform = wheel.stem.split("-")
    assert (name, python, abi) == ("ftte_mobile_sdk", "py3", "none")
    assert version == (SDK / "version.py").read_text().split('"')[-2]
    assert platform == f"manylinux_2_28_{os.uname().machine}"


def test_the_wheel_holds_the_runtime_its_licence_and_nothing_that_only_builds(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    libraries = {Path(name).name for name in names if name.endswith(".so")}
    assert libraries == {
        "libftte_runtime.so",
        "libexecutorch.so",
        "libexecutorch_threadpool.so",
        "libexecutorch_kernels_optimized.so",
        "libexecutorch_backend_xnnpack.so",
    }
    licence = zipfile.ZipFile(wheel).read("mobile_sdk/native/lib/LICENSE.executorch").decode()
    assert "Redistribution and use in source and binary forms" in licence
    assert {"mobile_sdk/py.typed", "mobile_sdk/manifest.py", "mobile_sdk/java/org/ftte/sdk/Bridge.java"} <= names
    assert not names & {"mobile_sdk/setup.py", "mobile_sdk/native/build.py"}


def test_the_wheel_carries_the_licence_of_everything_that_is_linked_into_its_libraries(wheel: Path) -> None:
    """The table names a text for each component, and every text is there and is a licence."""
    archive = zipfile.ZipFile(wheel)
    folder = "mobile_sdk/native/lib/licences/"
    table = archive.read(folder + "README.md").decode()
    texts = set(re.findall(r"`(\w+\.txt)`", table))
    assert {"XNNPACK.txt", "pthreadpool.txt", "cpuinfo.txt", "flatbuffers.txt", "Eigen.txt", "KleidiAI.txt"} <= texts
    assert {folder + name for name in texts} | {folder + "README.md"} == {
        name for name in archive.namelist() if name.startswith(folder)
    }
    for name in texts:
        assert re.search("(?i)licen[cs]e|redistribution", archive.read(folder + name).decode()), name


def test_the_wheel_says_its_licences_where_tools_look(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (folder,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    metadata = archive.read(f"{folder}/METADATA").decode()
    (expression,) = re.findall(r"^License-Expression: (.*)$", metadata, re.MULTILINE)
    table = (SDK / "native" / "licences" / "README.md").read_text()
    carried = set(re.findall(r"\b(?:MIT|(?:BSD|Apache|MPL)-[\w.-]*\w)\b", table))
    assert set(expression.split(" AND ")) == carried
    assert archive.read(f"{folder}/licenses/LICENSE") == (SDK.parent / "LICENSE").read_bytes()
    for path in (SDK / "native" / "licences").iterdir():
        assert archive.read(f"{folder}/licenses/native/licences/{path.name}") == path.read_bytes()


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    outcome = build(tmp_path, "--no-build-isolation", source=sdist)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    (rebuilt,) = tmp_path.glob("*.whl")
    assert rebuilt.name == wheel.name
    assert set(zipfile.ZipFile(rebuilt).namelist()) == set(zipfile.ZipFile(wheel).namelist())


def test_what_is_fetched_for_the_build_is_the_paired_version() -> None:
    pinned = (SDK / "native" / "executorch.txt").read_text()
    assert f"executorch=={EXECUTORCH_VERSION} " in pinned
    assert len(re.findall("--hash=sha256:[0-9a-f]{64}", pinned)) == 3  # x86-64, aarch64, macOS arm64


def test_the_wheel_is_small_enough_for_a_phone_plan(wheel: Path) -> None:
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 1e6:.1f} MB")
    assert size <= 20e6


def test_it_trains_where_torch_cannot_be_imported(installed: Path, tmp_path: Path) -> None:
    content = sample.program_bytes()
    folder = sample.write(tmp_path / "program", content, sample.manifest_for(content))
    outcome = run(installed / "python", "-c", TRAIN, folder, cwd=tmp_path)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    report = json.loads(outcome.stdout)
    print(f"peak RSS of training from the wheel: {report['peak_rss_bytes'] / 1e6:.1f} MB")
    assert Path(report["where"]).is_relative_to(installed.parent)
    assert report["losses"][-1] < 0.7 * report["losses"][0]
    assert report["peak_rss_bytes"] < 100e6
    assert not report["torch_loaded"]
    assert report["importable"] == []


def test_the_device_command_is_installed(installed: Path, tmp_path: Path) -> None:
    outcome = run(installed / "ftte-device", "--help", cwd=tmp_path)
    assert outcome.returncode == 0
    assert "usage: ftte-device" in outcome.stdout


def test_without_the_runtime_the_wheel_is_for_every_system(tmp_path: Path) -> None:
    """What Windows builds, where the SDK asks for no compiler."""
    outcome = build(tmp_path, "--no-build-isolation", FTTE_NATIVE="0", CXX="no-such-compiler")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    (path,) = tmp_path.glob("*.whl")
    assert path.name.endswith("-py3-none-any.whl")
    archive = zipfile.ZipFile(path)
    assert not [name for name in archive.namelist() if "/native/lib/" in name]
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/WHEEL"))
    assert "Root-Is-Purelib: true" in archive.read(metadata).decode()
    archive.extractall(tmp_path / "site")
    script = (
        "from mobile_sdk.engines import default_engine; print(default_engine()); "
        "import mobile_sdk; print(mobile_sdk.__file__)"
    )
    # Also on Linux: devices take the engine that their SDK has.
    done = run(sys.executable, "-c", script, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["interpreted", str(tmp_path / "site" / "mobile_sdk" / "__init__.py")]


def test_without_a_compiler_one_sentence_says_so(tmp_path: Path) -> None:
    outcome = build(tmp_path, "--no-build-isolation", CXX="no-such-compiler")
    assert outcome.returncode != 0
    assert "error: the C++ compiler 'no-such-compiler' is missing: install g++ or set CXX" in outcome.stderr
    assert "Traceback" not in outcome.stdout + outcome.stderr


def test_without_executorch_one_sentence_says_so(tmp_path: Path) -> None:
    """As in an environment that has a compiler but not the package: its folder is not on the path."""
    outcome = run(sys.executable, "-S", "-E", SDK / "native/build.py", cwd=tmp_path)
    assert outcome.returncode != 0
    assert outcome.stderr.startswith("error: executorch is missing: pip install executorch==")
    assert len(outcome.stderr.splitlines()) == 1
