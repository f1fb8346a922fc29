"""Links that invite: what one side writes the other reads, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_sdk.errors import InviteError
from mobile_sdk.invite import Invite

KEY = "ab" * 32
LINK = f"ftte://join?v=1&url=wss://example.org:8765&run=digits&key={KEY}"


def test_the_documented_link_is_read_and_written() -> None:
    invite = Invite.parse(LINK)
    assert invite == Invite("wss://example.org:8765", "digits", KEY)
    assert str(invite) == LINK


def test_the_https_link_of_a_coordinators_page_is_the_same_invitation() -> None:
    invite = Invite("wss://example.org:8765", "digits", KEY, token="sæcret &#;", certificate="cd" * 32)
    assert invite.page.startswith("https://example.org:8765/join#v=1&url=wss://example.org:8765&run=digits&key=")
    assert Invite.parse(invite.page) == invite
    assert "secret" not in invite.page.partition("#")[0]
    with pytest.raises(InviteError, match="needs TLS"):
        Invite("ws://127.0.0.1:1", "digits", KEY).page  # noqa: B018
    for link in ("https://example.org/join", f"https://example.org/other#{LINK.partition('?')[2]}"):
        with pytest.raises(InviteError, match="not a link that invites"):
            Invite.parse(link)


@given(token=st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=256), pinned=st.booleans())
def test_what_is_written_is_read_back(token: str, pinned: bool) -> None:
    invite = Invite("wss://[2001:db8::1]:8765/ftte", "a.run", KEY, token, "cd" * 32 if pinned else "")
    assert Invite.parse(str(invite)) == invite


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("https://example.org", "ftte://join"),
        ("ftte://leave?v=1", "ftte://join"),
        ("ftte://join?v=1", "lacks 'url'"),
        (LINK.replace("v=1", "v=2"), "version '2'"),
        (LINK + "&admin=1", "'admin'"),
        (LINK + "&run=other", "twice"),
        (LINK.replace(KEY, KEY[:-1]), "64 hex digits"),
        (LINK.replace("wss://", "http://"), "wss://"),
        (LINK.replace("=digits", "=../x"), "names the run"),
        (LINK + "&cert=1234", "cert"),
        (LINK + "&token=%ff", "damaged"),
        (LINK + "&token=%0a", "printable"),
    ],
)
def test_what_invites_to_nothing_is_refused_by_name(link: str, words: str) -> None:
    with pytest.raises(InviteError, match=words):
        Invite.parse(link)


def test_the_token_is_not_shown() -> None:
    assert "sesame" not in repr(Invite.parse(LINK + "&token=sesame"))
