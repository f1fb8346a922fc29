"""The kept results of the comparison with the paper stay readable, and belong to the runs that made them."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.paper.kept import KeptResult, KeptResults
from benchmarks.paper.runs import Paper, Run, grid, trials

# Each result was a file of its own once: its key, and the SHA-256 of that file.
FIRST = dict(line.split() for line in (Path(__file__).parent / "first_results.txt").read_text().splitlines())
# Trials of a setting that the scenario has not any more.
SUPERSEDED = {"757afcb205000a932b38", "94c29fa97519cd829f9b", "997a3239b40b1e9014cb"}


@pytest.fixture(scope="module")
def kept() -> KeptResults:
    return KeptResults()


def result(accuracy: float = 0.5, **changes: Any) -> dict[str, Any]:
    point = {"metrics": {"accuracy": accuracy}}
    plain = {"run": "paper", "seconds": 1.0, "bytes_up": 2, "bytes_down": 3, "scenario_sha256": "0" * 64}
    return plain | {"curve": [point]} | changes


def test_every_first_result_is_found_under_its_key_to_the_byte(kept: KeptResults) -> None:
    assert len(FIRST) == 157
    for key, sha256 in FIRST.items():
        text = json.dumps(kept.find(key), indent=1) + "\n"
        assert hashlib.sha256(text.encode()).hexdigest() == sha256, key


def test_the_settings_of_a_kept_run_still_have_its_key(kept: KeptResults) -> None:
    paper = Paper(kept=kept)
    others = set()
    for one in kept:
        if isinstance(one.result["run"], dict):
            run = Run(**one.result["run"])
            today = one.result.get("backbone_sha256") == paper.backbone
            if one.key != (paper.key(run) if today else paper.key_without_backbone(run)):
                others.add(one.key)
    assert len(kept) > 140
    assert others == SUPERSEDED


def test_a_result_that_began_with_another_backbone_is_found_only_where_it_will_do(tmp_path: Path) -> None:
    paper = Paper(kept=KeptResults(tmp_path / "results.jsonl.gz"))
    run = next(iter(grid(paper, quick=True, rates={})))
    paper.kept.add(KeptResult(paper.key_without_backbone(run), run.part, run.algorithm, result(0.25)))
    assert paper.result(run, only_done=True, older=False) is None
    found = paper.result(run, only_done=True)
    assert found is not None
    assert found["curve"] == result(0.25)["curve"]
    paper.kept.add(KeptResult(paper.key(run), run.part, run.algorithm, result(0.75)))
    found = paper.result(run, only_done=True)
    assert found is not None
    assert found["curve"] == result(0.75)["curve"]


def test_nothing_of_the_headline_the_curve_and_the_grid_has_to_run_again(kept: KeptResults) -> None:
    paper = Paper(kept=kept)
    report = json.loads((kept.path.parent / "ftte_paper.json").read_text())
    runs = [*grid(paper, quick=False, rates=report["learning_rates"]), *(run for *_, run in trials(paper, quick=False))]
    found = Counter(run.part for run in runs if paper.result(run, only_done=True) is not None)
    wanted = Counter(run.part for run in runs)
    assert {part: wanted[part] - found[part] for part in ("headline", "curve", "grid", "tuning", "concurrency")} == {
        "headline": 0,
        "curve": 0,
        "grid": 0,
        "tuning": 0,
        "concurrency": 0,
    }
    assert found.total() >= 154


def test_the_index_is_that_of_the_table(kept: KeptResults) -> None:
    assert kept.index.read_text() == kept.index_text(kept)


def test_an_added_result_is_there_for_others_and_the_rest_stays(tmp_path: Path) -> None:
    table = tmp_path / "some" / "results.jsonl.gz"
    first, second = KeptResults(table), KeptResults(table)
    assert first.find("a") is None
    assert len(second) == 0
    first.add(KeptResult("a", "grid", "fedavg", result(0.25)))
    second.add(KeptResult("b", "grid", "ours", result(0.75)))  # has not seen a yet
    assert {one.key for one in KeptResults(table)} == {"a", "b"}
    assert KeptResults(table).find("a") == result(0.25)
    rows = (tmp_path / "some" / "results.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows] == ["algorithm", "fedavg", "ours"]
    assert "0.2500" in rows[1]


def test_a_result_may_be_made_anew(tmp_path: Path) -> None:
    kept = KeptResults(tmp_path / "results.jsonl.gz")
    kept.add(KeptResult("a", "grid", "fedavg", result(0.25)))
    kept.add(KeptResult("a", "grid", "fedavg", result(0.5)))
    assert [one.result for one in KeptResults(kept.path)] == [result(0.5)]


def test_the_same_results_make_the_same_file(tmp_path: Path) -> None:
    for name, order in (("x", "ab"), ("y", "ba")):
        kept = KeptResults(tmp_path / f"{name}.jsonl.gz")
        for key in order:
            kept.add(KeptResult(key, "grid", "fedavg", result()))
    assert (tmp_path / "x.jsonl.gz").read_bytes() == (tmp_path / "y.jsonl.gz").read_bytes()


ADDS_FOR_EVER = """
import sys
from pathlib import Path
from benchmarks.paper.kept import KeptResult, KeptResults
from tests.benchmarks.test_kept_results import result
kept = KeptResults(Path(sys.argv[1]))
for number in range(10**9):
    kept.add(KeptResult(f"{sys.argv[2]}{number}", "grid", "fedavg", result(filler="x" * 100_000)))
    print(number, flush=True)
"""


def test_results_of_two_processes_that_are_killed_while_they_write_are_all_there(tmp_path: Path) -> None:
    table = tmp_path / "results.jsonl.gz"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", ADDS_FOR_EVER, str(table), name], stdout=subprocess.PIPE, text=True, env=environment
        )
        for name in "ab"
    ]
    told = []
    for name, writer in zip("ab", writers, strict=True):
        assert writer.stdout is not None
        told += [name + writer.stdout.readline().strip() for _ in range(10)]
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()
    with gzip.open(table, "rt") as file:
        keys = {json.loads(line)["key"] for line in file}
    assert set(told) <= keys
