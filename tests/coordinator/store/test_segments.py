"""Updates lie in segment files one after the other, and nothing is left of what was erased."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from coordinator.store import segments as module
from coordinator.store.segments import Location, Segments


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def test_updates_are_where_it_was_said_one_after_the_other(tmp_path: Path) -> None:
    segments = Segments(tmp_path / "deep" / "segments")
    first, second = segments.append([b"abc", memoryview(b"defgh")])
    (third,) = segments.append([b"i"])
    assert (first, second, third) == (Location(1, 0, 3), Location(1, 3, 5), Location(1, 8, 1))
    assert [segments.read(where) for where in (first, second, third)] == [b"abc", b"defgh", b"i"]
    assert segments.files() == [segments.path(1)]
    assert segments.path(1).read_bytes() == b"abcdefghi"
    assert segments.path(1).stat().st_mode & 0o777 == 0o600
    assert segments.append([]) == []
    assert segments.read(Location(7, 0, 3)) == b"", "its file is gone"


def test_a_segment_of_an_earlier_process_is_never_added_to(tmp_path: Path) -> None:
    Segments(tmp_path).append([b"abc"])
    assert Segments(tmp_path).append([b"d"]) == [Location(2, 0, 1)]
    (tmp_path / "00000010.updates").touch()
    assert Segments(tmp_path).append([b"e"]) == [Location(11, 0, 1)]


def test_a_full_segment_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 4)
    segments = Segments(tmp_path)
    places = [segments.append([content])[0] for content in (b"abc", b"d", b"e")]
    assert places == [Location(1, 0, 3), Location(1, 3, 1), Location(2, 0, 1)]
    assert segments.files() == [segments.path(1), segments.path(2)]
    assert segments.append([b"f"]) == [Location(2, 1, 1)]


@pytest.fixture(params=["by the file system", "by hand", "where the file system refuses"])
def erased(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How bytes are overwritten."""
    if request.param == "by the file system":
        # FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE of linux/falloc.h.
        with (tmp_path.with_suffix(".probe")).open("wb") as probe:
            if module._FALLOCATE is None or module._FALLOCATE(probe.fileno(), 3, ctypes.c_int64(0), ctypes.c_int64(1)):
                pytest.skip("this file system cannot")
        monkeypatch.setattr(module, "_ZEROS", b"?")  # it writes none
        return
    monkeypatch.setattr(module, "_FALLOCATE", None if request.param == "by hand" else lambda *_: -1)
    monkeypatch.setattr(module, "_ZEROS", bytes(4))


@pytest.mark.usefixtures("erased")
def test_what_is_erased_reads_as_zeros_and_the_rest_stays(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    places = segments.append([b"a" * 3, b"b" * 6, b"c" * 5, b"d" * 2])
    segments.named(places)
    segments.erase([places[2], places[1]], {1: 2})
    assert segments.path(1).read_bytes() == b"aaa" + bytes(11) + b"dd"
    segments.erase([places[0]], {1: 1})
    assert segments.path(1).read_bytes() == bytes(14) + b"dd"
    segments.erase([places[3]], {})
    assert names(tmp_path) == []
    assert segments.append([b"e"]) == [Location(2, 0, 1)], "a number is not used again"


@pytest.mark.usefixtures("erased")
def test_ranges_that_lie_apart_are_erased_each(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    places = segments.append([b"aa", b"b", b"cc", b"d", b"eee", b"f", b"gg"])
    segments.named(places)
    segments.erase([places[number] for number in (6, 0, 3, 2)], {1: 3})
    assert segments.path(1).read_bytes() == bytes(2) + b"b" + bytes(3) + b"eeef" + bytes(2)


def test_of_segments_that_are_done_with_the_open_one_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 4)
    segments = Segments(tmp_path)
    old, new = segments.append([b"abcd"]) + segments.append([b"e"])
    segments.named([old, new])
    segments.erase([old], {})
    assert segments.append([b"f"]) == [Location(2, 1, 1)]


def test_whatever_was_done_one_file_is_open_at_the_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 8)
    before = open_files()
    segments = Segments(tmp_path)
    places = [segments.append([b"abc"])[0] for _ in range(10)]
    segments.named(places)
    segments.erase(places[1:4], {1: 1, 2: 1})
    segments.erase_all_but([places[0], places[-1]])
    assert segments.read(places[0]) == b"abc"
    assert open_files() <= before + 1
    segments.close()
    assert open_files() == before


def test_a_segment_with_what_no_row_names_yet_is_not_removed(tmp_path: Path) -> None:
    segments = Segments(tmp_path)
    first, second = segments.append([b"abc", b"de"])
    segments.named([first])
    segments.erase([first], {})
    assert segments.path(1).read_bytes() == bytes(3) + b"de"
    segments.named([second])
    segments.erase([second], {})
    assert segments.files() == []


@pytest.mark.usefixtures("erased")
def test_after_a_crash_all_is_erased_that_is_not_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_BYTES", 8)
    segments = Segments(tmp_path)
    segments.append([b"nobody's"])
    torn = segments.append([b"aa", b"b", b"ccc", b"dd"])
    segments.append([b"nobody's"])
    whole = segments.append([b"e", b"fffffff"])
    segments.append([b"nobody's"])
    segments.close()
    with segments.path(2).open("ab") as file:
        file.write(b"torn")
    again = Segments(tmp_path)
    again.erase_all_but([torn[2], whole[1], torn[0], whole[0]])
    assert again.files() == [again.path(2), again.path(4)]
    assert again.path(2).read_bytes() == b"aa" + bytes(1) + b"ccc" + bytes(6)
    assert again.path(4).read_bytes() == b"efffffff"


def fail(*arguments: object) -> None:
    raise OSError(5, "Input/output error")


def test_a_segment_whose_sync_failed_takes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = Segments(tmp_path)
    (kept,) = segments.append([b"abc"])
    segments.named([kept])
    with monkeypatch.context() as patched:
        patched.setattr(module, "sync_data", fail)
        with pytest.raises(OSError, match="Input/output"):
            segments.append([b"de"])
    assert segments.path(1).read_bytes() == b"abc", "of what was not acknowledged nothing is left"
    assert segments.append([b"f"]) == [Location(2, 0, 1)]
    segments.erase([kept], {})
    assert segments.files() == [segments.path(2)], "what was never kept keeps no file"


def test_a_disk_that_stays_full_leaves_no_empty_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = Segments(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_at", fail)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                segments.append([b"de"])
    assert names(tmp_path) == []
    assert segments.append([b"f"]) == [Location(3, 0, 1)]


def test_nothing_comes_into_a_segment_whose_name_a_power_cut_could_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = Segments(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(module, "sync_folder", fail)
        with pytest.raises(OSError, match="Input/output"):
            segments.append([b"de"])
    assert names(tmp_path) == []
    assert segments.append([b"f"]) == [Location(2, 0, 1)]


def test_what_is_removed_is_removed_over_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(module, "sync_folder", synced.append)
    segments = Segments(tmp_path)
    first, second = segments.append([b"abc", b"de"])
    segments.named([first, second])
    assert synced == [tmp_path], "the new file has its name"
    segments.erase([first], {1: 1})
    assert synced == [tmp_path], "no file has gone"
    segments.erase([second], {})
    assert synced == [tmp_path] * 2
    segments.erase([second], {})
    assert synced == [tmp_path] * 2, "it had gone before"
    segments.erase_all_but([])
    assert synced == [tmp_path] * 3
