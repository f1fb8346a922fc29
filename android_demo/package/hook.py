"""
A hook of python-for-android's toolchain: what its options cannot say is put into what it has rendered.

The manifest gets the job that begins training by itself, in the process of the service that trains.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["after_apk_build", "declare_job"]

# Only the system may bind it: JobScheduler asks for the permission.
_JOB = """
        <service android:name="org.ftte.demo.VisitJob"
                 android:permission="android.permission.BIND_JOB_SERVICE"
                 android:exported="false"
                 android:process=":service_Trainer" />
"""


def declare_job(manifest: str) -> str:
    """
    The manifest's text with the job's service.

    Raises:
        ValueError: if it has no application, or not the trainer's process.

    """
    if manifest.count("</application>") != 1 or 'android:process=":service_Trainer"' not in manifest:
        raise ValueError(
            "python-for-android's manifest is not as expected: look at its template and at package/hook.py"
        )
    return (
        manifest
        if "org.ftte.demo.VisitJob" in manifest
        else manifest.replace("</application>", _JOB + "    </application>")
    )


def after_apk_build(toolchain: Any) -> None:
    """Called in the distribution's folder, after the manifest was rendered and before gradle runs."""
    path = Path("src/main/AndroidManifest.xml")
    path.write_text(declare_job(path.read_text("utf-8")), "utf-8")
