"""What is said of ten million devices follows from the assumptions beside it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.server.extrapolation import ASSUMPTIONS, extrapolate, markdown

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "scaling.md"


def test_the_page_has_what_the_script_prints() -> None:
    assert markdown(ASSUMPTIONS) in PAGE.read_text()


def test_twice_the_devices_are_twice_the_updates_and_no_other_limit_of_one_run() -> None:
    values = {assumption.name: assumption.value for assumption in ASSUMPTIONS}
    once, twice = (
        {what: (mean, peak) for what, mean, peak in extrapolate(values | {"devices": devices})}
        for devices in (864_000, 1_728_000)
    )
    assert (once["updates a second"], twice["updates a second"]) == (("10", "40"), ("20", "80"))
    limit = "devices of one run, where its conductor is full"
    assert once[limit] == twice[limit]
