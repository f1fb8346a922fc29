"""The packages name what they have: for completion, for type checkers, and under one name."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("coordinator", "exporters", "ftte", "mobile_sdk")


@pytest.mark.parametrize("name", ["exporters", "ftte", "mobile_sdk"])
def test_every_public_name_is_listed_and_can_be_had(name: str) -> None:
    package = importlib.import_module(name)
    for public in package.__all__:
        assert public in dir(package)
        assert getattr(package, public) is not None
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize("name", PACKAGES)
def test_types_are_there_for_type_checkers(name: str) -> None:
    assert (Path(importlib.import_module(name).__file__ or "").parent / "py.typed").exists()


def test_importing_ftte_loads_neither_torch_nor_a_client() -> None:
    code = "import sys, ftte; ftte.Client; sys.exit(any(name in sys.modules for name in ('torch', 'exporters')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_are_the_packages_own() -> None:
    import exporters
    import ftte
    import mobile_sdk

    assert ftte.Task is exporters.Task
    assert ftte.Client is mobile_sdk.Client
