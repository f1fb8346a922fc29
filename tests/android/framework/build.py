"""The app as Android sees it, without the Android SDK: python-for-android's own templates and Java, linked by aapt2."""

from __future__ import annotations

import configparser
import importlib.util
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

from . import parts

__all__ = ["ROOT", "Built", "build", "p4a", "render_service"]

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
DEMO = ROOT / "android_demo"
ENTRY = "org.kivy.android.PythonActivity"


def p4a() -> Path:
    """The installed python-for-android."""
    spec = importlib.util.find_spec("pythonforandroid")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


class Built:
    """Where everything is; ``kit`` is on the JVM's class path, ``app`` in the sandbox's loader alone, as on a phone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kit = folder / "classes"
        self.app = folder / "classes-app"
        self.gate = folder / "libgate.so"
        self.python = folder / "python"


def spec() -> configparser.SectionProxy:
    """The app's section of buildozer.spec."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(DEMO / "buildozer.spec")
    return parser["app"]


def render_service(app: configparser.SectionProxy) -> tuple[str, str]:
    """Name and source of the service class that python-for-android generates."""
    name, entry, *options = app["services"].split(":")
    base = app["android.service_class_name"]
    source = _template("common", "Service.tmpl.java").render(
        args=types.SimpleNamespace(package=_package(app), name=app["title"], service_class_name=base),
        name=name, entrypoint=entry, foreground="foreground" in options, sticky="sticky" in options, service_id=1,
        base_service_class=base.rpartition(".")[2],
    )  # fmt: skip
    return f"Service{name.capitalize()}", source


def _package(app: configparser.SectionProxy) -> str:
    return f"{app['package.domain']}.{app['package.name']}"


def _template(bootstrap: str, name: str) -> Any:
    import jinja2

    folder = p4a() / "bootstraps" / bootstrap / "build" / "templates"
    loader = jinja2.FileSystemLoader(folder)
    return jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True).get_template(name)


def _manifest(app: configparser.SectionProxy) -> str:
    args = types.SimpleNamespace(
        numeric_version="10010", version=app["version"], min_sdk_version=int(app["android.minapi"]), wakelock=False,
        permissions=[{"name": "android.permission." + word.strip()} for word in app["android.permissions"].split(",")],
        billing_pubkey=None, extra_manifest_xml="", allow_backup="false", backup_rules="", meta_data=[],
        extra_manifest_application_arguments="", android_apptheme="@android:style/Theme.NoTitleBar", window=True,
        android_used_libs=[], android_entrypoint=ENTRY, manifest_orientation="unspecified", launcher=False,
        activity_launch_mode=app["android.manifest.launch_mode"], home_app=False, add_activity=[],
        intent_filters=(DEMO / app["android.manifest.intent_filters"]).read_text(), package=_package(app),
        service_class_name=app["android.service_class_name"], name=app["title"],
    )  # fmt: skip
    name, _, *options = app["services"].split(":")
    kind = next((word.partition("=")[2] for word in options if word.startswith("foregroundServiceType=")), None)
    text = _template("_sdl_common", "AndroidManifest.tmpl.xml").render(
        args=args, android_api=int(app["android.api"]), service=False, service_data=[(name, kind)], native_services=[],
        url_scheme="kivy", debug=False,
    )  # fmt: skip
    hook = _module(DEMO / app["p4a.hook"], "ftte_hook")
    return str(hook.declare_job(text)).replace("<manifest ", f'<manifest package="{_package(app)}" ', 1)


def _module(path: Path, name: str) -> Any:
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def build(folder: Path) -> Built:
    """Render, link and compile everything into ``folder``."""
    built = Built(folder)
    app = spec()
    package = _package(app)
    sources = folder / "src"
    resources = folder / "res"
    for place in (
        sources / package.replace(".", "/"),
        resources / "values",
        resources / "mipmap",
        resources / "drawable",
    ):
        place.mkdir(parents=True)
    manifest = folder / "AndroidManifest.xml"
    manifest.write_text(_manifest(app))
    strings = _template("_sdl_common", "strings.tmpl.xml")
    args = types.SimpleNamespace(
        name=app["title"], version=app["version"], presplash_color=app["android.presplash_color"], window=True
    )
    (resources / "values" / "strings.xml").write_text(strings.render(args=args, private_version="1", url_scheme="kivy"))
    shutil.copy(DEMO / "assets" / "presplash.png", resources / "drawable" / "presplash.png")
    shutil.copy(DEMO / "assets" / "icon.png", resources / "mipmap" / "icon.png")
    name, source = render_service(app)
    (sources / package.replace(".", "/") / f"{name}.java").write_text(source)
    package_file = folder / "app.apk"
    run("aapt2", "compile", "--dir", resources, "-o", folder / "res.zip")
    run("aapt2", "link", "-I", parts.RESOURCES, "--manifest", manifest, "-o", package_file, folder / "res.zip",
        "--java", sources, "--auto-add-overlay", "--min-sdk-version", app["android.minapi"], "--target-sdk-version",
        app["android.api"])  # fmt: skip
    settings = built.kit / "com" / "android" / "tools"
    settings.mkdir(parents=True)
    (settings / "test_config.properties").write_text(
        f"android_resource_apk={package_file}\nandroid_merged_manifest={manifest}\nandroid_custom_package={package}\n"
    )
    # The target may be newer than the newest level that the JDK here runs.
    (built.kit / "robolectric.properties").write_text("")
    home = parts.java_home(26)
    assert home is not None
    path = ":".join(map(str, [*parts.libraries(), parts.newest()]))
    javac = [home / "bin" / "javac", "-nowarn", "-proc:none", "-Xlint:none", "--release", "17", "-cp"]
    run(*javac, path, "-d", built.kit, *(HERE / "java" / "robo").rglob("*.java"))
    common, sdl = (p4a() / "bootstraps" / part / "build" / "src" / "main" / "java" for part in ("common", "sdl2"))
    theirs = [
        *(common / "org" / "kivy").rglob("*.java"), *(common / "org" / "renpy").rglob("*.java"),
        *(common / "org" / "kamranzafar").rglob("*.java"), *sdl.rglob("*.java"),
        *(p4a() / "bootstraps" / "_sdl_common" / "build" / "src" / "main" / "java").rglob("*.java"),
    ]  # fmt: skip
    ours = [
        *(DEMO / "java").rglob("*.java"), *(ROOT / "mobile_sdk" / "java").rglob("*.java"), *sources.rglob("*.java"),
        *(HERE.parent / "java").rglob("*.java"), *(HERE / "java" / "instead").rglob("*.java"),
    ]  # fmt: skip
    own = {file.name for file in ours}
    run(*javac, path, "-d", built.app, *ours, *(file for file in theirs if file.name not in own))
    run(os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-o", built.gate, HERE / "gate.c",
        f"-I{home / 'include'}", f"-I{home / 'include' / 'linux'}")  # fmt: skip
    _python(built.python)
    return built


def _python(folder: Path) -> None:
    """python-for-android's module ``android``, with what its recipe generates."""
    theirs = p4a() / "recipes" / "android" / "src" / "android"
    shutil.copytree(theirs, folder / "android", ignore=shutil.ignore_patterns("*.pyx", "*.c", "__pycache__"))
    (folder / "android" / "config.py").write_text(
        "BOOTSTRAP = 'sdl2'\nIS_SDL2 = 1\nIS_SDL3 = 0\nPY2 = 0\nJAVA_NAMESPACE = 'org.kivy.android'\n"
        f"JNI_NAMESPACE = 'org/kivy/android'\nACTIVITY_CLASS_NAME = {ENTRY!r}\n"
        f"ACTIVITY_CLASS_NAMESPACE = {ENTRY.replace('.', '/')!r}\n"
        "SERVICE_CLASS_NAME = 'org.kivy.android.PythonService'\n"
    )
    # A proxy of a class of Java's own would be made in the JVM's loader, where the sandbox's classes are not.
    runnable = folder / "android" / "runnable.py"
    wanted = "__javainterfaces__ = ['java/lang/Runnable']\n"
    runnable.write_text(runnable.read_text().replace(wanted, wanted + "    __javacontext__ = 'app'\n"))
    # What its compiled part offers of what the app imports.
    (folder / "android" / "_android.py").write_text(
        "from jnius import autoclass\nfrom android.config import ACTIVITY_CLASS_NAME\n"
        "mActivity = autoclass(ACTIVITY_CLASS_NAME).mActivity\n"
    )


def run(*command: object) -> None:
    """Run a tool, or say what it said."""
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout[-3000:]}{done.stderr[-6000:]}")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
