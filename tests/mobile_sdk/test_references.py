"""Objects are found by name, and what is wrong with a name is said."""

from __future__ import annotations

import math

import pytest

from mobile_sdk.metrics import format_metrics
from mobile_sdk.references import load_attribute


def test_a_reference_gives_the_object_itself() -> None:
    assert load_attribute("math:sqrt") is math.sqrt


@pytest.mark.parametrize("reference", ["math", "math:", ":sqrt", ""])
def test_what_is_no_reference_is_answered_with_how_to_write_one(reference: str) -> None:
    with pytest.raises(ValueError, match=r"does not name a task: write package\.module:task"):
        load_attribute(reference, "task")


def test_a_missing_module_is_told_from_a_missing_attribute() -> None:
    with pytest.raises(ValueError, match=r"no module 'no_such_package' for the function 'no_such_package\.tasks:task'"):
        load_attribute("no_such_package.tasks:task")
    with pytest.raises(ValueError, match=r"the module 'math' has no attribute 'absent'; did you mean 'fabs'"):
        load_attribute("math:absent")


def test_metrics_are_written_in_their_order_with_four_decimals() -> None:
    assert format_metrics({"loss": 0.33214, "accuracy": 1.0}) == "loss 0.3321, accuracy 1.0000"
    assert format_metrics({}) == ""
