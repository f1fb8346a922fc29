"""What a peer can make the coordinator log: limited by kind and peer, escaped, and cut."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.net.peer_log import (
    ALL_LINES_PER_SECOND,
    BURST_SECONDS,
    LINES_PER_SECOND,
    MOST_CHARACTERS,
    PeerLog,
    shown,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def peers(clock: Clock, caplog: pytest.LogCaptureFixture) -> PeerLog:
    caplog.set_level(logging.WARNING)
    return PeerLog(logging.getLogger("coordinator.test"), clock)


def test_a_peer_has_few_lines_of_a_kind_and_the_next_says_how_many_were_left_out(
    peers: PeerLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    few = int(LINES_PER_SECOND * BURST_SECONDS)
    for number in range(few + 50):
        peers.warning("phone-1", "%s was refused: %s", "phone-1", number)
    assert len(caplog.messages) == few
    peers.warning("phone-2", "%s reports: %s", "phone-2", "other kinds are counted by themselves")
    clock.now += 1 / LINES_PER_SECOND
    peers.warning("phone-1", "%s was refused: %s", "phone-1", "again")
    assert caplog.messages[-1] == "phone-1 was refused: again (50 more lines like this were left out)"


def test_many_peers_together_have_a_limit_as_well(peers: PeerLog, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(10_000):
        peers.warning(f"phone-{number}", "%s was refused", f"phone-{number}")
    assert len(caplog.messages) == ALL_LINES_PER_SECOND * BURST_SECONDS
    assert len(peers._rates) <= 1_000, "names of peers take no memory without a bound"


@given(st.text(max_size=2 * MOST_CHARACTERS))
def test_whatever_a_peer_says_is_one_line_of_printable_characters(words: str) -> None:
    line = shown(words)
    assert line.isprintable()
    assert len(line) <= 10 * MOST_CHARACTERS
    if words.isprintable() and len(words) <= MOST_CHARACTERS:
        assert line == words


def test_escape_sequences_and_new_lines_are_shown_and_not_carried_out() -> None:
    assert shown("a\n2026 ERROR the run was deleted\x1b[2J") == "a\\n2026 ERROR the run was deleted\\x1b[2J"
