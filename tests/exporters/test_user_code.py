"""What the user's code raises is one sentence that names the file and line of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporters.errors import TaskError
from exporters.task import load_task


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "import no_such_package\n",
            r"fails in .*/broken_0\.py, line 1: ModuleNotFoundError: No module named 'no_such",
        ),
        ("def task(:\n", r"fails in .*/broken_1\.py, line 1: SyntaxError"),
        ("import json\ntask = json.loads('{')\n", r"fails in .*/broken_2\.py, line 2: JSONDecodeError: Expecting"),
        ("def task():\n    return 1 / 0\n", r"broken_3:task fails in .*/broken_3\.py, line 2: ZeroDivisionError"),
        ("import sys\nsys.exit('bye')\n", r"fails in .*/broken_4\.py, line 2: SystemExit: bye"),
        ("task = 3\n", r"'broken_5:task' is a int, not a Task"),
        ("def task(size):\n    return size\n", r"broken_6:task fails with TypeError: task\(\) missing 1 required"),
    ],
    ids=["import", "syntax", "in a library", "function", "exit", "no task", "other arguments"],
)
def test_one_sentence_with_file_and_line(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    number = ["import", "syntax", "in a library", "function", "exit", "no task", "other arguments"].index(
        request.node.callspec.id
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / f"broken_{number}.py").write_text(text)
    with pytest.raises(TaskError, match=words) as caught:
        load_task(f"broken_{number}:task")
    assert "\n" not in str(caught.value)


def test_a_module_that_is_not_there_is_told_with_where_it_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaskError, match=f"no module 'gait' for the task 'gait:task'.*was started, {tmp_path}"):
        load_task("gait:task")
