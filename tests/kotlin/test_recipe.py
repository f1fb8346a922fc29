"""The recipe for apps that are not written in Python, as far as it can be tried without the Android SDK."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from exporters.zoo import digits_data
from mobile_sdk.manifest import ANDROID_ARCHIVE
from tests.system.conftest import Process, Site, planned, site  # noqa: F401

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "examples" / "kotlin"
STUBS = Path(__file__).with_name("stubs")
ANDROID = "{http://schemas.android.com/apk/res/android}"
# Options that python-for-android's command takes itself and does not pass on.
OWN = ("--hook", "--local-recipes", "--bootstrap", "--requirements", "--arch", "--ndk-api", "--android-api")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library project that python-for-android makes of build.sh's options, with its own code."""
    if importlib.util.find_spec("pythonforandroid") is None:
        pytest.skip("needs python-for-android: pip install -e '.[app-dev]'")
    import pythonforandroid

    bootstraps = Path(pythonforandroid.__file__).parent / "bootstraps"
    folder = tmp_path_factory.mktemp("aar")
    dist = folder / "dist"
    for part in ("common", "service_only", "service_library"):
        shutil.copytree(bootstraps / part / "build", dist, dirs_exist_ok=True)
    (folder / "sdk" / "build-tools" / "35.0.0").mkdir(parents=True)
    (dist / "project.properties").write_text("target=android-36\n")
    (dist / "local.properties").write_text(f"sdk.dir={folder / 'sdk'}\n")
    archs = ["arm64-v8a", "armeabi-v7a"]
    for arch in archs:
        (dist / f"_python_bundle__{arch}" / "_python_bundle").mkdir(parents=True)
        (dist / "libs" / arch).mkdir(parents=True)
    facts = {"bootstrap": "service_library", "archs": archs, "hostpython": sys.executable, "use_setup_py": False}
    (dist / "dist_info.json").write_text(json.dumps(facts | {"ndk_api": 26}))
    printed = subprocess.run(
        [RECIPE / "build.sh", "--print"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    options = []
    words = iter(printed)
    for word in words:
        if word in OWN:
            next(words)
        else:
            options.append(word)
    hook = printed[printed.index("--hook") + 1]
    script = (
        "import sys, build; build.parse_args_and_make_package(sys.argv[1:]); "
        f"import runpy; runpy.run_path({hook!r})['after_apk_build'](None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *options, "--no-byte-compile-python"],
        cwd=dist, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return dist


def test_the_aar_is_a_library_with_the_archive_and_a_foreground_service(rendered: Path) -> None:
    gradle = (rendered / "build.gradle").read_text()
    assert "apply plugin: 'com.android.library'" in gradle
    assert f"implementation '{ANDROID_ARCHIVE}'" in gradle
    manifest = ElementTree.parse(rendered / "src" / "main" / "AndroidManifest.xml").getroot()
    (service,) = manifest.iter("service")
    assert service.get(f"{ANDROID}name") == "org.example.trainer.ServiceTrainer"
    assert service.get(f"{ANDROID}foregroundServiceType") == "dataSync"
    assert service.get(f"{ANDROID}exported") == "false", "any app could run code of its choice in this one"
    assert f"java {{srcDir '{ROOT / 'mobile_sdk' / 'java'}'}}" in gradle


def test_the_generated_service_has_what_the_kotlin_sample_calls(rendered: Path) -> None:
    source = (rendered / "src/main/java/org/example/trainer/ServiceTrainer.java").read_text()
    stub = (STUBS / "org/example/trainer/ServiceTrainer.java").read_text()
    for signature in re.findall(r"public static void (\w+\(.*?\))", stub):
        assert re.search(r"(public static|static public) void " + re.escape(signature), source), signature


def test_the_kotlin_sample_compiles_against_androids_signatures(tmp_path: Path) -> None:
    """With stubs in place of the Android SDK and of the generated service."""
    for command, package in (("javac", "default-jdk-headless"), ("kotlinc", "kotlin")):
        if shutil.which(command) is None:
            pytest.skip(f"needs {command}: apt-get install {package}")
    classes = tmp_path / "stubs"
    subprocess.run(["javac", "-Xlint:-options", "--release", "8", "-d", classes, *STUBS.rglob("*.java")], check=True)
    done = subprocess.run(
        ["kotlinc", RECIPE / "Training.kt", "-classpath", classes, "-d", tmp_path / "sample.jar"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "org/example/app/Training.class" in zipfile.ZipFile(tmp_path / "sample.jar").namelist()
    sample = [line for line in (RECIPE / "Training.kt").read_text().splitlines() if line.strip()]
    assert len(sample) <= 32


def test_an_app_hears_events_gets_predictions_and_stops_the_service(site: Site) -> None:  # noqa: F811
    """The service's own file on this machine, and an app that speaks what the Kotlin sample speaks."""
    site.serve("[merge]\nbuffer = 1\n[stop]\nversions = 1000\n")
    x, y = digits_data.load()[0]
    data = site.folder / "samples"
    data.mkdir()
    np.savez(data / "samples.npz", x=x[:64], y=y[:64])
    path = site.folder / "trainer.sock"
    argument = {
        "invite": f"ftte://join?url={site.url}&run=digits&key={site.key}",
        "data": str(data),
        "storage": str(site.folder / "phone"),
        "socket": str(path),
        "engine": "native",
    }
    service = Process(
        sys.executable,
        RECIPE / "trainer.py",
        log=site.folder / "service.log",
        environment=os.environ | {"PYTHON_SERVICE_ARGUMENT": json.dumps(argument)},
    )
    try:
        app = connect(path, service)
        lines = app.makefile()
        events = []
        while "UpdateAccepted" not in events:
            events.append(json.loads(next(lines)).get("event"))
        assert {"Assigned", "Training"} <= set(events)
        app.sendall(json.dumps({"predict": x[:3].tolist()}).encode() + b"\n")
        answer = next(message for line in lines if "event" not in (message := json.loads(line)))
        assert np.shape(answer["prediction"]) == (3, 10)
        app.sendall(b'{"stop": true}\n')
        assert service.wait() == 0
    finally:
        service.stop()


def connect(path: Path, service: Process) -> socket.socket:
    """As an app does: again until the service listens."""
    while True:
        app = socket.socket(socket.AF_UNIX)
        try:
            app.connect(str(path))
        except OSError:
            app.close()
            assert service._process.poll() is None, service.output
        else:
            return app
