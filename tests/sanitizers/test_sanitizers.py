"""The native runtime's own sources have no fault that a sanitizer finds, whatever the program."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .sanitized import build, run
from .sound import programs

PROGRAMS = 100


@pytest.mark.full
def test_no_damaged_program_makes_a_fault_in_our_sources(tmp_path: Path) -> None:
    try:
        harness = build(tmp_path)
    except subprocess.CalledProcessError:
        pytest.skip("the compiler has no sanitizers")
    for name, content in programs().items():
        ends = run(harness, content, range(PROGRAMS), tmp_path)
        assert [fault.place for fault in ends.faults if fault.ours] == []
        assert ends.count("refused") > PROGRAMS / 4, name
        assert ends.count("ran") > 0, name
