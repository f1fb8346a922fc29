"""Every Android member that the product names is there at every level that it runs on, and is called as pyjnius can."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.android.doubles.compile import HERE as DOUBLES
from tests.android.doubles.compile import compile_app, missing

from . import check_java, check_python, members

ROOT = Path(__file__).parents[3]
CALLERS = [
    path
    for folder in ("android_demo/ftte_demo", "mobile_sdk", "examples/kotlin")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if re.search(r"from jnius|import_module\(.jnius", path.read_text("utf-8"))
]

# The notification as it was: text for an overloaded constructor, and a constant of level 33.
BEFORE = """
class AndroidNotification:
    def on_stop(self, stop):
        hidden = autoclass("android.content.Context").RECEIVER_NOT_EXPORTED

    def show(self, text, done, of, stop_text):
        action = autoclass("android.app.Notification$Action$Builder")
        builder.addAction(action(0, stop_text, pending).build())
        intents.createChooser(intent, "FTTE")
"""


@pytest.mark.parametrize("path", CALLERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_pythons_calls_of_android_are_right_at_every_level(path: Path) -> None:
    assert check_python.faults(path.read_text("utf-8")) == []


def test_what_calls_android_is_looked_at() -> None:
    names = {path.name for path in CALLERS}
    assert {"android.py"} <= names
    assert len(CALLERS) >= 4


def test_the_faults_of_before_are_found() -> None:
    found = check_python.faults(BEFORE)
    assert [fault.partition(":")[2].strip()[:40] for fault in found] == [
        "RECEIVER_NOT_EXPORTED is missing below l"[:40],
        "argument 2 of android.app.Notification$A"[:40],
        "argument 2 of createChooser is a CharSeq"[:40],
    ]


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing():
        pytest.skip(missing())
    return compile_app(tmp_path_factory.mktemp("doubles"))


def test_javas_calls_of_android_are_right_at_every_level(classes: Path) -> None:
    assert check_java.faults(classes, "org.ftte.demo") == []


def test_a_member_of_a_newer_level_is_found(classes: Path, tmp_path: Path) -> None:
    source = tmp_path / "New.java"
    source.write_text(
        "package org.ftte.probe;\nimport android.app.*;\npublic class New {\n"
        "  static void unguarded(Service s, Notification n) { s.startForeground(1, n, 1); }\n"
        "  static class Api29 { static void f(Service s, Notification n) { s.startForeground(1, n, 1); } }\n}\n"
    )
    subprocess.run(["javac", "-nowarn", "-cp", classes, "-d", tmp_path / "out", source], check=True)
    assert check_java.faults(tmp_path / "out", "org.ftte.probe") == [
        "org.ftte.probe.New: android.app.Service.startForeground is missing at level 26"
    ]


def test_constants_of_the_doubles_and_of_the_product_are_androids() -> None:
    """The compiler puts their values into the code."""
    listed: dict[str, dict[str, Any]] = {
        m.owner.rpartition(".")[2].replace("$", "."): {} for all_members in members().values() for m in all_members
    }
    for all_members in members().values():
        for m in all_members:
            if m.value:
                listed[m.owner.rpartition(".")[2].replace("$", ".")][m.name] = m.value
    used = 0
    for path in (ROOT / "android_demo" / "java").rglob("*.java"):
        for owner, name in re.findall(r"\b((?:[A-Z]\w*\.)*[A-Z]\w*)\.([A-Z][A-Z_]+)\b", path.read_text("utf-8")):
            if owner in listed and name != "SDK_INT":
                assert name in listed[owner], f"{path.name}: {owner}.{name}"
                used += 1
    assert used >= 10
    for path in (DOUBLES / "java" / "android").rglob("*.java"):
        for kind, name, value in re.findall(r"static final (int|String) (\w+) = (.*);", path.read_text("utf-8")):
            owner = "Build.VERSION_CODES" if path.stem == "Build" else path.stem
            known = listed.get(owner, {}).get(name)
            if known is not None:
                double = str(eval(value)) if kind == "int" else value.strip('"')
                assert double == known, f"{path.name}: {name}"
