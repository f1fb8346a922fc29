"""What would become the APK, as far as it can be made without the Android SDK."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from mobile_sdk.manifest import EXECUTORCH_VERSION

from .rendering import DEMO, commands, render

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("buildozer") is None or importlib.util.find_spec("pythonforandroid") is None,
    reason="needs buildozer and python-for-android: pip install -e '.[app-dev]'",
)

ANDROID = "{http://schemas.android.com/apk/res/android}"
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The staged app, buildozer's calls, and the distribution that python-for-android renders of them."""
    folder = tmp_path_factory.mktemp("apk")
    spec = importlib.util.spec_from_file_location("stage", DEMO / "package" / "stage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.stage(folder)
    calls = commands(folder)
    return folder, calls, render(folder, calls["apk"])


@pytest.fixture(scope="module")
def manifest(built: Any) -> Any:
    return ElementTree.parse(built[2] / "src" / "main" / "AndroidManifest.xml").getroot()


def test_the_app_carries_the_sdk_without_its_desktop_runtime(built: Any) -> None:
    app = built[0] / "app"
    assert (app / "main.py").exists()
    assert (app / "mobile_sdk" / "client.py").exists()
    assert (app / "service" / "trainer.py").exists()
    assert (app / "assets" / "digits.npz").exists()
    assert not list(app.rglob("*.so"))
    assert not list(app.rglob("*.cpp"))


def test_the_staged_app_finds_its_modules_without_the_repository(built: Any) -> None:
    app = built[0] / "app"
    code = "import ftte_demo.status, ftte_demo.trainer.trainer, mobile_sdk; print(mobile_sdk.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=app, capture_output=True, text=True, check=True)
    assert done.stdout.strip().startswith(str(app))


def test_both_kinds_of_phones_are_built_for(built: Any) -> None:
    _, calls, _ = built
    assert [word for word in calls["create"] if word.startswith("--arch=")] == [
        "--arch=arm64-v8a",
        "--arch=armeabi-v7a",
    ]


def test_the_service_is_a_foreground_service_of_its_own_process(manifest: Any) -> None:
    service = next(
        item for item in manifest.iter("service") if item.get(f"{ANDROID}name", "").endswith("ServiceTrainer")
    )
    assert service.get(f"{ANDROID}name") == "org.ftte.demo.ServiceTrainer"
    assert service.get(f"{ANDROID}foregroundServiceType") == "dataSync"
    assert service.get(f"{ANDROID}process") == ":service_Trainer"
    permissions = {item.get(f"{ANDROID}name", "").rpartition(".")[2] for item in manifest.iter("uses-permission")}
    assert {"INTERNET", "POST_NOTIFICATIONS", "FOREGROUND_SERVICE", "FOREGROUND_SERVICE_DATA_SYNC"} <= permissions


def test_the_service_is_the_apps_own_class_and_not_sticky(built: Any) -> None:
    """Android 12 refuses a foreground service to a restart in the background: the job begins again instead."""
    source = (built[2] / "src/main/java/org/ftte/demo/ServiceTrainer.java").read_text()
    assert "extends TrainingService" in source
    assert "import org.ftte.demo.TrainingService;" in source
    assert "START_STICKY" not in source
    assert '"serviceStartAsForeground", "true"' in source
    assert '"serviceEntrypoint", "service/trainer.py"' in source
    assert (built[0] / "java" / "org" / "ftte" / "demo" / "TrainingService.java").exists()


def test_a_job_that_survives_a_reboot_begins_training_in_the_services_process(manifest: Any) -> None:
    services = {item.get(f"{ANDROID}name"): item for item in manifest.iter("service")}
    job = services["org.ftte.demo.VisitJob"]
    assert job.get(f"{ANDROID}permission") == "android.permission.BIND_JOB_SERVICE"
    assert job.get(f"{ANDROID}exported") == "false"
    assert job.get(f"{ANDROID}process") == services["org.ftte.demo.ServiceTrainer"].get(f"{ANDROID}process")
    permissions = {item.get(f"{ANDROID}name", "").rpartition(".")[2] for item in manifest.iter("uses-permission")}
    assert {"RECEIVE_BOOT_COMPLETED", "WAKE_LOCK"} <= permissions


def test_the_app_targets_what_play_asks_of_new_apps(manifest: Any) -> None:
    """Since 31 August 2026: Android 16."""
    (sdk,) = manifest.iter("uses-sdk")
    assert (sdk.get(f"{ANDROID}minSdkVersion"), sdk.get(f"{ANDROID}targetSdkVersion")) == ("26", "36")


def test_certificates_of_authorities_are_in_the_app(built: Any) -> None:
    requirements = next(word for word in built[1]["create"] if word.startswith("--requirements="))
    assert "certifi" in requirements.partition("=")[2].split(",")


def test_an_invitation_opens_the_app_that_runs_already(manifest: Any) -> None:
    (activity,) = manifest.iter("activity")
    assert activity.get(f"{ANDROID}launchMode") == "singleTask"
    links = [data for data in activity.iter("data") if data.get(f"{ANDROID}scheme") == "ftte"]
    assert [data.get(f"{ANDROID}host") for data in links] == ["join"]


def test_gradle_takes_the_runtime_that_the_exporter_is_paired_with(built: Any) -> None:
    gradle = (built[2] / "build.gradle").read_text()
    assert f"implementation 'org.pytorch:executorch-android:{EXECUTORCH_VERSION}'" in gradle
    options = re.search(r"packagingOptions \{\n((?: +(?:exclude|pickFirst).*\n)+)", gradle)
    assert options is not None
    assert '"' not in options.group(1)  # a quoted line would be a string, not an option
    assert "exclude 'lib/x86/**'" in options.group(1)
    assert "lib/armeabi-v7a" not in options.group(1)


@pytest.mark.skipif(
    shutil.which("aapt") is None or not FRAMEWORK.exists(), reason="needs apt-get install aapt android-framework-res"
)
def test_the_manifest_compiles_with_its_resources(built: Any, tmp_path: Path) -> None:
    main = built[2] / "src" / "main"
    text = (main / "AndroidManifest.xml").read_text().replace("<manifest ", '<manifest package="org.ftte.demo" ', 1)
    (tmp_path / "AndroidManifest.xml").write_text(text)
    command = ["aapt", "package", "-f", "-M", tmp_path / "AndroidManifest.xml", "-S", main / "res", "-I", FRAMEWORK]
    done = subprocess.run([*command, "-F", tmp_path / "out.apk"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_numpy_has_a_blas_on_32_bit_phones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """python-for-android's recipe builds it without; the local one is used, and tells meson where the library is."""
    from pythonforandroid.build import Context
    from pythonforandroid.recipe import Recipe
    from pythonforandroid.recipes.numpy import NumpyRecipe

    context = Context()
    context.local_recipes = str(DEMO / "package" / "recipes")
    monkeypatch.setattr(NumpyRecipe, "get_recipe_meson_options", lambda *_: {"binaries": {}, "properties": {}})
    recipe = Recipe.get_recipe("numpy", context)
    assert "libopenblas" in recipe.depends
    blas = Recipe.get_recipe("libopenblas", context)
    monkeypatch.setattr(blas, "get_build_dir", lambda arch: str(tmp_path / arch))
    monkeypatch.setattr(context, "get_libs_dir", lambda arch: f"/libs/{arch}")
    for name, kind in (("armeabi-v7a", "openblas"), ("arm64-v8a", "none"), ("armeabi-v7a", "openblas")):
        options = recipe.get_recipe_meson_options(types.SimpleNamespace(arch=name))
        assert f"-Csetup-args=-Dblas={kind}" in recipe.extra_build_args
        assert sum("-Dblas=" in word for word in recipe.extra_build_args) == 1
        folder = options["properties"].get("pkg_config_libdir")
        assert (folder is not None) == (kind == "openblas")
        if folder is not None:
            assert "Libs: -L/libs/armeabi-v7a -lopenblas" in (Path(folder) / "openblas.pc").read_text()
