"""
A desktop Java machine with the bridge, doubles of ExecuTorch's Android archive, and the real runtime under them.

The doubles (``java/``) have the archive's names and signatures; ``jni.cpp`` runs the libraries of the executorch wheel.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from mobile_sdk.engines.android import JAVA_SOURCES
from mobile_sdk.native.build import EXECUTORCH_STEMS, OUTPUT

__all__ = ["load_from_files", "missing", "start"]

HERE = Path(__file__).parent


def missing() -> str:
    """What this machine lacks to run the bridge, as a sentence; empty if nothing."""
    javac = shutil.which("javac")
    if javac is None:
        return "the Android bridge needs a Java compiler: apt-get install default-jdk-headless"
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        return "the Android doubles need a C++ compiler: apt-get install g++"
    if importlib.util.find_spec("jnius") is None:
        return "the Android bridge needs pyjnius: pip install pyjnius"
    if importlib.util.find_spec("executorch") is None:
        return "the Android doubles need ExecuTorch's headers: pip install executorch"
    return ""


def load_from_files(enabled: bool) -> None:
    """Let the doubles read programs into memory, whatever mode they are asked for, or map them as asked."""
    ctypes.CDLL(str(start())).load_from_files(ctypes.c_bool(enabled))


@functools.cache
def start() -> Path:
    """
    Compile everything and start the machine in this process, once; it stays until the process ends.

    Returns:
        The native library of the doubles.

    """
    classes = Path(tempfile.mkdtemp(prefix="ftte-jvm-"))
    java_home = Path(str(shutil.which("javac"))).resolve().parents[1]
    sources = [*(HERE / "java").rglob("*.java"), *JAVA_SOURCES.rglob("*.java")]
    # As python-for-android's template does, for devices of Java 8.
    _run("javac", "-Xlint:-options", "--release", "8", "-d", classes, *sources)
    library = classes / "libdouble.so"
    spec = importlib.util.find_spec("executorch")
    assert spec is not None
    assert spec.submodule_search_locations
    include = Path(next(iter(spec.submodule_search_locations))) / "include"
    _run(
        os.environ.get("CXX", "c++"), "-std=c++17", "-O1", "-fPIC", "-shared", "-w", HERE / "jni.cpp", "-o", library,
        f"-I{include}", f"-I{include / 'executorch/runtime/core/portable_type/c10'}",
        "-DC10_USING_CUSTOM_GENERATED_MACROS", f"-I{java_home / 'include'}", f"-I{java_home / 'include/linux'}",
        f"-L{OUTPUT}", f"-Wl,-rpath,{OUTPUT}", "-Wl,--no-as-needed",
        *(f"-l{stem.removeprefix('lib')}" for stem in EXECUTORCH_STEMS),
    )  # fmt: skip
    os.environ.setdefault("JAVA_HOME", str(java_home))
    import jnius_config

    # The JVM's own signal handlers would take faults, and SIGINT, away from Python.
    jnius_config.add_options("-Xrs", f"-Dftte.double={library}")
    jnius_config.set_classpath(str(classes))
    return library


def _run(*command: object) -> None:
    outcome = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True)
    if outcome.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{outcome.stderr}")
