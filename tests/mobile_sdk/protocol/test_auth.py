"""Proofs of a shared secret, as docs/reference/protocol.md states them."""

from __future__ import annotations

import hashlib
import hmac

from mobile_sdk.protocol.auth import SECRET_BYTES, coordinator_mac, device_mac, matches, new_nonce

SECRET = bytes(range(32))
PARTS = ("digits", "phone-1", "aa", "bb")


def test_an_answer_is_an_hmac_over_its_direction_run_device_and_both_nonces() -> None:
    for mac, label in ((device_mac, b"device"), (coordinator_mac, b"coordinator")):
        words = b"ftte v1 " + label + b"\ndigits\nphone-1\naa\nbb"
        assert mac(SECRET, *PARTS) == hmac.new(SECRET, words, hashlib.sha256).hexdigest()


def test_secrets_and_nonces_have_32_bytes_and_no_two_nonces_are_alike() -> None:
    assert SECRET_BYTES == 32
    nonces = {new_nonce() for _ in range(100)}
    assert len(nonces) == 100
    assert {len(bytes.fromhex(nonce)) for nonce in nonces} == {32}


def test_only_the_whole_answer_matches() -> None:
    mac = device_mac(SECRET, *PARTS)
    assert matches(mac, mac)
    assert not matches(mac, mac[:-1])
    assert not matches(mac, mac.upper())
