"""Addresses that are good once, sessions that end, and a file that is no key."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from coordinator.dashboard.sessions import LINK_SECONDS, MOST, Sessions


class Clock:
    """Wall time that a test sets."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_an_address_is_good_once_and_for_ten_minutes() -> None:
    clock = Clock()
    sessions = Sessions(clock, 60.0)
    first, second = sessions.link("viewer", "eve"), sessions.link("operator", "anna")
    cookie = sessions.redeem(first)
    assert cookie is not None
    session = sessions.find(cookie)
    assert session is not None
    assert (session.role, session.by, session.expires_at) == ("viewer", "eve", 1_060.0)
    assert sessions.redeem(first) is None
    clock.now += LINK_SECONDS
    assert sessions.redeem(second) is None


def test_a_session_ends_by_time_and_by_hand() -> None:
    clock = Clock()
    sessions = Sessions(clock, 60.0)
    one, other = sessions.open("operator", "anna"), sessions.open("operator", "anna")
    sessions.close(one)
    assert sessions.find(one) is None
    clock.now += 59.9
    assert sessions.find(other) is not None
    clock.now += 0.1
    assert sessions.find(other) is None


def test_a_file_keeps_sessions_that_last_and_a_damaged_one_keeps_none(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "sessions"
    sessions = Sessions(clock, 60.0, file)
    old = sessions.open("operator", "anna")
    clock.now += 50
    new = sessions.open("viewer", "eve")
    clock.now += 20
    sessions.save()
    again = Sessions(clock, 60.0, file)
    assert again.find(old) is None
    assert again.find(new) == sessions.find(new)
    assert old not in file.read_text()
    for damage in (b"{", b"[1]", b'{"a": {"role": 1}}', b"\xff"):
        file.write_bytes(damage)
        assert Sessions(clock, 60.0, file).find(new) is None


def test_addresses_that_nobody_uses_do_not_pile_up() -> None:
    sessions = Sessions(Clock(), 60.0)
    first = sessions.link("viewer", "eve")
    last = [sessions.link("viewer", "eve") for _ in range(MOST)][-1]
    assert sessions.redeem(first) is None
    assert sessions.redeem(last) is not None


def test_sessions_that_are_written_by_several_threads_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "sessions"
    sessions = Sessions(Clock(), 60.0, file)

    def log_in(number: int) -> str:
        cookie = sessions.open("viewer", f"eve-{number}")
        sessions.save()
        return cookie

    with ThreadPoolExecutor(8) as threads:
        cookies = list(threads.map(log_in, range(40)))
    again = Sessions(Clock(), 60.0, file)
    assert all(again.find(cookie) is not None for cookie in cookies)
