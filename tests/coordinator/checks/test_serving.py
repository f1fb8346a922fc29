"""What serve and doctor find out without a task: ports, folders, run files that collide."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest

from coordinator.admin.folder_check import check_admin_folder
from coordinator.admin.server import claim_admin_folder
from coordinator.checks.findings import Finding, raise_first_error
from coordinator.checks.fleet import check_together
from coordinator.checks.machine import check_disk, check_port
from coordinator.config import AdminSection, Config, ServerSection, parse_config
from coordinator.errors import ConfigError


def config(folder: Path, name: str = "a", state: str = "state", **more: Any) -> Config:
    return parse_config(
        {"run": {"name": name, "task": "m:t", "state": state}, "budgets": {"all": "1MB"}} | more, folder
    )


def sentences(findings: Any, level: str = "error") -> list[str]:
    return [finding.sentence for finding in findings if finding.level == level]


def test_a_port_in_use_is_named_and_a_free_one_is_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        (sentence,) = sentences(check_port(ServerSection(port=port)))
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use; stop what uses it, or set" in sentence
    assert sentences(check_port(ServerSection(port=port))) == []
    assert sentences(check_port(ServerSection(port=0))) == []


def test_a_host_that_this_machine_has_not_is_named() -> None:
    section = ServerSection(host="no-such-host.invalid", insecure=True)
    assert "is no address of this machine" in sentences(check_port(section))[0]
    assert "cannot listen on 192.0.2.1" in sentences(check_port(ServerSection(host="192.0.2.1", insecure=True)))[0]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"name": "a", "state": "b"}, "have the same run.name 'a'"),
        ({"name": "b"}, "keep their runs in the same state directory"),
        ({"name": "b", "state": "b", "server": {"port": 9}}, r"different \[server\]"),
    ],
    ids=["name", "state", "server"],
)
def test_run_files_that_cannot_be_served_together(tmp_path: Path, second: dict[str, Any], words: str) -> None:
    both = {Path("a.toml"): config(tmp_path, server={"port": 8}), Path("b.toml"): config(tmp_path, **second)}
    (sentence,) = sentences(check_together(both))
    assert sentence.startswith("a.toml and b.toml ")
    assert re.search(words, sentence)


def test_an_admin_folder_in_use_is_an_error_and_looking_leaves_nothing(tmp_path: Path) -> None:
    section = AdminSection(folder=tmp_path / ".ftte")
    assert sentences(check_admin_folder(section)) == []
    assert not section.folder.exists()
    with claim_admin_folder(section):
        assert "another coordinator uses" in sentences(check_admin_folder(section))[0]


def test_a_state_directory_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    assert "is no folder that can be written" in sentences(check_disk(config(tmp_path)))[0]


def test_the_first_error_ends_it_and_warnings_are_given() -> None:
    findings = [Finding("ok", "a"), Finding("warning", "b"), Finding("error", "c"), Finding("error", "d")]
    assert raise_first_error(findings[:2]) == ["b"]
    with pytest.raises(ConfigError, match=r"^c$"):
        raise_first_error(findings)
