"""Federated evaluation: a random sample is asked, and no single device's answer is kept."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.config import EvaluationSection
from coordinator.evaluation.federated import FederatedEvaluation, trimmed_mean
from coordinator.store.records import VersionRecord
from mobile_sdk.errors import Refused

FLEET = [f"d{number}" for number in range(20)]


def begun(connected: list[str] = FLEET, version: int = 5, **section: Any) -> FederatedEvaluation:
    settings = {"federated_devices": 4, "federated_every": 5, "federated_minimum": 3} | section
    federated = FederatedEvaluation(EvaluationSection(**settings), "run", ["accuracy"])
    federated.begin(VersionRecord(version, version - 1, (), {}, 0.0), connected)
    return federated


def test_a_sample_of_the_connected_devices_is_asked_once_each() -> None:
    federated = begun()
    asked = [device for device in FLEET if federated.wants(device)]
    assert len(asked) == 4
    for device in asked:
        assert federated.ask(device)[0] == "e00000005"
        assert not federated.wants(device)
    assert asked == [device for device in FLEET if begun().wants(device)]  # the same every time
    assert asked != [device for device in FLEET if begun(version=10).wants(device)]


def test_only_each_so_many_versions_are_evaluated() -> None:
    assert not any(begun(version=6).wants(device) for device in FLEET)
    assert not any(begun(federated_devices=0).wants(device) for device in FLEET)


def test_who_comes_later_fills_the_sample() -> None:
    federated = begun(connected=["d0"])
    asked = []
    for device in FLEET:
        if federated.wants(device):
            federated.ask(device)
            asked.append(device)
    assert asked == ["d0", "d1", "d2", "d3"]


def test_a_result_is_given_out_once_when_everybody_has_answered() -> None:
    federated = begun()
    asked = [device for device in FLEET if federated.wants(device)]
    results = []
    for number, device in enumerate(asked):
        federated.ask(device)
        accuracy = {"accuracy": number / 10, "loss": 1.0, "spying": 1.0}
        results.append(federated.answer(device, "e00000005", "small", number + 1, accuracy))
    assert results[:3] == [None, None, None], "three would do, but then the fourth were a subtraction away"
    last = results[-1]
    assert last is not None
    assert (last.version, last.devices, last.samples) == (5, 4, 10)
    assert last.metrics == pytest.approx({"accuracy": (0.1 * 2 + 0.2 * 3) / 5, "loss": 1.0}), "without both ends"
    assert federated.results == [last]
    assert not any(federated.wants(device) for device in FLEET)


def test_enough_answers_are_given_out_when_the_next_evaluation_begins_and_too_few_never() -> None:
    for count, kept in ((3, 1), (2, 0)):
        federated = begun()
        for device in [device for device in FLEET if federated.wants(device)][:count]:
            federated.ask(device)
            assert federated.answer(device, "e00000005", "small", 1, {"accuracy": 0.5}) is None
        federated.begin(VersionRecord(10, 9, (), {}, 0.0), FLEET)
        assert [(r.version, r.devices) for r in federated.results] == [(5, count)] * kept


def test_a_tier_is_not_shown_where_it_tells_of_the_few_others() -> None:
    federated = begun(federated_devices=4, federated_minimum=3)
    for number, device in enumerate([device for device in FLEET if federated.wants(device)]):
        federated.ask(device)
        federated.answer(device, "e00000005", "small" if number else "large", 1, {"accuracy": 0.5})
    (result,) = federated.results
    assert result.by_tier == {}, "everybody less the small ones would be the one large device"


def test_no_device_moves_a_result_far_whatever_it_says() -> None:
    honest = [(0.8 + 0.01 * number, 100) for number in range(7)]
    for lie in ((1e301, 100_000_000), (-1e301, 1), (0.0, 100_000_000)):
        mean = trimmed_mean([*honest, lie])
        assert 0.8 <= mean <= 0.86
    assert abs(trimmed_mean([(1e301, 10**8), (0.5, 1)])) <= 1e9, "what two say is bounded, and JSON"


def test_an_answer_that_nobody_asked_for_or_that_comes_twice_changes_nothing() -> None:
    federated = begun(federated_minimum=1, federated_devices=1)
    (first, *_) = [device for device in FLEET if federated.wants(device)]
    federated.ask(first)
    assert federated.answer("stranger", "e00000005", "small", 5, {"accuracy": 1.0}) is None
    assert federated.answer(first, "e00000004", "small", 5, {"accuracy": 1.0}) is None
    assert federated.answer(first, "e00000005", "small", 5, {"accuracy": 0.5}) is not None
    assert federated.answer(first, "e00000005", "small", 5, {"accuracy": 1.0}) is None
    assert federated.results[0].metrics == {"accuracy": 0.5}


def test_another_takes_the_place_of_who_cannot() -> None:
    federated = begun()
    asked = [device for device in FLEET if federated.wants(device)]
    other = next(device for device in FLEET if device not in asked)
    federated.ask(asked[0])
    assert not federated.wants(other)
    federated.lost(asked[0])
    assert federated.wants(other)
    assert not federated.wants(asked[0])


@pytest.mark.parametrize("samples", [0, 10**12])
def test_impossible_counts_are_refused(samples: int) -> None:
    federated = begun()
    with pytest.raises(Refused, match="counts"):
        federated.answer("d0", "e00000005", "small", samples, {})
