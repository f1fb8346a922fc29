"""
What the tests on Android's real framework need from Maven Central, fetched once and kept in a folder of its own.

``python -m tests.android.framework.parts`` fetches the levels that ``FTTE_ANDROID_LEVELS`` names (``all``, or numbers;
by default one old and one new, about 500 MB). Nothing of it is shipped. Licences: Robolectric MIT; android-all,
androidx.test Apache-2.0; JUnit 4 EPL-1.0.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

__all__ = ["CACHE", "COMMAND", "LEVELS", "fetch", "java_home", "libraries", "missing", "wanted"]

HERE = Path(__file__).parent
CACHE = Path(
    os.environ.get("FTTE_ANDROID_FRAMEWORK")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ftte" / "android-framework"
)
COMMAND = "make test-android"

# Level: the framework's code, made ready for Robolectric 4.17.
LEVELS = {
    26: "8.0.0_r4-robolectric-r1-i7",
    27: "8.1.0-robolectric-4611349-i7",
    28: "9-robolectric-4913185-2-i7",
    29: "10-robolectric-5803371-i7",
    30: "11-robolectric-6757853-i7",
    31: "12-robolectric-7732740-i7",
    32: "12.1-robolectric-8229987-i7",
    33: "13-robolectric-9030017-i7",
    34: "14-robolectric-10818077-i7",
    35: "15-robolectric-13954326-i7",
    36: "16-robolectric-13921718-i7",
}
DEFAULT = (26, 35)
# To compile against, and behind a level below 28, since Robolectric's shadows name newer classes.
NEWEST_PLAIN = "15-robolectric-12650502"
# The framework's resources for aapt2: Debian's reads no newer ones.
RESOURCES = Path("/usr/share/android-framework-res/framework-res.apk")
# Level 36 is Java 21's byte code.
JAVA_OF_36 = 21


def wanted() -> list[int]:
    """The levels to test, of ``FTTE_ANDROID_LEVELS``."""
    text = os.environ.get("FTTE_ANDROID_LEVELS", "")
    if text == "all":
        return list(LEVELS)
    return [int(word) for word in text.replace(",", " ").split()] or list(DEFAULT)


def java_home(level: int) -> Path | None:
    """A JDK that runs this level: the one on the path, or another one beside it."""
    needed = JAVA_OF_36 if level >= 36 else 17
    homes = [Path(str(shutil.which("javac"))).resolve().parents[1]] if shutil.which("javac") else []
    homes += sorted(Path("/usr/lib/jvm").glob("*")) if Path("/usr/lib/jvm").is_dir() else []
    for home in homes:
        version = _version(home)
        # The shadows read class files of this Java, so far.
        if version is not None and needed <= version <= 25:
            return home
    return None


def _version(home: Path) -> int | None:
    try:
        text = (home / "release").read_text()
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith("JAVA_VERSION=")), "")
    first = line.partition('"')[2].partition(".")[0].strip('"')
    return int(first) if first.isdigit() and (home / "bin" / "javac").exists() else None


def missing(level: int) -> str:
    """What this machine lacks to run a level, as a sentence; empty if nothing."""
    if java_home(level) is None:
        return f"level {level} needs a JDK of {JAVA_OF_36 if level >= 36 else 17} or later: {COMMAND} says what else"
    for module in ("jnius", "pythonforandroid"):
        if importlib.util.find_spec(module) is None:
            return f"Android's framework needs {module}: pip install -e '.[dev,app-dev]'"
    for tool in ("aapt2", os.environ.get("CC", "cc")):
        if shutil.which(tool) is None:
            return f"Android's framework needs {tool}: apt-get install aapt gcc"
    if not RESOURCES.exists():
        return "Android's framework needs its resources for aapt2: apt-get install android-framework-res"
    if not (CACHE / "complete").exists() or _level_jar(level) is None:
        return (
            f"Android's framework of level {level} is not here: `{COMMAND}` fetches it (Maven, 100 to 200 MB a level)"
        )
    return ""


def _level_jar(level: int) -> Path | None:
    path = CACHE / "sdk" / f"android-all-instrumented-{LEVELS[level]}.jar"
    return path if path.exists() else None


def libraries() -> list[Path]:
    """Robolectric and what it stands on."""
    return sorted((CACHE / "lib").glob("*.jar"))


def newest() -> Path:
    """The framework's own classes, to compile against."""
    return CACHE / "compile" / f"android-all-{NEWEST_PLAIN}.jar"


def fetch(levels: list[int]) -> None:
    """
    Fetch what is not here yet.

    Raises:
        RuntimeError: if Maven cannot.

    """
    CACHE.mkdir(parents=True, exist_ok=True)
    if not (CACHE / "complete").exists():
        shutil.copy(HERE / "pom.xml", CACHE)
        _maven("dependency:copy-dependencies", f"-DoutputDirectory={CACHE / 'lib'}")
        for archive in (CACHE / "lib").glob("*.aar"):  # Maven knows no Android archive: its classes, unpacked
            with zipfile.ZipFile(archive) as content:
                archive.with_suffix(".jar").write_bytes(content.read("classes.jar"))
            archive.unlink()
        _copy("android-all", NEWEST_PLAIN, CACHE / "compile")
        (CACHE / "complete").touch()
    for level in levels:
        if _level_jar(level) is None:
            print(f"fetching Android's framework of level {level}", flush=True)
            _copy("android-all-instrumented", LEVELS[level], CACHE / "sdk")


def _copy(artifact: str, version: str, folder: Path) -> None:
    _maven("dependency:copy", f"-Dartifact=org.robolectric:{artifact}:{version}", f"-DoutputDirectory={folder}")


def _maven(*words: str) -> None:
    if shutil.which("mvn") is None:
        raise RuntimeError("Maven is needed: apt-get install maven")
    done = subprocess.run(["mvn", "-B", "-q", *words], cwd=CACHE, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"Maven could not fetch {' '.join(words)}:\n{done.stdout[-2000:]}{done.stderr[-1000:]}")


if __name__ == "__main__":
    try:
        fetch(wanted())
    except RuntimeError as error:
        sys.exit(str(error))
    for level in wanted():
        if lack := missing(level):
            print(lack)
