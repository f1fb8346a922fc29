"""Layouts and subsets: where parameters lie and which part of them is trained."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_sdk.errors import LayoutError
from mobile_sdk.layout import Layout, Parameter, Slice, Subset

shapes = st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)


@st.composite
def subsets(draw: st.DrawFn) -> Subset:
    layout = Layout(Parameter(f"p{i}", shape) for i, shape in enumerate(draw(st.lists(shapes, min_size=1, max_size=5))))
    choice: dict[str, Slice | None] = {}
    for parameter in layout:
        kind = draw(st.sampled_from(["frozen", "whole", "slice"]))
        if kind == "slice" and parameter.shape:
            axis = draw(st.integers(0, len(parameter.shape) - 1))
            indices = draw(st.sets(st.integers(0, parameter.shape[axis] - 1), min_size=1))
            choice[parameter.name] = Slice(axis, tuple(sorted(indices)))
        elif kind != "frozen":
            choice[parameter.name] = None
    return Subset(layout, choice)


@given(subsets())
def test_positions_pick_what_compact_picks(subset: Subset) -> None:
    vector = np.arange(subset.layout.size, dtype=np.float32)
    compact = subset.compact(subset.layout.views(vector))
    picked = np.concatenate([np.empty(0, np.float32), *(array.reshape(-1) for array in compact.values())])
    assert np.array_equal(vector[subset.positions()], picked)
    assert [array.shape for array in compact.values()] == [subset.shape(name) for name in subset]
    assert len(picked) == subset.size


@given(subsets())
def test_a_subset_survives_json(subset: Subset) -> None:
    layout = Layout.from_json(json.loads(json.dumps(subset.layout.to_json())))
    assert Subset.from_json(layout, json.loads(json.dumps(subset.to_json()))) == subset


@given(subsets())
def test_writing_through_the_selector_touches_the_positions_only(subset: Subset) -> None:
    vector = np.zeros(subset.layout.size, np.float32)
    views = subset.layout.views(vector)
    for name in subset:
        views[name][subset.selector(name)] += 1
    assert set(np.flatnonzero(vector)) == set(subset.positions())
    assert vector.max(initial=0) <= 1


def test_flattening_and_views_are_inverse() -> None:
    layout = Layout([Parameter("a", (2, 3)), Parameter("b", ()), Parameter("c", (4,))])
    vector = np.arange(layout.size, dtype=np.float32)
    assert np.array_equal(layout.flatten(layout.views(vector)), vector)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"b": None}, "'b'"),
        ({"a": Slice(2, (0,))}, "no axis 2"),
        ({"a": Slice(0, (0, 2))}, r"0\.\.1"),
        ({"a": Slice(1, (1, 0))}, "ascending"),
        ({"a": Slice(1, ())}, "distinct"),
    ],
)
def test_a_subset_that_does_not_fit_is_refused_by_name(choice: dict[str, Slice | None], words: str) -> None:
    with pytest.raises(LayoutError, match=words):
        Subset(Layout([Parameter("a", (2, 3))]), choice)


@pytest.mark.parametrize("data", [None, 3, [{}], [{"name": "a", "shape": [0]}], [{"name": "a", "shape": ["x"]}], "ab"])
def test_what_is_no_layout_is_refused(data: object) -> None:
    with pytest.raises(LayoutError):
        Layout.from_json(data)


def test_weights_of_another_shape_are_refused_by_name() -> None:
    layout = Layout([Parameter("a", (2, 3))])
    with pytest.raises(LayoutError, match="'a' must have the shape"):
        layout.flatten({"a": np.zeros((3, 2), np.float32)})
    with pytest.raises(LayoutError, match="lack the parameter 'a'"):
        layout.flatten({})
