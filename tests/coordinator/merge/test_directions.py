"""Where devices point, computed from integers alone, is where their updates point."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from coordinator.merge.contribution import Contribution
from coordinator.merge.directions import device_directions
from coordinator.merge.regions import WeightRegion
from coordinator.merge.squares import PIECE
from mobile_sdk.payload import SteppedVector, Steps

SIZE = 2 * PIECE + 600  # more than a block
REGION = WeightRegion(np.arange(SIZE))


def floats(rng: np.random.Generator, scale: float = 1.0) -> npt.NDArray[np.float32]:
    """What devices of one fleet have in common, and noise of their own."""
    values: npt.NDArray[np.float32] = (scale * (np.sin(np.arange(SIZE)) + rng.standard_normal(SIZE))).astype(np.float32)
    return values


def integers(rng: np.random.Generator, bits: int, exponent: int) -> SteppedVector:
    """The same on steps: two channels of a matrix, and a vector."""
    steps = Steps([(2, PIECE), (600,)], np.array([exponent, exponent - 5, exponent + 3], np.int8))
    most = 2**bits - 1
    values = np.clip(np.rint(floats(rng, most / 3)), -most, most)
    return SteppedVector(values.astype(np.int16) if bits > 7 else values.astype(np.int8), steps, bits)


def expected(devices: Mapping[str, Sequence[Contribution]]) -> dict[str, tuple[float, float]]:
    sums = {name: np.sum([c.values().astype(np.float64) for c in mine], 0) for name, mine in devices.items()}
    units = {name: total / np.linalg.norm(total) for name, total in sums.items() if total.any()}
    everything = np.sum(list(units.values()), 0)
    lengths = {name: float(np.linalg.norm(everything - unit)) for name, unit in units.items()}
    return {
        name: (float(unit @ (everything - unit)) / lengths[name], lengths[name])
        for name, unit in units.items()
        if lengths[name] > 0.01
    }


def check(devices: Mapping[str, Sequence[Contribution]]) -> None:
    found = {each.device: (each.cosine, each.length) for each in device_directions(devices)}
    wanted = expected(devices)
    assert list(found) == sorted(wanted)
    for name, pair in wanted.items():
        assert found[name] == pytest.approx(pair, abs=2e-4), name


def fleet(*deltas: npt.NDArray[np.float32] | SteppedVector) -> dict[str, list[Contribution]]:
    return {f"d{k}": [Contribution(f"a{k}", REGION, delta, 1.0, device=f"d{k}")] for k, delta in enumerate(deltas)}


@pytest.mark.parametrize("bits", [3, 7, 15])
def test_of_integers_on_the_same_steps(bits: int) -> None:
    rng = np.random.default_rng(bits)
    check(fleet(*(integers(rng, bits, -12) for _ in range(7))))


def test_of_floats_and_of_integers_of_every_kind_side_by_side() -> None:
    rng = np.random.default_rng(1)
    check(fleet(floats(rng), floats(rng, -1e-3), *(integers(rng, bits, -bits) for bits in (3, 7, 7, 15))))


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_one_that_is_very_much_shorter_or_longer_has_one_voice_and_the_others_keep_theirs(scale: float) -> None:
    rng = np.random.default_rng(2)
    check(fleet(floats(rng, -scale), *(floats(rng) for _ in range(5))))


def test_a_device_with_one_huge_element_does_not_drown_the_others() -> None:
    rng = np.random.default_rng(3)
    spike = np.zeros(SIZE, np.float32)
    spike[7] = -1e6
    check(fleet(spike, *(floats(rng) for _ in range(5)), *(integers(rng, 7, -9) for _ in range(3))))


def test_of_a_device_with_several_updates_their_sum_counts() -> None:
    rng = np.random.default_rng(4)
    devices = fleet(*(floats(rng) for _ in range(5)))
    devices["d1"] += [Contribution(f"b{k}", REGION, floats(rng, -3.0), 1.0, device="d1") for k in range(2)]
    devices["d2"].append(Contribution("b9", REGION, integers(rng, 7, -9), 1.0, device="d2"))
    check(devices)


def test_who_moves_nothing_points_nowhere_and_neither_do_others_that_cancel() -> None:
    rng = np.random.default_rng(5)
    one = floats(rng)
    check(fleet(one, np.zeros(SIZE, np.float32), floats(rng), floats(rng)))
    assert [each.device for each in device_directions(fleet(floats(rng), one, -one))] == ["d1", "d2"]
    assert device_directions(fleet(one, np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32))) == []
    assert device_directions(fleet(np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32))) == []


def test_the_order_of_devices_is_not_in_it() -> None:
    rng = np.random.default_rng(6)
    devices = fleet(*(integers(rng, 7, -9) for _ in range(4)), *(floats(rng) for _ in range(3)))
    assert device_directions(devices) == device_directions(dict(reversed(devices.items())))


def test_a_length_that_is_known_is_not_taken_again() -> None:
    """A wrong one shows: the device then has twice the voice."""
    devices = fleet(*(floats(np.random.default_rng(k)) for k in range(5)))
    (own,) = devices["d0"]
    known = devices | {"d0": [dataclasses.replace(own, length=own.norm())]}
    wrong = devices | {"d0": [dataclasses.replace(own, length=own.norm() / 2)]}
    assert device_directions(known) == device_directions(devices) != device_directions(wrong)
