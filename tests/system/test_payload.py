"""Bytes on real sockets: packed updates up, differences down."""

from __future__ import annotations

import re

import pytest

from .conftest import Site

SETTINGS = """
[training]
epochs = 1
learning_rate = 0.02
[merge]
buffer = 1
[scheduling]
repeat = false
[stop]
versions = 12
[payload]
{payload}
"""


def moved(site: Site, payload: str) -> tuple[float, float, float]:
    """Bytes up and down per version, and the accuracy that a run with one device ends with."""
    server = site.serve(SETTINGS.format(payload=payload))
    device = site.device("phone-1", 0)
    assert device.wait() == 0
    assert server.wait() == 0
    summary = site.summary()
    dense = summary["parameters"] * 4
    return summary["bytes_up"] / 12 / dense, summary["bytes_down"] / 12 / dense, summary["accuracy"]


@pytest.mark.parametrize(
    ("payload", "most_up"),
    [
        ('update = "float16"', 0.6),
        ('update = "int8"', 0.33),
        ('update = "int4"', 0.2),
        ('update = "int8"\ntop_k = 0.1', 0.13),
    ],
)
def test_packed_updates_are_shorter_and_teach_as_well(site: Site, payload: str, most_up: float) -> None:
    up, _, accuracy = moved(site, payload)
    assert up < most_up
    assert accuracy > 0.4


def test_a_device_downloads_what_has_changed_and_no_more(site: Site) -> None:
    """The program is part of what comes down; it comes once."""
    _, down, _ = moved(site, "differences = true")
    assert down < 0.45


def test_without_differences_every_version_comes_as_a_whole(site: Site) -> None:
    _, down, _ = moved(site, "differences = false")
    assert down > 0.8


def test_a_device_whose_weights_are_damaged_gets_the_version_from_nothing(site: Site) -> None:
    server = site.serve(SETTINGS.format(payload=""))
    device = site.device("phone-1", 0, "--step-time", "0.05")
    device.wait_for("accepted")
    device.wait_for(r"train from version [1-9]")
    device.wait_for("accepted")
    device.kill()
    for path in (site.folder / "phone-1" / "artifacts").iterdir():
        content = bytearray(path.read_bytes())
        if content:  # of what was just coming there may be nothing yet
            content[-min(5, len(content))] ^= 1
            path.write_bytes(content)
    again = site.device("phone-1", 0)
    assert again.wait() == 0
    assert server.wait() == 0
    assert len(re.findall("accepted", again.output)) >= 5
