"""A takeover is measured from a standby that is ready."""

from __future__ import annotations

from scripts.chaos_parts.storm import stands_by


def test_a_conductor_stands_by_from_when_it_says_so_until_it_leads_or_is_started_again() -> None:
    said = "starting a coordinator for run.toml\n"
    assert not stands_by(said)
    said += "another coordinator leads the run digits: waiting to take over\n"
    assert stands_by(said)
    said += "the sources of the task changed since the run began\n"
    assert stands_by(said)
    assert not stands_by(said + "starting a coordinator for run.toml\n")
    said += "this process leads the run digits now\n"
    assert not stands_by(said)
    assert stands_by(said + "starting a coordinator for run.toml\nwaiting to take over\n")
