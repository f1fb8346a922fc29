"""No device owns a window of versions, however many of them it fills by itself."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.merge.contribution import Contribution
from coordinator.merge.defence import Defence
from coordinator.merge.merger import Merger
from coordinator.merge.regions import WeightRegion
from coordinator.merge.shares import MOST, SHARE, WINDOW, Shares
from mobile_sdk.layout import Vector

NAMES = st.sampled_from("abcdefgh")
BUFFERS = st.lists(st.dictionaries(NAMES, st.integers(1, 100), min_size=1, max_size=8), min_size=1, max_size=80)


@given(BUFFERS, st.integers(0, 8))
def test_no_device_has_more_of_a_window_than_its_part(buffers: list[dict[str, int]], working: int) -> None:
    shares, past = Shares(), collections.deque[dict[str, float]](maxlen=WINDOW)
    for buffer in buffers:
        total = sum(buffer.values())
        wanted = {device: count / total for device, count in buffer.items()}
        given_ = shares.bound(wanted, working, 3)
        shares.add(given_)
        past.append(given_)
        assert set(given_) == set(wanted)
        assert all(0 <= share <= 1 for share in given_.values())
        assert sum(given_.values()) <= 1 + 1e-9
        devices = max(len(set().union(*past)), working)
        if devices < 3:
            assert given_ == wanted
            continue
        allowed = min(SHARE / devices, MOST) * max(len(past), devices)
        for device in buffer:
            # What it had before there were enough devices to measure by stays its own.
            assert given_[device] == 0 or sum(version.get(device, 0.0) for version in past) <= allowed + 1e-9


def test_equal_devices_are_left_as_they_are_whatever_the_buffer() -> None:
    for size in (1, 3, 8, 20):
        shares = Shares()
        arrivals = [f"d{number % 8}" for number in range(size * 100)]
        for start in range(0, len(arrivals), size):
            counts = collections.Counter(arrivals[start : start + size])
            wanted = {device: count / size for device, count in counts.items()}
            assert shares.bound(wanted, 8, 3) == wanted
            shares.add(wanted)


def test_what_one_device_may_not_have_goes_to_the_others_of_the_buffer() -> None:
    shares = Shares()
    for _ in range(WINDOW):
        shares.add({"mallory": SHARE / 8})
    found = shares.bound({"mallory": 0.5, "a": 0.25, "b": 0.25}, 8, 3)
    assert found["mallory"] == pytest.approx(SHARE / 8)
    assert found["a"] == found["b"] == pytest.approx((1 - SHARE / 8) / 2)


def test_what_is_given_on_stops_at_what_each_of_the_others_may_have() -> None:
    """Of ten devices each may have three tenths of ten versions: a has had 2.8, so the rest is b's."""
    shares = Shares()
    for _ in range(9):
        shares.add({"a": 2.8 / 9, "mallory": 3.0 / 9})
    found = shares.bound({"mallory": 0.6, "a": 0.2, "b": 0.2}, 10, 3)
    assert found["mallory"] == pytest.approx(0.0, abs=1e-12)
    assert found["a"] == pytest.approx(0.2)
    assert found["b"] == pytest.approx(0.8)


def test_a_device_has_three_equal_parts_of_the_last_32_versions_and_no_more() -> None:
    """Of eight devices that is twelve versions; the thirteenth comes when the first of them is out of sight."""
    shares = Shares()
    for number in range(31):
        shares.add({"mallory" if number < 12 else "anna": 1.0})
    assert shares.bound({"mallory": 1.0}, 8, 3) == {"mallory": 0.0}
    shares.add({"anna": 1.0})
    assert shares.bound({"mallory": 1.0}, 8, 3) == {"mallory": 1.0}


def never(version: int) -> Vector:
    raise AssertionError(f"the weights of version {version} are not needed")


def test_a_device_that_fills_every_buffer_moves_the_model_less_and_less() -> None:
    """Eight devices at work, one of them a hundred times as fast, the buffer is one update."""
    region, defence, merger = WeightRegion(np.arange(4)), Defence(), Merger()
    weights = np.zeros(4, np.float32)
    for number in range(WINDOW):
        buffer = [Contribution(f"u{number:04d}", region, np.ones(4, np.float32), 100.0, device="mallory")]
        judgement = defence.judge(buffer, 8)
        weights = merger(weights, {}, judgement.contributions, never).weights
        defence.learn(buffer, judgement)
    assert 3.0 <= weights[0] <= SHARE / 8 * WINDOW + 0.01, "32 without a bound"
    honest = Contribution("v", region, np.full(4, -1, np.float32), 100.0, device="anna")
    merged = merger(weights, {}, defence.judge([honest], 8).contributions, never).weights
    assert merged[0] == pytest.approx(weights[0] - 1), "who joins in counts in full"
