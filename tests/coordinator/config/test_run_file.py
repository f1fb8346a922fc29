"""Run files: what is wrong is named, with the remedy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from coordinator.config import Config, load_config, parse_config
from coordinator.errors import ConfigError
from coordinator.store.open import open_store

GOOD: dict[str, Any] = {
    "run": {"name": "digits", "task": "a.b:task"},
    "budgets": {"small": "400KB", "large": 2_000_000},
}


def test_the_defaults_serve_this_machine_alone() -> None:
    config = parse_config(GOOD, Path("here"))
    assert config.server.host == "127.0.0.1"
    assert config.budgets == {"small": 400_000, "large": 2_000_000}
    assert config.run.state == Path("here/state")
    assert config.planning.mode == "nested"
    assert config.merge.rule == "holders"
    assert config.merge.staleness.policy == "polynomial"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"budgets": {}}, "budgets"),
        ({"planning": {"mode": "random"}}, r"planning\.mode"),
        ({"planning": {"selector": "best"}}, r"planning\.selector.*contribution"),
        ({"planning": {"plans": "plans", "selector": "fisher"}}, "leave those out, or leave plans out"),
        ({"budgets": {"small": "lots"}}, r"budgets\.small: 'lots' is not a size; write it like 400KB"),
        ({"budgets": {"small": "0KB"}}, r"budgets\.small"),
        ({"run": {"name": "../x", "task": "a:b"}}, r"run\.name"),
        ({"run": {"name": "digits", "task": "no-colon"}}, r"run\.task"),
        ({"run": {"name": "digits"}}, r"run\.task: it is missing"),
        ({"merge": {"bufer": 3}}, r"merge\.bufer: there is no such key; did you mean 'buffer'\?"),
        ({"merge": {"staleness": {"exponnt": 3}}}, r"did you mean 'exponent'\?"),
        ({"sever": {"port": 3}}, r"sever: there is no such key; did you mean 'server'\?"),
        ({"stop": {"quite_another": 3}}, r"stop has goal, accuracy, versions, updates, seconds"),
        ({"merge": {"buffer": 0}}, r"merge\.buffer"),
        ({"merge": {"staleness": {"policy": "magic"}}}, r"merge\.staleness\.policy"),
        ({"stop": {"accuracy": 95}}, r"stop\.accuracy"),
        ({"stop": {"goal": 2}, "evaluation": {"metric": "mae"}}, r"'mae': set evaluation\.minimise to true"),
        ({"training": {"learning_rate": -1}}, r"training\.learning_rate"),
        ({"server": {"host": "0.0.0.0"}}, "certificate"),
        ({"server": {"host": "0.0.0.0", "insecure": True, "open_enrolment": True}}, "let anybody in"),
        ({"server": {"certificate": "a.pem"}}, "private_key"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_config(GOOD | change, Path())


def test_an_open_server_with_tls_and_a_token_is_allowed() -> None:
    server = {"host": "0.0.0.0", "certificate": "a.pem", "private_key": "b.pem", "token": "t"}
    config = parse_config(GOOD | {"server": server}, Path("here"))
    assert config.server.certificate == Path("here/a.pem")


def test_off_loopback_devices_need_a_token_even_where_the_file_has_none() -> None:
    assert parse_config(GOOD | {"server": {"host": "0.0.0.0", "insecure": True}}, Path()).server.needs_token
    assert not parse_config(GOOD, Path()).server.needs_token
    assert parse_config(GOOD | {"server": {"token": "t"}}, Path()).server.needs_token


def test_every_key_is_in_the_documentation() -> None:
    table = (Path(__file__).parents[3] / "docs" / "reference" / "run-file.md").read_text()

    def keys(model: type[BaseModel]) -> Iterator[str]:
        for name, field in model.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from keys(kind)
            else:
                yield name

    missing = [name for name in keys(Config) if f"`{name}`" not in table and f".{name}`" not in table]
    assert [name for name in missing if name != "budgets"] == []


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[run\n")
    with pytest.raises(ConfigError, match=r"bad\.toml is not TOML"):
        load_config(tmp_path / "bad.toml")


def test_objects_belong_to_a_database_and_no_message_has_its_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'store: objects is for runs in a database: give postgres = "postgresql'):
        parse_config(GOOD | {"store": {"objects": "s3://bucket"}}, Path())
    config = parse_config(GOOD | {"store": {"postgres": "postgresql://ftte:hidden@db/ftte", "objects": "o"}}, Path("x"))
    assert config.store.objects == "x/o"
    assert "hidden" not in repr(config) + str(config.model_dump())
    (tmp_path / "run.toml").write_text("[store]\npostgres = postgresql://ftte:hidden@db/ftte\n")
    with pytest.raises(ConfigError, match="a text needs quotes") as raised:
        load_config(tmp_path / "run.toml")
    assert "hidden" not in str(raised.value)


def test_a_variable_that_the_environment_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FTTE_NO_SUCH", raising=False)
    config = parse_config(GOOD | {"store": {"postgres": "$FTTE_NO_SUCH"}}, tmp_path)
    with pytest.raises(ConfigError, match=r"store\.postgres = '\$FTTE_NO_SUCH': the environment has no variable"):
        open_store(config)


def numbers(model: type[BaseModel] = Config, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys of a run file that take fractions."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from numbers(field.annotation, (*prefix, name))
        elif "float" in str(field.annotation):
            yield *prefix, name


@pytest.mark.parametrize("key", list(numbers()), ids=".".join)
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_no_number_of_a_run_file_is_infinite_or_not_a_number(key: tuple[str, ...], value: float) -> None:
    table: Any = value
    for part in reversed(key):
        table = {part: table}
    with pytest.raises(ConfigError, match=rf"{key[-1]}: {value} is not "):
        parse_config(GOOD | table, Path())
