"""``ftte verify-log``."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from exporters.cli.progress import StageProgress

from .backup import state_folder

if TYPE_CHECKING:
    from ..store.interface import Store

__all__ = ["add_verify_command"]


def add_verify_command(commands: Any) -> None:
    """Add it to the subparsers of ``ftte``."""
    parser = commands.add_parser("verify-log", help="make versions anew from kept updates, and compare them")
    parser.add_argument("run", type=Path, metavar="RUN.toml", help="the run file, or the state directory; not served")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(handler=_verify)


def _open(path: Path, state: Path) -> Store:
    """The store of a run file or a state directory, which holds a run."""
    from ..config import load_config
    from ..errors import StoreError
    from ..store.open import in_postgres, open_store
    from ..store.sqlite import SqliteStore

    config = load_config(path) if path.suffix == ".toml" else None
    if config is not None and in_postgres(config):
        return open_store(config)
    if not (state / "state.sqlite").exists():
        raise StoreError(f"{state} holds no run: give a run file whose run was served, or its state directory")
    return SqliteStore(state)


def _verify(options: argparse.Namespace, console: Console) -> int:
    from ..loop.kept_merges import KeptMerges
    from ..loop.replay import replay
    from ..programs.tiers import load_tiers

    state = state_folder(options.run)
    store = _open(options.run, state)
    verdicts = []
    try:
        kept = KeptMerges(state)
        total = store.versions.latest().version
        with StageProgress(console, as_json=options.json) as progress:
            progress.show(f"making versions of {state} anew", 0, total)
            for verdict in replay(store, kept, load_tiers(store)):
                verdicts.append(verdict)
                progress.show(f"making versions of {state} anew", verdict.version, total)
    finally:
        store.close()
    differ = [verdict for verdict in verdicts if verdict.word == "differs"]
    if options.json:
        print(json.dumps({"versions": [dataclasses.asdict(verdict) for verdict in verdicts], "equal": not differ}))
        return 1 if differ else 0
    for verdict in verdicts:
        if verdict.word != "equal":
            console.print(f"version {verdict.version}: {verdict.word}: {verdict.why}", highlight=False, soft_wrap=True)
    counts = collections.Counter(verdict.word for verdict in verdicts)
    console.print(
        f"{len(verdicts)} merges: {counts['equal']} come out equal, {counts['differs']} differ, "
        f"{counts['unknown']} cannot be made anew",
        highlight=False,
    )
    return 1 if differ else 0
