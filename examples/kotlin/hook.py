"""
A hook of python-for-android's toolchain: the service is for the app alone.

python-for-android exports a library's service, and takes the file to run and Python's path from the intent: any app on
the phone could run code of its choice in this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def after_apk_build(toolchain: Any) -> None:
    """Called in the distribution's folder, after the manifest was rendered and before gradle runs."""
    path = Path("src/main/AndroidManifest.xml")
    text = path.read_text("utf-8")
    if 'android:exported="' not in text:
        raise ValueError("python-for-android's manifest is not as expected: look at its template and at hook.py")
    path.write_text(text.replace('android:exported="true"', 'android:exported="false"'), "utf-8")
