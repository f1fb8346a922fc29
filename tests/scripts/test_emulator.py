"""What the workflow with the emulator does, as far as it can be tried without one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml  # type: ignore[import-untyped, unused-ignore]

from scripts import emulator
from scripts.emulator import button
from tests.system.app.rendering import DEMO

ROOT = Path(__file__).parents[2]
DUMP = (
    '<hierarchy rotation="0"><node index="0" text="FTTE" bounds="[0,90][1080,300]">'
    '<node text="" content-desc="Expand" bounds="[900,100][1000,200]" />'
    '<node text="STOP" bounds="[40,310][240,410]" /></node></hierarchy>'
)


def test_a_buttons_middle_is_found_by_its_text_or_its_description() -> None:
    """Android writes a notification's buttons in capitals, at older levels."""
    assert button(DUMP, "Stop") == (140, 360)
    assert button(DUMP, "Expand") == (950, 150)
    assert button(DUMP, "Start") is None


def test_the_button_is_that_which_the_trainer_shows() -> None:
    trainer = (DEMO / "ftte_demo" / "trainer" / "trainer.py").read_text("utf-8")
    assert 'texts["about_stop"])' in trainer
    assert "Stop" in emulator.stop_text()


def test_the_levels_are_an_old_a_middle_and_the_newest_one() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "emulator.yml").read_text())["jobs"]
    assert jobs["app"]["strategy"]["matrix"]["level"] == [26, 33, 36]


def test_the_app_for_the_emulator_is_built_for_its_processor(tmp_path: Path) -> None:
    """The workflow's own command, on the spec."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "emulator.yml").read_text())["jobs"]
    (command,) = [step["run"] for step in jobs["apk"]["steps"] if "sed -i" in step.get("run", "")]
    (tmp_path / "android_demo").mkdir()
    spec = tmp_path / "android_demo" / "buildozer.spec"
    spec.write_text((DEMO / "buildozer.spec").read_text("utf-8"))
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    assert "\nandroid.archs = x86_64\n" in spec.read_text()
    (options,) = [line for line in spec.read_text().splitlines() if line.startswith("android.add_packaging_options")]
    assert "lib/x86_64" not in options
    assert all(f"exclude 'lib/{abi}/**'" in options for abi in ("x86", "arm64-v8a", "armeabi-v7a"))


def test_what_it_starts_is_the_app() -> None:
    spec = (DEMO / "buildozer.spec").read_text("utf-8")
    domain, name = (re.findall(rf"^package.{field} = (.*)$", spec, re.MULTILINE)[0] for field in ("domain", "name"))
    assert f"{domain}.{name}" == emulator.APP
