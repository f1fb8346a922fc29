"""The app's Java, and python-for-android's service, compiled against doubles of Android that behave (``java/``)."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

from tests.android.framework.build import DEMO, p4a, render_service, spec

__all__ = ["compile_app", "missing"]

HERE = Path(__file__).parent


def missing() -> str:
    """What this machine lacks, as a sentence; empty if nothing."""
    if shutil.which("javac") is None:
        return "the app's Java needs a compiler: apt-get install default-jdk-headless"
    if importlib.util.find_spec("pythonforandroid") is None:
        return "the app's Java needs python-for-android's: pip install -e '.[app-dev]'"
    return ""


def compile_app(folder: Path) -> Path:
    """Compile into ``folder``; returns the folder of the classes."""
    theirs = p4a() / "bootstraps" / "common" / "build" / "src" / "main" / "java" / "org" / "kivy" / "android"
    sources = folder / "sources"
    sources.mkdir(parents=True)
    text = (theirs / "PythonService.java").read_text()
    # Its native method, which runs Python, gets a body; every other line stays.
    text, count = re.subn(
        r"public static native void nativeStart\((.*?)\);",
        r"public static void nativeStart(\1) { org.ftte.doubles.Python.start(pythonServiceArgument); }",
        text,
        flags=re.DOTALL,
    )
    assert count == 1
    (sources / "PythonService.java").write_text(text)
    name, service = render_service(spec())
    (sources / f"{name}.java").write_text(service)
    files = [*(HERE / "java").rglob("*.java"), *(DEMO / "java").rglob("*.java"), *sources.glob("*.java")]
    classes = folder / "classes"
    done = subprocess.run(
        ["javac", "-nowarn", "-Xlint:none", "--release", "11", "-d", classes, *files],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-6000:])
    return classes
