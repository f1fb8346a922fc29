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
