"""What the operating system refuses is one sentence that says what to do."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mobile_sdk.system.os_errors import describe_os_error


def test_a_full_disk_is_told_with_what_to_do() -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    assert describe_os_error(error) == "No space left on device; free some space, or choose another folder"


def test_the_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "missing" / "file").write_text("x")
    assert describe_os_error(caught.value) == (
        f"cannot use {tmp_path}/missing/file: No such file or directory; make the folder first, or choose another one"
    )


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError("in words of a library"), "in words of a library"),
        (OSError(), "OSError"),
        (OSError(errno.ECONNRESET, "Connection reset by peer"), "Connection reset by peer"),
        (OSError(errno.EIO, "Input/output error", b"disk"), "cannot use disk: Input/output error"),
    ],
)
def test_others_are_told_as_they_are(error: OSError, sentence: str) -> None:
    assert describe_os_error(error) == sentence
