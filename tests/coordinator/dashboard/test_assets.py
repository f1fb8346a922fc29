"""What the page is made of: nothing from elsewhere, small, and the library exactly as it was published."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import coordinator.dashboard

STATIC = Path(coordinator.dashboard.__file__).with_name("static")
TESTS = Path(__file__).with_name("vendor")

# Package, version, file in it -> the copy and its SHA-256.
VENDORED = {
    ("uplot", "1.6.32", "dist/uPlot.iife.min.js"): (
        STATIC / "vendor" / "uplot.iife.min.js",
        "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    ),
    ("uplot", "1.6.32", "dist/uPlot.min.css"): (
        STATIC / "vendor" / "uplot.min.css",
        "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    ),
    ("uplot", "1.6.32", "LICENSE"): (
        STATIC / "vendor" / "uplot.LICENSE",
        "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    ),
    ("axe-core", "4.14.1", "axe.min.js"): (
        TESTS / "axe.min.js",
        "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c",
    ),
    ("axe-core", "4.14.1", "LICENSE"): (
        TESTS / "axe.LICENSE",
        "af175b9d96ee93c21a036152e1b905b0b95304d4ae8c2c921c7609100ba8df7e",
    ),
}


def test_vendored_files_are_the_published_ones_and_nothing_else_is_vendored() -> None:
    for copy, digest in VENDORED.values():
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == digest, copy.name
    known = {copy for copy, _ in VENDORED.values()}
    assert {*(STATIC / "vendor").iterdir(), *TESTS.iterdir()} == known


@pytest.mark.full
@pytest.mark.parametrize(("package", "version"), sorted({(name, version) for name, version, _ in VENDORED}))
def test_vendored_files_are_those_of_the_package(package: str, version: str, tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("needs npm: apt-get install npm")
    packed = subprocess.run(
        ["npm", "pack", f"{package}@{version}", "--silent"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if packed.returncode != 0:
        pytest.skip("the package registry cannot be reached: run this test where it can")
    with tarfile.open(tmp_path / packed.stdout.strip()) as archive:
        for (name, of, member), (copy, _) in VENDORED.items():
            if (name, of) == (package, version):
                content = archive.extractfile(f"package/{member}")
                assert isinstance(content, io.BufferedReader)
                assert content.read() == copy.read_bytes(), member


def test_the_page_loads_nothing_from_elsewhere() -> None:
    for file in [*STATIC.glob("*"), *(STATIC / "pages").glob("*")]:
        if file.is_file():
            text = file.read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://|[\"'(]//", text), file.name
            assert "innerHTML" not in text, file.name


def test_the_whole_page_is_under_a_hundred_kilobytes() -> None:
    files = [file for file in STATIC.rglob("*") if file.suffix in (".js", ".css", ".html", ".svg")]
    assert sum(len(gzip.compress(file.read_bytes(), 9)) for file in files) < 100_000
