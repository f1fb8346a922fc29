"""The SDK's wheels for every system ask for nothing that their system does not have."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

lief = pytest.importorskip("lief")

from mobile_sdk.native.build import OUTPUT  # noqa: E402
from scripts import arm, debian, wheels  # noqa: E402
from scripts.wheel_checks import check  # noqa: E402
from tests.mobile_sdk.engines import native_program as sample  # noqa: E402
from tests.mobile_sdk.test_wheel import TRAIN  # noqa: E402

LIBRARIES = sorted(OUTPUT.glob("*.so"))


def wheel(folder: Path, *, without: str = "", tag: str = "manylinux_2_28_x86_64") -> Path:
    """The libraries of this machine as a wheel, without one of them."""
    path = folder / f"ftte_mobile_sdk-0-py3-none-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for library in LIBRARIES:
            if library.stem != without:
                archive.write(library, f"mobile_sdk/native/lib/{library.name}")
    return path


def test_a_complete_wheel_has_no_fault(tmp_path: Path) -> None:
    assert check(wheel(tmp_path)) == []


@pytest.mark.parametrize("without", ["libexecutorch", "libexecutorch_threadpool"])
def test_a_missing_library_and_its_symbols_are_named(tmp_path: Path, without: str) -> None:
    faults = check(wheel(tmp_path, without=without))
    assert f"libftte_runtime.so needs {without}.so, which neither the wheel nor every system has" in faults
    assert any("libftte_runtime.so asks for _ZN" in fault for fault in faults)


def test_a_wheel_for_one_system_without_a_runtime_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ftte_mobile_sdk-0-py3-none-macosx_14_0_arm64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mobile_sdk/__init__.py", "")
    assert check(path) == ["it has no runtime"]
    shutil.copy(path, tmp_path / "ftte_mobile_sdk-0-py3-none-any.whl")
    assert check(tmp_path / "ftte_mobile_sdk-0-py3-none-any.whl") == []


def test_a_search_path_outside_the_wheel_is_named(tmp_path: Path) -> None:
    binary = lief.ELF.parse(OUTPUT / "libftte_runtime.so")
    for entry in binary.dynamic_entries:
        if hasattr(entry, "paths"):
            entry.paths = ["/usr/local/lib"]
    binary.write(str(tmp_path / "libftte_runtime.so"))
    path = wheel(tmp_path, without="libftte_runtime")
    with zipfile.ZipFile(path, "a") as archive:
        archive.write(tmp_path / "libftte_runtime.so", "mobile_sdk/native/lib/libftte_runtime.so")
    assert "libftte_runtime.so looks for libraries in ['/usr/local/lib'], not beside itself alone" in check(path)


needs_ziglang = pytest.mark.skipif(
    importlib.util.find_spec("ziglang") is None or not debian.KEYRING.exists() or shutil.which("apt-get") is None,
    reason="needs pip install -e '.[wheels]', and apt-get with Debian's archive keyring",
)


@pytest.mark.full
@needs_ziglang
@pytest.mark.parametrize("name", wheels.TARGETS)
def test_every_wheel_is_built_here_and_complete(name: str, tmp_path: Path) -> None:
    """The checks are part of the build."""
    built = wheels.build(name, tmp_path)
    print(f"{built.name}: {built.stat().st_size / 1e6:.1f} MB")
    expected = {"pure": "any"} | {each: system[0] for each, system in wheels.SYSTEMS.items()}
    assert built.stem.endswith(f"-py3-none-{expected[name]}")
    assert built.stat().st_size < 20e6


@pytest.mark.full
@needs_ziglang
def test_the_wheel_for_aarch64_trains_under_qemu(tmp_path: Path) -> None:
    content = sample.program_bytes()
    program = sample.write(tmp_path / "program", content, sample.manifest_for(content))
    machine = arm.MACHINES["64"]
    command = machine.python("-c", TRAIN, program, PYTHONPATH=str(arm.site(machine)))
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    losses = json.loads(done.stdout)["losses"]
    assert losses[-1] < 0.7 * losses[0]
