"""A budget is filled from predictions that measurements correct; here both are tables."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from exporters.search.fit_budget import Fitted, fit_budget
from exporters.space import Levels


class Tables:
    """Plans of one layer: level -> bytes that it needs and that it is predicted to need; a higher level gains more."""

    def __init__(self, needs: Mapping[int, int], predicted: Mapping[int, float]) -> None:
        self.needs = needs
        self.predicted = dict(predicted)
        self.measured: list[int] = []

    def propose(self, limit: float) -> Levels | None:
        fitting = [level for level, size in self.predicted.items() if size <= limit]
        return (max(fitting),) if fitting else None

    def measure(self, levels: Levels) -> int:
        (level,) = levels
        self.measured.append(level)
        self.predicted[level] = float(self.needs[level])  # the prediction learns
        return self.needs[level]

    def fit(self, budget: int) -> Fitted | None:
        return fit_budget(
            budget,
            propose=self.propose,
            measure=self.measure,
            predict=lambda levels: self.predicted[levels[0]],
            gain=lambda levels: float(levels[0]),
        )


def test_a_prediction_that_is_right_is_measured_once() -> None:
    tables = Tables({1: 40, 2: 98, 3: 140}, {1: 40, 2: 98, 3: 140})
    assert tables.fit(100) == Fitted((2,), 98, 2.0)
    assert tables.measured == [2]


def test_a_plan_that_needs_more_than_was_predicted_is_followed_by_a_smaller_one() -> None:
    tables = Tables({1: 40, 2: 96, 3: 140}, {1: 40, 2: 90, 3: 99})
    assert tables.fit(100) == Fitted((2,), 96, 2.0)
    assert tables.measured == [3, 2]


def test_where_there_is_room_a_little_more_than_the_prediction_allows_is_tried() -> None:
    tables = Tables({1: 40, 2: 60, 3: 95}, {1: 40, 2: 60, 3: 125})
    assert tables.fit(100) == Fitted((3,), 95, 3.0)
    assert tables.measured == [2, 3]


def test_a_stretch_that_leads_beyond_the_budget_ends_the_search() -> None:
    tables = Tables({1: 40, 2: 60, 3: 110}, {1: 40, 2: 60, 3: 125})
    assert tables.fit(100) == Fitted((2,), 60, 2.0)
    assert tables.measured == [2, 3]


def test_nothing_that_fits_is_no_plan() -> None:
    assert Tables({1: 400}, {1: 400}).fit(100) is None
    assert Tables({1: 400}, {1: 90}).fit(100) is None


@given(
    st.dictionaries(st.integers(1, 9), st.integers(1, 200), min_size=1),
    st.lists(st.floats(0.5, 2.0), min_size=9, max_size=9),
    st.integers(1, 200),
)
def test_whatever_is_predicted_what_is_taken_was_measured_within_the_budget(
    needs: dict[int, int], errors: list[float], budget: int
) -> None:
    tables = Tables(needs, {level: size * errors[level - 1] for level, size in needs.items()})
    found = tables.fit(budget)
    assert len(tables.measured) == len(set(tables.measured)) <= 16
    fitting = [level for level in tables.measured if needs[level] <= budget]
    if found is None:
        assert not fitting
    else:
        assert found == Fitted((max(fitting),), needs[max(fitting)], float(max(fitting)))
