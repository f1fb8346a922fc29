"""A metric over time, as blocks."""

from __future__ import annotations

import pytest

from coordinator.reports.sparks import draw_spark


@pytest.mark.parametrize(
    ("values", "blocks"),
    [
        ([], ""),
        ([0.0, 0.5, 1.0], "▁▅█"),
        ([0.9], "█"),
        ([300.0, 200.0, 100.0], "█▅▁"),
        ([5.0, 5.0], "▁▁"),
        ([-1.0, 0.0], "▁█"),
    ],
)
def test_shares_are_shown_as_they_are_and_other_numbers_between_the_least_and_the_most(
    values: list[float], blocks: str
) -> None:
    assert draw_spark(values) == blocks
