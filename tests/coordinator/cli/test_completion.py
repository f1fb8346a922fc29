"""Completion, asked of the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from coordinator.cli.main import GROUPS, main


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def complete(file: Path, *words: str) -> set[str]:
    """What bash offers for the last of the words."""
    line = " ".join(f"'{word}'" for word in ("ftte", *words))
    ask = f'COMP_WORDS=({line}); COMP_CWORD={len(words)}; _ftte; printf "%s\\n" "${{COMPREPLY[@]}}"'
    shown = subprocess.run(
        ["bash", "-c", f"source {file}; {ask}"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    return set(shown.stdout.split())


def test_bash_completes_commands_actions_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ftte.bash"
    file.write_text(script("bash", capsys))
    assert {name for names in GROUPS.values() for name in names} <= complete(file, "")
    assert complete(file, "dev") == {"devices"}
    assert complete(file, "devices", "") >= {"classes", "revoke", "withdraw", "--run", "--json"}
    assert complete(file, "--verbose", "serve", "--st") == {"--stay"}
    assert complete(file, "serve", "run.t") == set()  # the shell's own: files


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_take_the_script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(shell, capsys)
    for names in GROUPS.values():
        for name in names:
            assert f" {name}" in text
    if shutil.which(shell) is None:
        pytest.skip(f"needs the shell itself: apt-get install {shell}")
    file = tmp_path / "ftte"
    file.write_text(text)
    subprocess.run([shell, "-c", f"source {file}"], check=True, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)})


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs the shell itself: apt-get install zsh")
def test_zsh_completes_where_its_own_completions_are_not_on_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ftte"
    file.write_text(script("zsh", capsys))
    ask = f"source {file}; COMP_WORDS=(ftte devices ''); COMP_CWORD=2; compgen -F _ftte -- ''"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    shown = subprocess.run(["zsh", "-f", "-c", ask], capture_output=True, text=True, check=True, env=environment)
    assert set(shown.stdout.split()) >= {"classes", "revoke", "withdraw", "--run", "--json"}
    assert shown.stderr == ""


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs the shell itself: apt-get install fish")
def test_fish_completes_commands_actions_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ftte.fish"
    file.write_text(script("fish", capsys))

    def complete(line: str) -> set[str]:
        command = ["fish", "--no-config", "-c", f'source {file}; complete -C "{line}"']
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
        return {row.partition("\t")[0] for row in shown.stdout.splitlines()}

    assert complete("ftte dev") == {"devices"}
    assert complete("ftte devices ") >= {"classes", "revoke", "withdraw"}
    assert complete("ftte serve --st") == {"--stay"}
