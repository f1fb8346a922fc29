"""Sizes as people write and read them."""

from __future__ import annotations

import pytest

from mobile_sdk import Policy
from mobile_sdk.sizes import format_bytes, format_count, parse_bytes


@pytest.mark.parametrize(
    ("text", "count"),
    [("2MB", 2_000_000), ("512 KiB", 524_288), ("1.5mb", 1_500_000), ("800KB", 800_000), ("123", 123), (77, 77)],
)
def test_sizes_are_read_with_their_units(text: str | int, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "MB", "2XB", "-1MB", "0", "0.1", "1e6", "two"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a size|less than one"):
        parse_bytes(text)


def test_bytes_are_written_in_readable_units() -> None:
    assert [format_bytes(n) for n in (999, 1940, 45_600, 2_000_000)] == ["999 B", "1.94 KB", "45.6 KB", "2.00 MB"]


@pytest.mark.parametrize("text", ["1Mb", "8 Kb", "2Gb"])
def test_bits_are_not_taken_for_bytes(text: str) -> None:
    with pytest.raises(ValueError, match="would be bits: write"):
        parse_bytes(text)


def test_sizes_are_texts_in_a_policy_too() -> None:
    assert Policy(bytes_per_day="50MB") == Policy(bytes_per_day=50_000_000)
    with pytest.raises(ValueError, match="is not a size"):
        Policy(bytes_per_day="much")


def test_one_thing_is_not_several() -> None:
    assert [format_count(n, "program") for n in (0, 1, 2, 9735)] == [
        "0 programs",
        "1 program",
        "2 programs",
        "9,735 programs",
    ]
