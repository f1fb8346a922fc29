"""The demo's loop in small: two terminals, several devices, real data."""

from __future__ import annotations

import json

import numpy as np

from mobile_sdk.safetensors import loads

from .conftest import Site

SETTINGS = """
[training]
epochs = 2
learning_rate = 0.05
momentum = 0.5
[merge]
buffer = 2
[stop]
versions = 24
"""


def test_devices_of_several_tiers_train_one_model(site: Site) -> None:
    """Serve, join, train, merge, end: with the figures that the summary promises."""
    server = site.serve(SETTINGS)
    small = str(site.query("SELECT budget_bytes FROM tiers WHERE name = 'small'")[0][0])
    devices = [
        site.device("phone-1", 0),
        site.device("phone-2", 1),
        site.device("watch-1", 2, "--budget", small),
        site.device("old-watch-1", 3, "--budget", small, "--step-time", "0.01", "--engine", "interpreted"),
    ]
    assert server.wait() == 0
    assert [device.wait() for device in devices] == [0, 0, 0, 0]

    # A device holds what its own engine runs, that it has checked it, and nothing else.
    files = {
        name: {path.name for path in (site.folder / name).glob("programs/*/*")} for name in ("watch-1", "old-watch-1")
    }
    assert files["watch-1"] == {"manifest.json", "manifest.sig", "program.pte", "self-check.json"}
    assert files["old-watch-1"] == {"manifest.json", "manifest.sig", "graph.safetensors", "self-check.json"}

    summary = site.summary()
    assert summary["versions"] == 24
    assert summary["updates_merged"] == 48 == sum(summary["staleness"].values())
    assert summary["accuracy"] > summary["initial_accuracy"] + 0.2
    by_name = {device["id"]: device for device in summary["devices"]}
    assert {by_name[name]["tier"] for name in ("phone-1", "phone-2")} == {"large"}
    assert {by_name[name]["tier"] for name in ("watch-1", "old-watch-1")} == {"small"}
    for device in summary["devices"]:
        assert device["torch_loaded"] is False
        assert 0 < device["peak_rss_bytes"] <= 60e6
        assert 0 < device["measured_bytes"] <= device["budget_bytes"]
    assert sum(device["updates"] for device in summary["devices"]) >= 48
    assert summary["bytes_up"] == sum(device["bytes_up"] for device in summary["devices"]) > 0

    # A trip of the small tier sends its subset only.
    assert by_name["watch-1"]["bytes_up"] / by_name["watch-1"]["updates"] < 4 * summary["parameters"] / 2

    weights, metadata = loads((site.state / "weights.safetensors").read_bytes())
    assert metadata == {"version": "24"}
    assert sum(array.size for array in weights.values()) == summary["parameters"]
    assert all(np.isfinite(array).all() for array in weights.values())


def test_a_run_that_has_ended_says_so_to_latecomers_and_is_not_trained_again(site: Site) -> None:
    server = site.serve("[merge]\nbuffer = 1\n[stop]\nversions = 1\n")
    assert site.device("phone-1", 0).wait() == 0
    assert server.wait() == 0
    again = site.serve("[merge]\nbuffer = 1\n[stop]\nversions = 1\n")
    assert again.wait() == 0
    assert json.loads((site.state / "summary.json").read_text())["versions"] == 1


def test_a_run_with_a_time_limit_ends_while_updates_keep_coming(site: Site) -> None:
    server = site.serve("[merge]\nbuffer = 1\n[stop]\nseconds = 4\n")
    devices = [site.device(f"phone-{i}", i) for i in range(2)]
    assert server.wait() == 0
    assert [device.wait() for device in devices] == [0, 0]
    summary = site.summary()
    assert summary["ended"] == "4 s are over"
    assert summary["versions"] >= 1


def test_a_device_whose_training_diverges_says_so_and_comes_back_later(site: Site) -> None:
    """The operator may mend the run meanwhile."""
    server = site.serve("[training]\nlearning_rate = 1e12\n[scheduling]\nretry_seconds = 0.2\n[stop]\nseconds = 60\n")
    device = site.device("phone-1", 0)
    device.wait_for(r"3 assignments in a row failed: .*lower the learning rate; coming back in \d+")
    device.stop()
    assert site.query("SELECT count(*) FROM updates") == [(0,)]
    server.stop()
