"""``ftte backup`` and ``ftte restore``."""

from __future__ import annotations

import argparse
import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from exporters.cli.progress import StageProgress
from mobile_sdk.clock import SystemClock
from mobile_sdk.sizes import format_bytes

if TYPE_CHECKING:
    from ..config import Config

__all__ = ["add_backup_commands", "state_folder"]


def add_backup_commands(commands: Any) -> None:
    """Add both to the subparsers of ``ftte``."""
    saving = commands.add_parser("backup", help="save a run's state, also while it is served")
    saving.add_argument("run", type=Path, metavar="RUN.toml", help="the run file, or the state directory")
    saving.add_argument("archive", type=Path, metavar="ARCHIVE.tar", help="what to write; it holds keys and secrets")
    saving.add_argument("--json", action="store_true", help="print JSON")
    saving.set_defaults(handler=_backup)
    bringing = commands.add_parser("restore", help="make a run's state from a backup")
    bringing.add_argument("archive", type=Path, metavar="ARCHIVE.tar", help="what `ftte backup` wrote")
    bringing.add_argument("run", type=Path, metavar="RUN.toml", help="the run file, or the state directory to make")
    bringing.add_argument("--json", action="store_true", help="print JSON")
    bringing.set_defaults(handler=_restore)


def _backup(options: argparse.Namespace, console: Console) -> int:
    from ..store.postgres_backup import backup_postgres
    from ..store.sqlite import backup

    state = state_folder(options.run)
    config = _in_database(options.run)
    with StageProgress(console, as_json=options.json) as progress:

        def show(done: int, total: int) -> None:
            progress.show(f"saving files of {state}", done, total)

        if config is None:
            size = backup(state, options.archive, show)
        else:
            size = backup_postgres(config, options.archive, show)
    if options.json:
        print(json.dumps({"archive": str(options.archive), "state": str(state), "bytes": size}, indent=2))
    else:
        console.print(f"{options.archive} holds {state}: {format_bytes(size)}", highlight=False, soft_wrap=True)
    return 0


def _restore(options: argparse.Namespace, console: Console) -> int:
    from ..store.postgres_backup import restore_postgres
    from ..store.sqlite import restore

    state = state_folder(options.run)
    config = _in_database(options.run)
    at, by = SystemClock().wall(), getpass.getuser()
    with StageProgress(console, as_json=options.json) as progress:

        def show(done: int, total: int) -> None:
            progress.show(f"restoring {state}, in KB", done // 1000, total // 1000)

        if config is None:
            restore(options.archive, state, at, by=by, progress=show)
        else:
            restore_postgres(options.archive, config, at, by=by, progress=show)
    if options.json:
        print(json.dumps({"archive": str(options.archive), "state": str(state)}, indent=2))
    else:
        console.print(f"{state} is as it was in {options.archive}", highlight=False, soft_wrap=True)
    return 0


def _in_database(path: Path) -> Config | None:
    """The run file, if it says that the run is in a database."""
    from ..config import load_config
    from ..store.open import in_postgres

    config = load_config(path) if path.suffix == ".toml" else None
    return config if config is not None and in_postgres(config) else None


def state_folder(path: Path) -> Path:
    """The state directory that a run file names, or the directory itself."""
    from ..config import load_config

    return load_config(path).run.state if path.suffix == ".toml" else path
