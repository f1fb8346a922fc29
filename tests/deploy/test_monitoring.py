"""The Grafana board and the alert rules ask for what the coordinator exposes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import CounterMetricFamily, Metric

from coordinator.admin.metrics import metric_families
from coordinator.config import ServerSection
from coordinator.net.admission import ConnectionLimits
from coordinator.runs.service import Service

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs apt-get install prometheus")


def exposed() -> set[str]:
    """The names of all that is scraped, as Prometheus stores them."""

    def name(family: Metric) -> str:
        return f"{family.name}_total" if isinstance(family, CounterMetricFamily) else str(family.name)

    return {name(family) for family in metric_families(Service(ServerSection()), ConnectionLimits(1, 1, 1))}


def board_expressions() -> Iterator[str]:
    board: dict[str, Any] = json.loads((MONITORING / "grafana.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def asked(text: str) -> set[str]:
    return set(re.findall(r"\bftte_[a-z_]+", text))


def test_the_board_asks_for_nothing_that_is_not_exposed() -> None:
    expressions = list(board_expressions())
    assert len(expressions) > 12
    assert set().union(*(asked(each) for each in expressions)) <= exposed()


def test_the_board_shows_everything_that_is_exposed() -> None:
    assert exposed() <= set().union(*(asked(each) for each in board_expressions()))


def test_the_alerts_ask_for_nothing_that_is_not_exposed() -> None:
    assert asked((MONITORING / "alerts.yml").read_text()) <= exposed()


def test_panels_of_the_board_do_not_overlap() -> None:
    board: dict[str, Any] = json.loads((MONITORING / "grafana.json").read_text())
    cells: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in board["panels"]):
        mine = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not mine & cells
        assert place["x"] + place["w"] <= 24
        cells |= mine


@needs_promtool
def test_prometheus_understands_the_alerts_and_the_boards_expressions(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": each.replace("$run", ".+")}
        for number, each in enumerate(board_expressions())
    ]
    (tmp_path / "board.yml").write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
    command = ["promtool", "check", "rules", str(tmp_path / "board.yml"), str(MONITORING / "alerts.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_every_alert_fires_on_what_it_is_for() -> None:
    text = (MONITORING / "alerts_test.yml").read_text()
    for name in re.findall(r"- alert: (\w+)", (MONITORING / "alerts.yml").read_text()):
        assert re.search(rf"alertname: {name}\n +exp_alerts:\n +- exp_labels", text), name
    command = ["promtool", "test", "rules", "alerts_test.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=MONITORING)
    assert done.returncode == 0, done.stdout + done.stderr
