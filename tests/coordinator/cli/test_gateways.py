"""Gateways and conductors say in a sentence what they need to find each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.cli.main import main

RUN = '[run]\nname = "digits"\ntask = "a.b:c"\n[budgets]\nall = 1\n'


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, settings: str, *command: str) -> str:
    """What a command says on standard error, that cannot begin with these settings."""
    (folder / "run.toml").write_text(RUN + settings)
    assert main([*command, str(folder / "run.toml")]) == 1
    return " ".join(capsys.readouterr().err.split())


def test_a_gateway_has_to_know_where_its_conductor_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give --socket PATH" in refusal(capsys, tmp_path, "", "gateway")
    secret = tmp_path / "s"
    secret.touch(mode=0o600)
    secret.write_text("x" * 32)
    said = refusal(capsys, tmp_path, '[gateways]\nsecret = "s"\n', "gateway")
    assert 'conductor = "HOST:PORT"' in said
    assert "x" * 32 not in said


def test_a_conductor_has_to_know_where_gateways_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere to wait for gateways" in refusal(capsys, tmp_path, "", "conduct")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('listen = "0.0.0.0:8770"\n', "need a secret that both sides have"),
        ('address = "here:8770"\n', "give listen as well"),
        ('listen = "8770"\nsecret = "s"\n', "write host:port"),
        ('listen = "127.0.0.1:0"\nsecret = "s"\n', "there is no file"),
    ],
)
def test_settings_that_let_nobody_in_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: str, words: str
) -> None:
    assert words in refusal(capsys, tmp_path, f"[gateways]\n{settings}", "conduct")


@pytest.mark.parametrize("address", ["8771", "here", "http://here:1"])
def test_a_page_about_a_process_is_at_a_host_and_a_port(capsys: pytest.CaptureFixture[str], address: str) -> None:
    with pytest.raises(SystemExit):
        main(["gateway", "run.toml", "--health", address])
    assert "is not HOST:PORT" in capsys.readouterr().err


def test_a_load_balancer_is_named_by_an_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, tmp_path, '[server]\nproxies = ["balancer.example.org"]\n', "gateway")
    assert "server.proxies" in said
    assert "balancer.example.org" in said
