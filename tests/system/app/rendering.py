"""What buildozer and python-for-android make of the app's spec, without the Android SDK: their own code, run on it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

DEMO = Path(__file__).resolve().parents[3] / "android_demo"
BUILD_TOOLS = "35.0.0"
# Options that python-for-android's command takes itself and does not pass on, with how many values each has.
OWN_OPTIONS = {"--local-recipes": 1, "--bootstrap": 1, "--dist_name": 1, "--ndk-api": 1, "--arch": 1, "--copy-libs": 0}


def commands(folder: Path) -> dict[str, list[str]]:
    """The calls of python-for-android, ``create`` and ``apk``, that buildozer makes of the spec."""
    script = f"""
import json, os, sys, types
from buildozer import Buildozer
builder = Buildozer(filename={str(DEMO / "buildozer.spec")!r})
builder.config.set("buildozer", "build_dir", {str(folder / "buildozer")!r})
builder.config.set("app", "source.dir", {str(folder / "app")!r})
builder.config.set("app", "android.add_src", {str(folder / "java")!r})
builder.config.set("app", "icon.filename", {str(folder / "app/assets/icon.png")!r})
builder.config.set("app", "presplash.filename", {str(folder / "app/assets/presplash.png")!r})
builder.set_target("android")
target = builder.target
target.check_configuration_tokens()
calls = []
def p4a(command, env=None, **options):
    hook = [word for word in target.extra_p4a_args if word.startswith("--hook=")]
    calls.append([*map(str, command), *hook])
    return types.SimpleNamespace(stdout="", return_code=0)
target._p4a = p4a
target.compile_platform()
target.build_mode, target.artifact_format = "debug", "apk"
os.makedirs(target.get_dist_dir("demo"), exist_ok=True)
try:
    target.build_package()
except FileNotFoundError:
    pass  # after the call: there is no APK to copy
json.dump(calls, open({str(folder / "calls.json")!r}, "w"))
"""
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=DEMO,
        check=True,
        capture_output=True,
        env=os.environ | {"HOME": str(folder)},
    )
    calls = json.loads((folder / "calls.json").read_text())
    return {call[0]: call[1:] for call in calls}


def render(folder: Path, apk: list[str]) -> Path:
    """
    Let python-for-android render a distribution for the call ``apk``.

    Returns:
        The distribution: ``src/main/AndroidManifest.xml``, ``build.gradle``, ``src/main/java`` are there.

    """
    import pythonforandroid

    bootstraps = Path(pythonforandroid.__file__).parent / "bootstraps"
    dist = folder / "dist"
    for part in ("common", "_sdl_common", "sdl2"):
        shutil.copytree(bootstraps / part / "build", dist, dirs_exist_ok=True)
    sdk = folder / "sdk"
    (sdk / "build-tools" / BUILD_TOOLS).mkdir(parents=True)
    (dist / "project.properties").write_text("target=android-36\n")
    (dist / "local.properties").write_text(f"sdk.dir={sdk}\n")
    archs = [value for option, value in itertools.pairwise(apk) if option == "--arch"]
    for arch in archs:
        (dist / f"_python_bundle__{arch}" / "_python_bundle").mkdir(parents=True)
        (dist / "libs" / arch).mkdir(parents=True)
    information: dict[str, Any] = {
        "bootstrap": "sdl2",
        "archs": archs,
        "hostpython": sys.executable,
        "use_setup_py": False,
    }
    information["ndk_api"] = int(apk[apk.index("--ndk-api") + 1])
    (dist / "dist_info.json").write_text(json.dumps(information))
    options, index = [], 0
    while index < len(apk):
        if apk[index] in OWN_OPTIONS:
            index += 1 + OWN_OPTIONS[apk[index]]
            continue
        options.append(str(folder / "app") if index and apk[index - 1] == "--private" else apk[index])
        index += 1
    # As the toolchain calls it: the file's own functions, in the distribution's folder; and then the hook's.
    hook = next((word.partition("=")[2] for word in apk if word.startswith("--hook=")), "")
    options = [word for word in options if not word.startswith("--hook=")]
    script = "import sys, build; build.parse_args_and_make_package(sys.argv[1:])"
    if hook:
        script += f"; import runpy; runpy.run_path({hook!r})['after_apk_build'](None)"
    done = subprocess.run(
        [sys.executable, "-c", script, *options, "--no-byte-compile-python"],
        cwd=dist,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return dist


__all__ = ["DEMO", "commands", "render"]
