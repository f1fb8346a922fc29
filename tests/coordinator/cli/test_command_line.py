"""What every command has in common: help, mistakes, errors, JSON, and an output that somebody closes."""

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.cli.main import GROUPS, main

from ..small_run import make_run

FTTE = Path(sys.executable).with_name("ftte")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """A command in a folder of its own; exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FTTE_ADMIN", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(list(arguments))
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """The packages that every command has imported when it begins."""
    code = "import coordinator.cli.main, sys; print(*sys.modules)"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return {name.partition(".")[0] for name in names}


def test_the_help_says_where_to_start_and_lists_every_command_once(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert out.index("Start here") < out.index("  doctor ") < out.index("Serve runs") < out.index("serve  ")
    for names in GROUPS.values():
        for name in names:
            assert out.count(f"\n  {name} ") == 1, name


@pytest.mark.parametrize("command", [name for names in GROUPS.values() for name in names])
def test_every_command_describes_itself(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    usage, _, rest = out.partition("\n\n")
    assert usage.startswith(f"usage: ftte {command}")
    assert rest.partition("\n\n")[0].strip().endswith("."), "a sentence"


@pytest.mark.parametrize("package", ["aiohttp", "executorch", "pydantic", "scipy", "segno", "sqlite3", "torch"])
def test_a_command_starts_without_what_only_others_need(package: str, imported: set[str]) -> None:
    """People wait for it at each command, and completion at each press of a key."""
    assert package not in imported


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["export-model", "run.toml", "-o", "x.pt"],
            "ftte export-model: 'run.toml' is not among what it takes (see ftte export-model --help)",
        ),
        (["srve"], "ftte: there is no command 'srve'; did you mean 'serve'? (see ftte --help)"),
        (
            ["invite", "--uses", "many"],
            "ftte invite: --uses: 'many' is no number of devices; give at least 1, or 'any'",
        ),
        (["invite", "--valid", "long"], "ftte invite: --valid: 'long' is no time; write it like 90m, 12h or 7d"),
        (["rollback", "last"], "ftte rollback: VERSION: 'last' is no whole number"),
        (["doctor"], "ftte doctor: give RUN.toml"),
        (["runs", "stop"], "ftte runs: there is no action 'stop'; "),
    ],
)
def test_a_wrong_command_line_is_one_sentence_on_standard_error(run: Run, arguments: list[str], words: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(words)
    assert err.count("\n") == 1


def test_errors_go_to_standard_error_in_one_line_and_as_json_where_that_was_asked_for(run: Run) -> None:
    code, out, err = run("runs")
    assert (code, out) == (1, "")
    assert err.startswith("ftte: no coordinator runs with the admin folder ")
    assert err.count("\n") == 1
    code, out, err = run("runs", "--json")
    assert (code, out) == (1, "")
    assert list(json.loads(err)) == ["error"]


def test_certificates_backups_and_restored_states_are_told_as_json(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("certificate", "localhost", "--json")
    made = json.loads(out)
    assert (code, made["names"], len(made["sha256"])) == (0, ["localhost"], 64)
    assert (tmp_path / made["private_key"]).exists()
    code, out, err = run("certificate", "localhost", "--json")
    assert (code, out, list(json.loads(err))) == (1, "", ["error"])

    make_run(tmp_path).store.close()
    code, out, _ = run("backup", "state", "run.tar", "--json")
    saved = json.loads(out)
    assert (code, saved) == (
        0,
        {"archive": "run.tar", "state": "state", "bytes": (tmp_path / "run.tar").stat().st_size},
    )
    code, out, err = run("backup", "state", "run.tar", "--json")
    assert (code, out, "run.tar" in json.loads(err)["error"]) == (1, "", True)
    code, out, _ = run("restore", "run.tar", "again", "--json")
    assert (code, json.loads(out)) == (0, {"archive": "run.tar", "state": "again"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["backup", "state", "run.tar"], "saving files of state: "),
        (["restore", "kept.tar", "again"], "restoring again, in KB: "),
        (["verify-log", "state"], "making versions of state anew: 0 of 0"),
    ],
)
def test_long_work_on_a_state_is_a_line_in_a_pipe_and_none_beside_json(
    run: Run, tmp_path: Path, arguments: list[str], words: str
) -> None:
    make_run(tmp_path).store.close()
    assert run("backup", "state", "kept.tar")[0] == 0
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    json.loads(out)
    for made in ("run.tar", "again"):
        path = tmp_path / made
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith(words)


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "no_such_module:task", "-o", "out"],
        ["plan", "no_such_module:task", "--budgets", "1MB", "-o", "out"],
        ["plan", "no_such_module:task", "--budgets", "plenty", "-o", "out"],
        ["simulate", "no-such-file.toml"],
        ["doctor", "no-such-file.toml"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_an_error_is_json_where_that_was_asked_for(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments, "--json")
    assert code == 1
    error = json.loads(err.splitlines()[-1]) if err else json.loads(out)[0]
    assert error.keys() & {"error", "level"}


@pytest.mark.parametrize("as_json", [False, True])
def test_what_the_system_refuses_is_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, as_json: bool
) -> None:
    """A full disk, for instance: no command lets a traceback through."""
    (tmp_path / "run.toml").write_text("")
    monkeypatch.setattr("coordinator.cli.doctor.examine", _full_disk)
    code, out, err = run("doctor", "run.toml", *(["--json"] if as_json else []))
    assert (code, out) == (1, "" if as_json else "importing torch, to check the task\n")
    sentence = json.loads(err)["error"] if as_json else err.removeprefix("ftte: ").removesuffix("\n")
    assert sentence == "No space left on device; free some space, or choose another folder"


def test_a_process_of_a_command_that_the_system_ends_is_one_sentence(tmp_path: Path) -> None:
    """As it does where memory is short; and until then it was said what the command does."""
    (tmp_path / "greedy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    (tmp_path / "run.toml").write_text(
        '[run]\nname = "a"\ntask = "greedy:task"\n[server]\nport = 0\n[budgets]\nall = "1MB"\n'
    )
    done = subprocess.run([FTTE, "serve", "run.toml"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (
        1,
        ["starting a coordinator for run.toml", "importing torch, to check the task"],
    )
    assert re.fullmatch(r"ftte: a process that worked .* was ended from outside, .* try again\n", done.stderr)


def _full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_reader_that_has_gone_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("name = gait\n")
    command = f"'{FTTE}' doctor --json run.toml; echo code $? >&2"
    result = subprocess.run(
        ["bash", "-c", f"({command}) | true"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


def test_the_admin_folder_is_found_here_below_and_above(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coordinator.admin.client import find_admin_folder
    from coordinator.admin.files import TOKEN_FILE
    from coordinator.errors import CoordinatorError

    def used(folder: Path) -> Path:
        (folder / ".ftte").mkdir(parents=True)
        (folder / ".ftte" / TOKEN_FILE).write_text("token")
        return folder / ".ftte"

    assert find_admin_folder(tmp_path) == tmp_path / ".ftte"
    below = used(tmp_path / "two")
    (tmp_path / "left" / ".ftte").mkdir(parents=True)  # of a coordinator that has ended
    assert find_admin_folder(tmp_path) == below
    assert find_admin_folder(tmp_path / "two" / "deeper") == below
    other = used(tmp_path / "three")
    with pytest.raises(CoordinatorError, match=r"several coordinators run below .*three.*two"):
        find_admin_folder(tmp_path)
    here = used(tmp_path)
    assert find_admin_folder(tmp_path) == here
    monkeypatch.setenv("FTTE_ADMIN", str(other))
    assert find_admin_folder(tmp_path) == other
