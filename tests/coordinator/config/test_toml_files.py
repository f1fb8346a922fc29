"""Mistakes in run files and scenarios are told in our own words, with what may have been meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator.config import load_config, parse_config
from coordinator.errors import ConfigError
from coordinator.simulation.world.scenario import load_scenario

RUN = '[run]\nname = "a"\ntask = "m:t"\n[budgets]\nall = "1MB"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (RUN.replace('"m:t"', '"gait"'), "run.task: 'gait' is not possible: write package.module:task"),
        (RUN.replace('"a"', '"a b"'), "run.name: 'a b' is not possible: use at most 64 letters"),
        (RUN.replace('"a"', "gait"), "line 2, column 8): 'name = gait'; a text needs quotes"),
        (RUN + "[merge]\nbufer = 3", "merge.bufer: there is no such key; did you mean 'buffer'?"),
        (RUN + "[merge]\nbuffer = 0", "merge.buffer: 0 is not possible: it must be at least 1"),
        (RUN + '[merge]\nbuffer = "many"', "merge.buffer: "),
        (RUN + "[merge]\nlearning_rate = inf", "merge.learning_rate: inf is not possible: it must be finite"),
        (
            RUN + '[merge]\nrule = "fixed-k"',
            "merge.rule: 'fixed-k' is not possible: use 'holders', 'fixed-K', 'trimmed-mean', ",
        ),
        (
            RUN + "[simulation]\ndevices = 3",
            "simulation: a run file has no such section: this is a scenario, for",
        ),
        (RUN.replace('name = "a"\n', ""), "run.name: it is missing: add `name = ...` to [run], a text in quotes"),
        ("", "run: it is missing: add the section [run] with name, task"),
        (RUN + '[planning]\nselector = "fischer"', "did you mean 'fisher'?"),
    ],
)
def test_a_run_file_in_our_own_words(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)
    for library in ("String should", "Input should", "Extra inputs", "pattern '"):
        assert library not in str(caught.value)


def test_a_key_of_a_class_of_devices_is_suggested(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(
        f'{RUN}[simulation]\ndevices = 2\n[data]\nsource = "m:d"\n[devices.watch]\nmemory = "1MB"\nslowdwn = 3\n'
    )
    with pytest.raises(ConfigError, match=r"devices\.watch\.slowdwn: there is no such key; did you mean 'slowdown'\?"):
        load_scenario(file)


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ('[devices.watch]\nmemory = "1MB"\n', "devices: it is missing: add the section [devices.NAME] with memory"),
        ("devices = 2\n", "simulation.devices: it is missing: add `devices = ...` to [simulation], a whole number"),
        ('memory = "1MB"\n', "devices.watch.memory: it is missing: add `memory = ...` to [devices.watch]"),
    ],
)
def test_what_is_missing_of_a_scenario_is_said_with_where_to_add_it(tmp_path: Path, gone: str, words: str) -> None:
    file = tmp_path / "scenario.toml"
    whole = f'{RUN}[simulation]\ndevices = 2\n[data]\nsource = "m:d"\n[devices.watch]\nmemory = "1MB"\n'
    assert gone in whole
    file.write_text(whole.replace(gone, ""))
    with pytest.raises(ConfigError) as caught:
        load_scenario(file)
    assert words in str(caught.value)


def test_plans_of_a_scenario_are_beside_its_file(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(
        f'{RUN}[planning]\nplans = "plans"\n[simulation]\ndevices = 2\n[data]\nsource = "m:d"\n'
        '[devices.watch]\nmemory = "1MB"\n'
    )
    assert load_scenario(file).config(Path("/elsewhere")).planning.plans == tmp_path / "plans"


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        ("training.epochs=7", ("training", "epochs"), 7),
        ("merge.rule=fixed-K", ("merge", "rule"), "fixed-K"),
        ('merge.rule="fixed-K"', ("merge", "rule"), "fixed-K"),
        ("training.learning_rate=0.5", ("training", "learning_rate"), 0.5),
        ("budgets.all=2MB", ("budgets",), {"all": 2_000_000}),
        ("merge.staleness.policy=constant", ("merge", "staleness", "policy"), "constant"),
    ],
)
def test_a_setting_of_the_command_line_is_in_place_of_the_files(
    tmp_path: Path, words: str, path: tuple[str, ...], value: Any
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(RUN)
    found: Any = load_config(file, [words])
    for part in path:
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize("words", ["buffer", "=3", "merge.=3", "run.name.x=3"])
def test_a_malformed_setting_is_answered_with_its_form(tmp_path: Path, words: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(RUN)
    with pytest.raises(ConfigError, match=f"--set {words}"):
        load_config(file, [words])


def test_data_that_are_checked_from_a_program_have_the_same_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the run file: budgets: it is missing"):
        parse_config({"run": {"name": "a", "task": "m:t"}}, tmp_path)


def test_a_value_that_is_very_long_is_shown_in_part() -> None:
    with pytest.raises(ConfigError, match="use at most 64 letters") as refused:
        parse_config({"run": {"name": "n" * 300, "task": "a:b"}}, Path())
    assert len(str(refused.value)) < 250
