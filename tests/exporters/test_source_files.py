"""The sources of a task are found by name, in a process that has imported none of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

RECORD = "from exporters.source_files import file_hashes; import json; print(json.dumps(file_hashes({task!r})))"
COMPARE = "from exporters.source_files import changed_files; import json; print(changed_files(json.loads({hashes!r})))"


def python(code: str, folder: Path) -> str:
    """What a fresh process says that was started in ``folder``, as the console script is: without it on the path."""
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_task_of_an_installed_package_has_not_changed_when_it_is_not_imported(tmp_path: Path) -> None:
    """An editable installation is found by a finder of its own, not in the folders of ``sys.path``."""
    hashes = python(RECORD.format(task="exporters.zoo.digits:personal"), tmp_path)
    assert "exporters.zoo.digits" in json.loads(hashes)
    assert python(COMPARE.format(hashes=hashes), tmp_path).strip() == "[]"


def test_what_is_gone_or_other_than_it_was_is_named(tmp_path: Path) -> None:
    hashes = json.dumps({"exporters.zoo.digits": "0" * 64, "no_such_module.task": "0" * 64, "nothing": "0" * 64})
    assert python(COMPARE.format(hashes=hashes), tmp_path).strip() == str(
        ["exporters.zoo.digits", "no_such_module.task", "nothing"]
    )
