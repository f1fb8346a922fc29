"""What of a device's report is kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.updates.validation import most_bytes, plain_report
from mobile_sdk import safetensors
from mobile_sdk.layout import Layout, Parameter, Subset
from mobile_sdk.payload import UpdateFormat, encode_update

PACKINGS = [UpdateFormat(dtype, top_k) for dtype in ("float32", "float16", "int8", "int4") for top_k in (1.0, 0.3)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_known_numbers_are_kept_and_nothing_else() -> None:
    report = {"samples": 3, "loss": 0.5, "steps": True, "seconds": float("nan"), "name": "Ann", "metrics": {"a": 1}}
    assert plain_report(report) == {"samples": 3, "loss": 0.5, "metrics": {"a": 1}}


def test_a_report_cannot_fill_the_database() -> None:
    assert plain_report({"metrics": {f"m{number}": 1.0 for number in range(1000)}}) == {"metrics": {}}
    assert plain_report({"metrics": {"x" * 65: 1.0, "line\nbreak": 1.0, "good": 1.0}}) == {"metrics": {"good": 1.0}}


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw of a text builds tables of all characters
@given(st.dictionaries(st.sampled_from(["samples", "loss", "metrics", "personal_metrics", "other"]), JSON))
def test_whatever_is_reported_only_finite_numbers_come_out(report: dict[str, object]) -> None:
    for name, value in plain_report(report).items():
        numbers = value.values() if isinstance(value, dict) else [value]
        assert name != "other"
        assert all(isinstance(number, int | float) and abs(number) < 2**63 for number in numbers)


@pytest.mark.parametrize("packing", PACKINGS, ids=str)
@pytest.mark.parametrize("shapes", [[(1,)] * 3_000, [(512, 1)] * 500, [(3, 1, 1)] * 1_000, [(40, 30)]])
def test_an_honest_update_is_never_too_large_whatever_the_model(
    packing: UpdateFormat, shapes: list[tuple[int, ...]]
) -> None:
    layout = Layout([Parameter(f"blocks.{i}.a_long_name.weight", shape) for i, shape in enumerate(shapes)])
    subset = Subset.whole(layout, [p.name for p in layout])
    tier: Any = SimpleNamespace(manifest=SimpleNamespace(subset=subset), update_bytes=4 * layout.size)
    rng = np.random.default_rng(0)
    update = {p.name: rng.standard_normal(p.shape).astype(np.float32) for p in layout}
    assert len(safetensors.dumps(*encode_update(update, packing, 1))) <= most_bytes(tier)
