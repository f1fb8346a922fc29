"""The run file's ``[training]`` has the defaults and limits that devices hold to: there is one table of them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from pydantic import ValidationError

from coordinator.config import TrainingSection
from mobile_sdk.errors import ProtocolError
from mobile_sdk.training.settings import COUNTS, OPTIMISERS, RANGES, TrainingSettings


def taken_by_the_run_file(name: str, value: Any) -> bool:
    try:
        TrainingSection.model_validate({name: value, **({"momentum": 0.5} if name == "nesterov" else {})})
    except ValidationError:
        return False
    return True


def taken_by_a_device(name: str, value: Any) -> bool:
    try:
        TrainingSettings.from_json({**TrainingSettings().to_json(), name: value})
    except ProtocolError:
        return False
    return True


def test_the_defaults_are_the_devices() -> None:
    assert TrainingSection().settings == TrainingSettings()
    assert set(TrainingSection.model_fields) == {field.name for field in dataclasses.fields(TrainingSettings)}


@pytest.mark.parametrize(
    ("samples", "epochs"),
    [(None, 1), (0, 1), (1, 5), (16, 5), (45, 4), (80, 2), (144, 2), (145, 1), (160, 1), (9_000, 1)],
)
def test_few_samples_are_passed_over_more_often_for_ten_steps(samples: int | None, epochs: int) -> None:
    assert TrainingSection(epochs="auto").epochs_for(samples) == epochs
    assert TrainingSection(epochs=3).epochs_for(samples) == 3


BOUNDARIES = [
    *((name, least + step) for name, least in COUNTS.items() for step in (-1, 0, 1)),
    *((name, value) for name, (low, _) in RANGES.items() for value in (low, math.nextafter(low, -1.0))),
    *((name, value) for name, (_, below) in RANGES.items() for value in (below, math.nextafter(below, 0.0))),
    *((name, value) for name in RANGES for value in (math.inf, math.nan)),
    *(("optimiser", name) for name in (*OPTIMISERS, "lion")),
    ("nesterov", True),
]


@pytest.mark.parametrize(("name", "value"), BOUNDARIES)
def test_a_value_is_taken_by_the_run_file_if_and_only_if_devices_take_it(name: str, value: Any) -> None:
    assert taken_by_the_run_file(name, value) == taken_by_a_device(name, value)


def test_the_limits_are_limits() -> None:
    outcomes = {
        name: {taken_by_a_device(name, value) for other, value in BOUNDARIES if other == name} for name in RANGES
    }
    assert all(outcome == {True, False} for outcome in outcomes.values())
