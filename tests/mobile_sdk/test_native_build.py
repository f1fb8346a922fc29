"""The native runtime is compiled for the system that ExecuTorch's libraries are for, by the compiler that is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mobile_sdk.native import build

ROOT = Path(__file__).parents[2]
ELF = b"\x7fELF\x02\x01\x01" + bytes(11)
AARCH64, X86_64, S390 = (ELF + number.to_bytes(2, "little") for number in (183, 62, 22))
MACOS_ARM64, MACOS_INTEL = b"\xcf\xfa\xed\xfe\x0c\0\0\1" + bytes(12), b"\xcf\xfa\xed\xfe\x07\0\0\1" + bytes(12)

# Writes down how it was called, and a library with the header that it was given.
COMPILER = """
import json, os, sys
from pathlib import Path
Path(os.environ["RECORD"]).write_text(json.dumps(sys.argv[1:]))
Path(sys.argv[sys.argv.index("-o") + 1]).write_bytes(bytes.fromhex(os.environ["HEADER"]))
"""
BUILD = "import sys; from pathlib import Path; from mobile_sdk.native import build; build.build(Path(sys.argv[1])); "
BUILD += "print(build.platform_tag(Path(sys.argv[1])))"


def package(folder: Path, suffix: str, header: bytes) -> Path:
    """An unpacked wheel of ExecuTorch, as far as the build looks at it."""
    version = build._paired_version()
    (folder / "executorch" / "lib").mkdir(parents=True)
    (folder / f"executorch-{version}.dist-info" / "licenses").mkdir(parents=True)
    (folder / f"executorch-{version}.dist-info" / "licenses" / "LICENSE").write_text("BSD")
    for stem in build.EXECUTORCH_STEMS:
        (folder / "executorch" / "lib" / f"{stem}{suffix}").write_bytes(header)
    return folder


class Builder:
    """Builds in a process of its own, whose PATH has nothing but what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.output = folder / "out"
        self.compiler = folder / "compiler.py"
        self.compiler.write_text(COMPILER)

    def __call__(
        self, suffix: str, header: bytes, *, cxx: str | None = None, ziglang: bool = False
    ) -> subprocess.CompletedProcess[str]:
        unpacked = package(self.folder / "package", suffix, header)
        path = [str(ROOT)]
        if ziglang:
            (self.folder / "site" / "ziglang").mkdir(parents=True)
            (self.folder / "site" / "ziglang" / "__main__.py").write_text(COMPILER)
            (self.folder / "site" / "ziglang" / "__init__.py").touch()
            path.insert(0, str(self.folder / "site"))
        environment = {
            "PATH": str(self.bin),
            "PYTHONPATH": os.pathsep.join(path),
            "FTTE_EXECUTORCH": str(unpacked),
            "RECORD": str(self.folder / "record"),
            "HEADER": header.hex(),
        }
        if cxx is not None:
            environment["CXX"] = cxx
        return subprocess.run(
            [sys.executable, "-c", BUILD, str(self.output)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def called_with(self) -> list[str]:
        words: list[str] = json.loads((self.folder / "record").read_text())
        return words


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


def test_for_macos_the_runtime_finds_its_libraries_beside_itself(builder: Builder) -> None:
    done = builder(".dylib", MACOS_ARM64, cxx=f"{sys.executable} {builder.compiler}")
    assert (done.returncode, done.stdout) == (0, "macosx_14_0_arm64\n"), done.stderr
    words = builder.called_with()
    assert {"-Wl,-rpath,@loader_path", "-Wl,-install_name,@rpath/libftte_runtime.dylib"} <= set(words)
    assert not [word for word in words if "as-needed" in word or "ORIGIN" in word], "flags of another linker"
    names = {path.name for path in builder.output.glob("*.dylib")}
    assert names == {f"{stem}.dylib" for stem in (*build.EXECUTORCH_STEMS, build.STEM)}


@pytest.mark.parametrize(("header", "machine"), [(X86_64, "x86_64"), (AARCH64, "aarch64")], ids=["x86_64", "aarch64"])
def test_for_linux_the_kernels_are_loaded_though_nothing_names_them(
    builder: Builder, header: bytes, machine: str
) -> None:
    done = builder(".so", header, cxx=f"{sys.executable} {builder.compiler}")
    assert (done.returncode, done.stdout) == (0, f"manylinux_2_28_{machine}\n"), done.stderr
    words = builder.called_with()
    assert words.index("-Wl,--no-as-needed") < words.index("-lexecutorch_kernels_optimized")
    assert "-Wl,--enable-new-dtags,-rpath,$ORIGIN" in words


def test_a_mac_without_a_compiler_takes_ziglangs(builder: Builder) -> None:
    """Its own c++ is there, and only says what to install."""
    (builder.bin / "c++").write_text("#!/bin/sh\nexit 1\n")
    (builder.bin / "c++").chmod(0o755)
    done = builder(".dylib", MACOS_ARM64, ziglang=True)
    assert done.returncode == 0, done.stderr
    assert builder.called_with()[:3] == ["c++", "-target", "aarch64-macos.14.0"]


def test_linux_without_a_compiler_says_so_though_ziglang_is_there(builder: Builder) -> None:
    """It has no headers of the C++ library that ExecuTorch's libraries for Linux are made with."""
    done = builder(".so", X86_64, ziglang=True)
    assert done.returncode != 0
    assert "the C++ compiler 'c++' is missing: install g++ or set CXX" in done.stderr


@pytest.mark.parametrize(("suffix", "header"), [(".dylib", MACOS_INTEL), (".so", S390)], ids=["intel", "s390"])
def test_a_machine_that_programs_do_not_run_on_is_refused(builder: Builder, suffix: str, header: bytes) -> None:
    done = builder(suffix, header, cxx=f"{sys.executable} {builder.compiler}")
    assert done.returncode != 0
    assert "is for another machine than programs run on" in done.stderr


def test_an_executorch_without_libraries_is_refused(builder: Builder) -> None:
    """As the wheel for Windows is."""
    done = builder(".pyd", b"MZ", cxx=f"{sys.executable} {builder.compiler}")
    assert "has no runtime for this system: build with FTTE_NATIVE=0" in done.stderr


def test_the_platform_is_that_of_the_newest_symbol(tmp_path: Path) -> None:
    (tmp_path / "libftte_runtime.so").write_bytes(AARCH64 + b"\0GLIBC_2.17\0GLIBC_2.34\0GLIBCXX_3.4.22\0")
    assert build.platform_tag(tmp_path) == "manylinux_2_34_aarch64"
    (tmp_path / "libexecutorch.so").write_bytes(AARCH64 + b"\0GLIBCXX_3.4.29\0")
    with pytest.raises(build.BuildError, match=r"libexecutorch.so needs GLIBCXX_3.4.29: compile with an older"):
        build.platform_tag(tmp_path)
