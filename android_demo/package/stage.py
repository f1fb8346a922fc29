"""
Lay out what goes into the APK: the app, the SDK, and the Java classes of both.

``python android_demo/package/stage.py`` writes ``android_demo/build/app`` and ``android_demo/build/java``. The SDK's
own native runtime stays out: on Android its place is taken by the AAR.
"""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["stage"]

DEMO = Path(__file__).resolve().parents[1]
SDK = DEMO.parent / "mobile_sdk"

_SKIPPED = shutil.ignore_patterns(
    "__pycache__", "*.so", "*.cpp", "*.h", "setup.py", "build", "lib", "java", "*.egg-info"
)


def stage(build: Path) -> Path:
    """
    Fill ``build`` anew.

    Returns:
        The folder that becomes the app's private files.

    """
    app, java = build / "app", build / "java"
    for folder in (app, java):
        shutil.rmtree(folder, ignore_errors=True)
    app.mkdir(parents=True)
    shutil.copy(DEMO / "main.py", app)
    for name in ("ftte_demo", "service", "assets"):
        shutil.copytree(DEMO / name, app / name, ignore=_SKIPPED)
    shutil.copytree(SDK, app / "mobile_sdk", ignore=_SKIPPED)
    for sources in (SDK / "java", DEMO / "java"):
        shutil.copytree(sources, java, ignore=shutil.ignore_patterns("*.class"), dirs_exist_ok=True)
    return app


if __name__ == "__main__":
    print(stage(DEMO / "build"))
