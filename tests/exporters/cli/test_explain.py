"""Every layer says what was trained of it, what it became, and its estimated share of a step."""

from __future__ import annotations

import pytest

from exporters import Plan, Task
from exporters.cli.explain import explain
from mobile_sdk.layout import Slice, Subset


def test_shares_add_up_and_layers_stand_in_the_order_in_which_they_run(tiny: Task) -> None:
    layers = explain(tiny, Plan.everything(tiny))
    assert sum(layer.share for layer in layers) == pytest.approx(1)
    names = [layer.name for layer in layers]
    assert names.index("0") < names.index("3")
    assert "loss, metrics, masks" in names
    assert {layer.name: layer.trained for layer in layers}["0"] == "whole"


def test_what_is_frozen_sliced_or_baked_is_said(tiny: Task) -> None:
    subset = Subset(tiny.layout, {"3.weight": Slice(1, tuple(range(0, 144, 3)))})
    by_name = {layer.name: layer for layer in explain(tiny, Plan(subset, 4))}
    assert (by_name["0"].trained, by_name["3"].trained) == ("frozen", "48 of 144 on axis 1")
    baked = {layer.name: layer for layer in explain(tiny, Plan(subset, 4, baked=("0.weight", "0.bias")))}
    assert baked["0"].trained == "baked"
    assert "baked convolution" in baked["0"].lowered


def test_less_is_moved_for_a_layer_that_is_not_trained(tiny: Task) -> None:
    whole = {layer.name: layer for layer in explain(tiny, Plan.everything(tiny))}
    last = Plan(Subset.whole(tiny.layout, ["3.weight", "3.bias"]), 4)
    frozen = {layer.name: layer for layer in explain(tiny, last)}
    assert frozen["0"].moved_bytes < whole["0"].moved_bytes
    assert frozen["0"].weight_bytes == whole["0"].weight_bytes > 0
