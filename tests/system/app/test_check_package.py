"""What a workflow checks of the app and of ExecuTorch's archive, tried on made-up ones."""

from __future__ import annotations

import importlib.util
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from .rendering import DEMO

SCRIPT = DEMO / "package" / "check_package.py"


def check() -> Any:
    spec = importlib.util.spec_from_file_location("check_package", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def library(align: int, wide: bool = True, rest: bytes = b"") -> bytes:
    """An ELF file with one segment that is loaded, and one that is not and is aligned to less."""
    if wide:
        head = (
            b"\x7fELF\x02\x01\x01"
            + bytes(9)
            + struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
        )
        segments = [struct.pack("<IIQQQQQQ", kind, 5, 0, 0, 0, 9, 9, by) for kind, by in ((1, align), (2, 8))]
    else:
        head = (
            b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", 3, 40, 1, 0, 52, 0, 0, 52, 32, 2, 0, 0, 0)
        )
        segments = [struct.pack("<IIIIIIII", kind, 0, 0, 0, 9, 9, 5, by) for kind, by in ((1, align), (2, 4))]
    return head + b"".join(segments) + rest


def package(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def made_by(ndk: bytes) -> bytes:
    """The note that the NDK's linker leaves in a library."""
    return struct.pack("<III", 8, 132, 1) + b"Android\0" + struct.pack("<I", 26) + ndk.ljust(64, b"\0") + bytes(64)


RIGHT = {
    "lib/arm64-v8a/libc++_shared.so": library(16384, rest=made_by(b"r28c")),
    "lib/arm64-v8a/libfbjni.so": library(16384, rest=made_by(b"r27b")),
    "lib/arm64-v8a/libpython3.14.so": library(16384),
    "lib/arm64-v8a/libexecutorch.so": library(16384),
    "lib/arm64-v8a/libpybundle.so": b"an archive",
    "lib/armeabi-v7a/libpython3.14.so": library(4096, wide=False),
}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"lib/arm64-v8a/libexecutorch.so": library(4096)}, "libexecutorch.so is aligned to 4096 bytes"),
        ({"lib/arm64-v8a/libexecutorch.so": None}, "no libexecutorch.so for arm64-v8a"),
        ({"lib/armeabi-v7a/libpython3.14.so": None}, "no Python for armeabi-v7a"),
        ({"lib/x86/libfbjni.so": library(4096, wide=False)}, "libraries for x86, and no Python"),
        ({"lib/arm64-v8a/libfbjni.so": b"text"}, "libfbjni.so is no library"),
        (
            {
                "lib/arm64-v8a/libc++_shared.so": library(16384, rest=made_by(b"r27b")),
                "lib/arm64-v8a/libnumpy.so": library(16384, rest=made_by(b"r28c")),
            },
            "libc++_shared.so is of NDK r27b, and libnumpy.so of r28c",
        ),
    ],
)
def test_an_app_is_judged_by_its_libraries(tmp_path: Path, change: dict[str, bytes | None], fault: str | None) -> None:
    files = {name: content for name, content in (RIGHT | change).items() if content is not None}
    apk = package(tmp_path / "demo.apk", files)
    done = subprocess.run([sys.executable, SCRIPT, "apk", apk], capture_output=True, text=True, check=False)
    assert done.returncode == (1 if fault else 0), done.stdout
    assert (fault or "as it should be") in done.stdout


def archive(path: Path, kernels: bytes = b"aten::add\0aten::_softmax\0", align: int = 16384) -> Path:
    content = b"XnnpackBackend\0" + kernels
    files = {f"jni/{abi}/libexecutorch.so": library(align, rest=content) for abi in ("arm64-v8a", "x86_64")}
    return package(path, files | {"classes.jar": b""})


def test_an_archive_needs_the_kernels_that_programs_call(tmp_path: Path) -> None:
    program = tmp_path / "program.pte"
    program.write_bytes(b"...aten::add\0out\0aten::_softmax\0...")
    module = check()
    assert module.archive_faults(archive(tmp_path / "right.aar"), [program]) == []
    faults = module.archive_faults(archive(tmp_path / "poor.aar", kernels=b"aten::add\0"), [program])
    assert [fault.partition(" for ")[0] for fault in faults] == ["poor.aar lacks the kernel aten::_softmax"] * 2
    assert "aligned to 4096" in module.archive_faults(archive(tmp_path / "old.aar", align=4096), [])[0]
    empty = package(tmp_path / "empty.aar", {"jni/arm64-v8a/libexecutorch.so": library(16384)})
    assert [fault.partition(" ")[2][:24] for fault in module.archive_faults(empty, [])] == [
        "has no classes.jar: it is no Android archive"[:24],
        "lacks XNNPACK for arm64-v8a"[:24],
        "has no library for x86_64"[:24],
    ]


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf: apt-get install binutils")
def test_alignments_are_those_that_readelf_reads() -> None:
    """Of this interpreter's own library or program."""
    path = Path(sys.executable).resolve()
    printed = subprocess.run(["readelf", "-lW", path], capture_output=True, text=True, check=True).stdout
    expected = [int(line.split()[-1], 16) for line in printed.splitlines() if line.split()[:1] == ["LOAD"]]
    assert check().load_alignments(path.read_bytes()) == expected


def test_workflows_use_no_awk_and_check_with_this_script() -> None:
    """The default awk of Debian and Ubuntu knows no strtonum."""
    workflows = DEMO.parent / ".github" / "workflows"
    for path in workflows.glob("*.yml"):
        assert "awk" not in path.read_text("utf-8"), path.name
    assert (workflows / "apk.yml").read_text("utf-8").count("check_package.py") >= 2
