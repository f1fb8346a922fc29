"""No device counts for more than a few times what the median device does, however it tries."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.merge import defence as module
from coordinator.merge.contribution import Contribution
from coordinator.merge.defence import CAP, CLIP, MOST_STRIKES, PULL, SHARE, Defence, Reason
from coordinator.merge.merger import Merger
from coordinator.merge.regions import WeightRegion
from coordinator.merge.sums import largest_magnitude, to_steps
from mobile_sdk.payload import SteppedVector, Steps

SIZE = 200
REGION = WeightRegion(np.arange(SIZE))


def update(name: str, number: int = 0, *, scale: float = 1.0, examples: float = 100.0, seed: int = 0) -> Contribution:
    """What an honest device sends: the fleet's direction, and noise of its own."""
    rng = np.random.default_rng([seed, number, *name.encode()])
    delta = (scale * (np.linspace(1, 2, SIZE) + 0.5 * rng.standard_normal(SIZE))).astype(np.float32)
    return Contribution(f"{name}-{number}", REGION, delta, examples, device=name)


def fleet(count: int, **changes: float) -> list[Contribution]:
    return [update(f"d{number}", **changes) for number in range(count)]  # type: ignore[arg-type]


def test_honest_updates_are_left_as_they_are() -> None:
    buffer = [update("d0", scale=0.5), update("d1"), update("d2", scale=2.0), update("d3", examples=200.0)]
    judgement = Defence().judge(buffer)
    assert judgement.contributions == buffer
    assert judgement.strikes == {}


@pytest.mark.parametrize("scale", [1e6, -1e6, 50.0])
def test_a_long_update_is_scaled_down_from_the_first_merge_on_and_told(scale: float) -> None:
    buffer = [*fleet(4), update("mallory", scale=scale)]
    judgement = Defence().judge(buffer)
    longest = max(float(np.linalg.norm(c.values())) for c in judgement.contributions)
    usual = float(np.median([judgement.lengths[c.id] for c in buffer]))
    assert longest <= 1.01 * CLIP * usual
    assert list(judgement.strikes) == ["mallory"]
    assert "times as long as the median device's" in judgement.strikes["mallory"].why


def test_what_is_scaled_down_can_still_be_summed_exactly() -> None:
    buffer = [c.exact() for c in [*fleet(4), update("mallory", scale=1e3)]]
    (long,) = (c for c in Defence().judge(buffer).contributions if c.device == "mallory")
    exact = long.exact()
    np.testing.assert_array_equal(exact.values(), to_steps(exact.values()))
    assert exact.largest == largest_magnitude(exact.values())


def test_a_device_that_sends_most_updates_has_one_vote_on_what_is_usual() -> None:
    flood = [update("mallory", number, scale=1e3) for number in range(20)]
    judgement = Defence().judge([*fleet(3), *flood])
    usual = float(np.linalg.norm(update("d0").values()))
    assert max(float(np.linalg.norm(c.values())) for c in judgement.contributions) < 2 * CLIP * usual
    pull = sum(c.examples * float(np.linalg.norm(c.values())) for c in judgement.contributions if c.device == "mallory")
    assert pull <= 1.2 * PULL * 100.0 * usual


def test_a_device_that_sends_many_updates_of_nothing_has_no_more_than_its_share() -> None:
    flood = [update("mallory", number, scale=0.0) for number in range(20)]
    judgement = Defence().judge([*fleet(3), *flood])
    assert sum(c.examples for c in judgement.contributions if c.device == "mallory") == pytest.approx(SHARE * 100.0)


def test_what_is_long_and_claims_many_samples_counts_no_more_than_what_does_one_of_both() -> None:
    judgement = Defence().judge([*fleet(5), update("mallory", scale=1e3, examples=1e8)])
    pulls = {c.device: c.examples * float(np.linalg.norm(c.values())) for c in judgement.contributions}
    assert pulls.pop("mallory") <= 1.01 * PULL * max(pulls.values())


def test_examples_beyond_a_few_times_the_median_devices_do_not_count() -> None:
    judgement = Defence().judge([*fleet(4), update("mallory", examples=1e8)])
    assert max(c.examples for c in judgement.contributions) <= CAP * 100.0


def test_two_devices_are_no_majority() -> None:
    buffer = [update("d0"), update("d1", scale=100.0, examples=1e4)]
    assert Defence().judge(buffer).contributions == buffer


def test_of_three_devices_one_that_points_against_the_two_others_is_not_blamed() -> None:
    """Nobody can say which of them is right; of four, three can."""
    assert Defence().judge([*fleet(2), update("d2", scale=-1.0)]).strikes == {}
    assert list(Defence().judge([*fleet(3), update("d3", scale=-1.0)]).strikes) == ["d3"]


def test_the_limits_are_those_that_the_documentation_states() -> None:
    """docs/explanation/security.md, "One hostile device": lengths, examples, shares, pulls."""
    long = Defence().judge([*fleet(4), update("mallory", scale=9.0)])
    usual = sorted(long.lengths.values())[2]
    assert max(float(np.linalg.norm(c.values())) for c in long.contributions) == pytest.approx(3.0 * usual, rel=1e-5)
    # Scaled down it is three times as long, so it pulls three times as much: two thirds of its samples count.
    assert long.contributions[-1].device == "mallory"
    assert long.contributions[-1].examples == pytest.approx(100.0 * 2 / 3, rel=1e-2)
    greedy = Defence().judge([*fleet(4), update("mallory", scale=0.3, examples=1e8)])
    assert max(c.examples for c in greedy.contributions) == pytest.approx(300.0)
    # At most twice the median device's product of samples and norm, and no more than three times its samples.
    both = Defence().judge([*fleet(4), update("mallory", scale=2.5, examples=250.0)])
    pulls = sorted(c.examples * float(np.linalg.norm(c.values())) for c in both.contributions)
    assert pulls[-1] == pytest.approx(2.0 * pulls[2], rel=1e-5)
    many = Defence().judge([*fleet(4), *(update("mallory", number, scale=0.01) for number in range(20))])
    assert sum(c.examples for c in many.contributions if c.device == "mallory") == pytest.approx(300.0)


def test_of_very_many_devices_those_that_came_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DEVICES", 3)
    defence = Defence()
    for number, scale in enumerate([1.0, 1.0, 1.0, 100.0, 100.0, 100.0]):
        buffer = [update(f"d{number}", scale=scale)]
        defence.learn(buffer, Defence().judge(buffer))
    late = [update("late", scale=100.0)]
    assert defence.judge(late).contributions == late, "as long as the last three"
    defence.learn([update("d3", scale=100.0)], Defence().judge([update("d3", scale=100.0)]))
    defence.learn(late, Defence().judge(late))
    assert set(defence._examples) == {"d5", "d3", "late"}, "who came again is remembered as the newest"


def test_what_is_usual_is_remembered_over_merges() -> None:
    defence = Defence()
    buffer = fleet(3)
    defence.learn(buffer, defence.judge(buffer))
    lonely = [update("mallory", scale=1e6)]
    usual = float(np.linalg.norm(update("d0").values()))
    (bounded,) = defence.judge(lonely).contributions
    assert float(np.linalg.norm(bounded.values())) < 2 * CLIP * usual


def merges_until_set_aside(bad: list[Contribution], merges: int = 20) -> tuple[int, dict[str, tuple[Reason, str]]]:
    """After how many merges somebody is set aside, beside seven honest devices."""
    defence = Defence()
    for number in range(1, merges + 1):
        buffer = [*(update(f"d{device}", number, seed=number) for device in range(7)), *bad]
        aside = defence.learn(buffer, defence.judge(buffer))
        if aside:
            return number, aside
    return merges, {}


def test_who_is_out_of_line_again_and_again_is_set_aside_and_nobody_else() -> None:
    number, aside = merges_until_set_aside([update("mallory", scale=1e6)])
    assert list(aside) == ["mallory"]
    assert number <= 3
    number, aside = merges_until_set_aside([update("mallory", scale=-1.0)])
    assert list(aside) == ["mallory"]
    assert "point against" in aside["mallory"][1]
    assert number == MOST_STRIKES
    assert merges_until_set_aside([])[1] == {}


def test_one_odd_update_is_forgiven() -> None:
    defence = Defence()
    for number in range(30):
        odd = update("d0", number, scale=-1.0 if number % 15 == 0 else 1.0, seed=number)
        buffer = [odd, *(update(f"d{device}", number, seed=number) for device in range(1, 6))]
        assert defence.learn(buffer, defence.judge(buffer)) == {}


def test_near_an_optimum_updates_that_cancel_each_other_set_nobody_aside() -> None:
    """Where honest updates add up to nothing, each of them points against all others."""
    defence = Defence()
    for number in range(30):
        rng = np.random.default_rng(number)
        rows = rng.standard_normal((6, SIZE)) * 0.3 + np.eye(6, SIZE) * 4
        rows -= rows.mean(axis=0)
        buffer = [
            Contribution(f"u{number}-{k}", REGION, row.astype(np.float32), 100.0, device=f"d{k}")
            for k, row in enumerate(rows)
        ]
        assert defence.learn(buffer, defence.judge(buffer)) == {}


def test_devices_with_samples_of_other_classes_than_the_others_are_not_set_aside() -> None:
    """Ten devices, one class each: softmax regression, whose gradients of different classes pull apart."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((10, 30)).astype(np.float32)
    weights = np.zeros((30, 10), np.float32)
    defence = Defence()
    region = WeightRegion(np.arange(weights.size))
    for number in range(40):
        buffer = []
        for label in range(10):
            x = centres[label] + 0.5 * rng.standard_normal((20, 30)).astype(np.float32)
            own = weights.copy()
            for _ in range(5):
                scores = x @ own
                p = np.exp(scores - scores.max(axis=1, keepdims=True))
                p /= p.sum(axis=1, keepdims=True)
                p[:, label] -= 1
                own -= 0.5 * x.T @ p / len(x)
            delta = (own - weights).reshape(-1)
            buffer.append(Contribution(f"u{number}-{label}", region, delta, 20.0, device=f"d{label}"))
        assert defence.learn(buffer, defence.judge(buffer)) == {}
        weights += np.mean([c.values() for c in buffer], axis=0).reshape(weights.shape)


def test_who_sends_nothing_is_set_aside_whatever_samples_it_claims() -> None:
    number, aside = merges_until_set_aside([update("mallory", scale=0.0, examples=1e8)])
    assert {name: reason for name, (reason, _) in aside.items()} == {"mallory": "nothing"}
    assert number == MOST_STRIKES


@given(st.permutations(range(9)))
def test_a_bounded_buffer_gives_the_same_version_in_any_order_of_arrival(order: list[int]) -> None:
    buffer = [*fleet(6), update("mallory", scale=1e4), update("mallory", 1, scale=30.0), update("greedy", examples=1e8)]
    weights = np.linspace(-1, 1, SIZE).astype(np.float32)

    def merged(contributions: list[Contribution]) -> bytes:
        bounded = Defence().judge(contributions).contributions
        return Merger()(weights, {}, bounded, lambda version: weights).weights.tobytes()

    shuffled = [dataclasses.replace(buffer[k], delta=to_steps(buffer[k].values())) for k in order]
    known = [dataclasses.replace(c, largest=largest_magnitude(c.values())) for c in shuffled]
    assert merged(known) == merged(sorted(shuffled, key=lambda c: c.id))


@given(st.sampled_from([1.0, 30.0, 1e4]), st.sampled_from([1.0, -1.0, 0.0]), st.booleans())
def test_the_sums_that_the_defence_takes_on_the_way_are_those_of_the_merge(
    long: float, against: float, twice: bool
) -> None:
    """Of what it left as it was, and with what it bounded."""
    buffer = [*fleet(9), update("mallory", scale=long), update("other", scale=against), *fleet(1, seed=2)[:twice]]
    buffer = [dataclasses.replace(c.exact(), id=f"a{k}", staleness=k % 3) for k, c in enumerate(buffer)]
    merger, weights = Merger(), np.linspace(-1, 1, SIZE).astype(np.float32)
    judgement = Defence().judge(buffer, 0, merger.weigh)
    without = Defence().judge(buffer)
    assert [c.examples for c in judgement.contributions] == [c.examples for c in without.contributions]
    assert (judgement.strikes, judgement.shares, without.sums) == (without.strikes, without.shares, {})
    (known,) = judgement.sums.values()
    with_sums = merger(weights, {}, judgement.contributions, lambda version: weights, judgement.sums)
    anew = merger(weights, {}, judgement.contributions, lambda version: weights)
    assert with_sums.weights.tobytes() == anew.weights.tobytes()
    assert known.values([], [], []) is None, "the merge had it"


def test_a_defended_merge_of_integers_never_has_all_updates_as_floats() -> None:
    size, count = 200_000, 48
    rng = np.random.default_rng(0)
    steps = Steps([(size // 100, 100)], np.full(size // 100, -14, np.int8))
    region = WeightRegion(np.arange(size))
    buffer = [
        Contribution(
            f"a{k}",
            region,
            SteppedVector(rng.integers(-127, 128, size).astype(np.int8), steps, 7),
            30.0,
            device=f"d{k}",
        )
        for k in range(count)
    ]
    weights = np.zeros(size, np.float32)
    tracemalloc.start()
    try:
        judgement = Defence().judge(buffer, count, Merger().weigh)
        Merger()(weights, {}, judgement.contributions, lambda version: weights, judgement.sums)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size * count, "a byte for each integer; floats of all would be four times as much"


def test_a_device_that_has_had_all_that_it_may_have_counts_nothing() -> None:
    """Not even as one example, which is the least that a merge counts."""
    defence = Defence()
    for _ in range(32):
        defence._shares.add({"mallory": 1.0})
    judgement = defence.judge([*fleet(4), update("mallory")])
    assert judgement.shares["mallory"] == 0.0
    assert {c.device: c.factor for c in judgement.contributions} == {f"d{n}": 1.0 for n in range(4)} | {"mallory": 0.0}
