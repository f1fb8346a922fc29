"""What an operator is shown of a run."""

from __future__ import annotations

import argparse
import io
import json
from typing import Any

import pytest
from rich.console import Console

from coordinator.cli import operate


def device(name: str, **fields: Any) -> dict[str, Any]:
    """A device as the admin API gives it."""
    quiet = {"set_aside": "", "self_check": "", "failures": 0, "lost": 0, "updates": 0, "model": ""}
    moved = {"bytes_up": 0, "bytes_down": 0, "contribution": 0.0, "last_seen": None, "tier": ""}
    return {"id": name, "state": "offline", **quiet, **moved, **fields}


class Api:
    """An admin client's side of one run."""

    devices = (
        device("typo-1"),
        device("phone-1", updates=3),
        device("phone-2", state="training"),
        device("phone-3", failures=2),
        device("phone-4", state="revoked"),
        device("typo-2"),
    )

    def get(self, *path: str) -> Any:
        return list(self.devices)


def listed(*, everything: bool, as_json: bool = False) -> str:
    written = io.StringIO()
    options = argparse.Namespace(action="list", run="small", all=everything, json=as_json)
    operate._devices(options, Console(file=written), Api())  # type: ignore[arg-type]
    return written.getvalue()


def test_devices_that_left_and_never_contributed_do_not_pile_up(capsys: pytest.CaptureFixture[str]) -> None:
    text = listed(everything=False)
    assert [line.split()[0] for line in text.splitlines()[1:5]] == ["phone-1", "phone-2", "phone-3", "phone-4"]
    assert text.splitlines()[5].startswith("2 devices not shown, offline without an update so far: --all")
    assert "typo" not in text
    assert all(f"typo-{i}" in listed(everything=True) for i in (1, 2))
    assert listed(everything=False, as_json=True) == ""
    assert len(json.loads(capsys.readouterr().out)) == 6, "a script gets all of them"
