"""Versions are made anew from kept updates, and come out the same to the last bit."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.admin.operations import Operations
from coordinator.cli.main import main as ftte
from coordinator.config import MergeSection
from coordinator.errors import StoreUnavailable
from coordinator.loop.kept_merges import KeptMerges
from coordinator.loop.replay import Verdict, replay
from coordinator.runs.served_run import ServedRun
from coordinator.simulation.virtual_time import run
from mobile_sdk import safetensors
from scripts.chaos_parts.remerge import remerge

from ..small_run import SmallRun, accept_update, make_run

MOMENTUM = {"optimiser": {"kind": "momentum", "momentum": 0.9}}


def serve(folder: Path, merges: int = 5, *, withdraw: str = "", roll_back: int = 0, **merge: Any) -> SmallRun:
    """A run of some merges by three devices of two tiers, one of which sends long updates."""
    settings = {"buffer": 3, "keep_updates": True, **merge}
    small = make_run(folder, merge=settings, retention={"versions": 2})

    async def main() -> None:
        coordinator = small.coordinator()
        running = ServedRun(small.config, small.store, coordinator, None)
        task = asyncio.create_task(coordinator.run())
        await asyncio.sleep(0.1)
        for number in range(merges):
            if roll_back and number == roll_back:
                await coordinator.version_maker.roll_back(number - 1, "a test", by="anna")
            for device, value in (("anna", 0.11), ("bert", 0.13 + 0.01 * number), ("long", 5.7)):
                accept_update(coordinator.state, device, tier="large" if device == "anna" else "small", value=value)
            await asyncio.sleep(1)
        if withdraw:
            await Operations(running, "anna").withdraw(withdraw)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        coordinator.close()

    run(main())
    return small


def verdicts(small: SmallRun) -> list[Verdict]:
    return list(replay(small.store, KeptMerges(small.config.run.state), small.tiers))


@pytest.mark.parametrize(
    "merge",
    [{}, MOMENTUM, {"difference": "current"}, {"clip_norm": 0.5}, {"rule": "fixed-K"}, {"defence": False}],
    ids=str,
)
def test_every_version_comes_out_equal_though_most_were_pruned(tmp_path: Path, merge: dict[str, Any]) -> None:
    small = serve(tmp_path, **merge)
    assert [verdict.word for verdict in verdicts(small)] == ["equal"] * 5


def test_a_program_that_shares_no_code_makes_the_same_weights(tmp_path: Path) -> None:
    assert remerge(serve(tmp_path).config.run.state) == (5, [])


def test_after_a_rollback_merges_go_on_from_the_version_that_was_repeated(tmp_path: Path) -> None:
    small = serve(tmp_path, roll_back=3)
    assert [record.kind for record in small.store.versions.all()].count("rollback") == 1
    assert [verdict.word for verdict in verdicts(small)] == ["equal"] * 5


def test_an_update_that_was_changed_and_a_version_that_was_are_found(tmp_path: Path) -> None:
    small = serve(tmp_path)
    kept = KeptMerges(small.config.run.state)
    path = small.config.run.state / "merged" / "00000003.safetensors"
    arrays, metadata = safetensors.loads(path.read_bytes())
    name = next(iter(arrays))
    changed = {**arrays, name: arrays[name].copy()}
    changed[name][-1] ^= 1
    path.write_bytes(safetensors.dumps(changed, dict(metadata)))
    found = verdicts(small)
    assert [verdict.word for verdict in found][2] == "differs"
    assert "not the one that was accepted" in found[2].why
    # And as if the coordinator had given a device more than its share.
    path.write_bytes(safetensors.dumps(dict(arrays), dict(metadata)).replace(b'"factor\\": 1.0', b'"factor\\": 0.5'))
    assert kept.read(3).updates[0].factor == 0.5
    found = verdicts(small)
    assert found[2].word == "differs"
    assert "the weights come to" in found[2].why


def test_a_withdrawn_devices_updates_are_gone_and_the_rest_says_so(tmp_path: Path) -> None:
    small = serve(tmp_path, withdraw="bert")
    assert not any(b"bert" in path.read_bytes() for path in (small.config.run.state / "merged").iterdir())
    found = verdicts(small)
    assert {verdict.word for verdict in found} == {"unknown"}
    assert found[0].why == "1 of its updates were withdrawn"


def test_a_damaged_file_stops_no_withdrawal_and_what_a_kill_left_goes_at_the_start(tmp_path: Path) -> None:
    small = serve(tmp_path)
    folder = small.config.run.state / "merged"
    (folder / "00000002.safetensors").write_bytes(b"torn")
    assert KeptMerges(small.config.run.state).forget("bert") == 4
    assert not (folder / "00000002.safetensors").exists()
    (folder / "00000006.safetensors").write_bytes((folder / "00000005.safetensors").read_bytes())
    (folder / "00000007.safetensors.new").write_bytes(b"half")

    async def start() -> None:
        small.coordinator().close()

    run(start())
    assert sorted(path.name for path in folder.iterdir()) == [f"0000000{n}.safetensors" for n in (1, 3, 4, 5)]


def test_nothing_is_kept_unless_it_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = serve(tmp_path, keep_updates=False)
    assert not (small.config.run.state / "merged").exists()
    small.store.close()
    assert ftte(["verify-log", str(small.config.run.state)]) == 0
    assert "5 merges: 0 come out equal, 0 differ, 5 cannot be made anew" in capsys.readouterr().out


def test_the_command_says_which_version_differs_and_ends_with_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = serve(tmp_path)
    small.store.close()
    assert ftte(["verify-log", str(small.config.run.state)]) == 0
    assert "5 merges: 5 come out equal, 0 differ" in capsys.readouterr().out
    path = small.config.run.state / "merged" / "00000002.safetensors"
    arrays, metadata = safetensors.loads(path.read_bytes())
    path.write_bytes(safetensors.dumps({n: np.zeros_like(a) for n, a in arrays.items()}, dict(metadata)))
    assert ftte(["verify-log", str(small.config.run.state), "--json"]) == 1
    assert '"version": 2, "word": "differs"' in capsys.readouterr().out
    assert ftte(["verify-log", str(tmp_path)]) == 1
    assert "holds no run" in capsys.readouterr().err


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow: what a write meets is an error of the system, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_makes_the_merge_wait_and_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    kept = KeptMerges(tmp_path)
    with full_disk(), pytest.raises(StoreUnavailable, match="cannot be used just now"):
        kept.keep(1, MergeSection(), [], [])
    assert [*(tmp_path / "merged").iterdir()] == []
    kept.keep(1, MergeSection(), [], [])
    assert kept.versions() == [1]
