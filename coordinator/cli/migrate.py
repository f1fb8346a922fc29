"""``ftte migrate``."""

from __future__ import annotations

import argparse
import getpass
import json
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from exporters.cli.progress import StageProgress
from mobile_sdk.clock import SystemClock

__all__ = ["add_migrate_command"]

# For how long nobody else begins the run in the database; whoever does so later ends the migration.
LEASE_SECONDS = 600.0


def add_migrate_command(commands: Any) -> None:
    """Add it to the subparsers of ``ftte``."""
    parser = commands.add_parser("migrate", help="move a run's state into PostgreSQL, or back into a directory")
    parser.add_argument("run", type=Path, metavar="RUN.toml", help="the run file, with [store] postgres; not served")
    parser.add_argument(
        "--back", type=Path, metavar="DIR", help="from the database into this new state directory, instead of into it"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(handler=_migrate)


def _migrate(options: argparse.Namespace, console: Console) -> int:
    from ..config import load_config

    config = load_config(options.run)
    with StageProgress(console, as_json=options.json) as progress:
        if options.back is None:
            rows, where = _into_database(config, progress.say)
            source = str(config.run.state)
        else:
            rows, source = _into_folder(config, options.back, progress.say)
            where = str(options.back)
    if options.json:
        print(json.dumps({"from": source, "to": where, "rows": rows}, indent=2))
    else:
        console.print(
            f"{where} holds the run now: {rows} rows and every file are equal to those of {source}, which stay",
            highlight=False,
            soft_wrap=True,
        )
    return 0


def _into_database(config: Any, say: Any) -> tuple[int, str]:
    from ..errors import StoreError
    from ..store.copying import copy_in
    from ..store.open import MOVED, mark_moved, open_postgres
    from ..store.sqlite import SqliteStore

    state = config.run.state
    if not (state / "state.sqlite").exists():
        raise StoreError(f"{state} holds no run: there is nothing to migrate")
    if (state / MOVED).exists():
        raise StoreError(f"the run in {state} was moved before: see {state / MOVED}")
    source = SqliteStore(state)
    try:
        # The lock of the directory is the source's.
        target = open_postgres(config, leading=False)
        try:
            if target.lease.take("ftte migrate", LEASE_SECONDS) is None:
                raise StoreError(f"another coordinator leads the run {config.run.name} in the database: stop it first")
            rows = copy_in(source, target, say)
            where = f"PostgreSQL, {target.database.address}, schema {target.database.schema}"
            details = {"from": "a state directory", "rows": rows}
            target.audit.write(SystemClock().wall(), getpass.getuser(), "migrated", "run", details)
        finally:
            target.close()
        mark_moved(state, where)
    finally:
        source.close()
    return rows, where


def _into_folder(config: Any, folder: Path, say: Any) -> tuple[int, str]:
    from ..store.copying import copy_out
    from ..store.open import open_postgres
    from ..store.sqlite import SqliteStore
    from ..store.sqlite.backup import KEYS

    source = open_postgres(config)
    try:
        where = f"PostgreSQL, {source.database.address}, schema {source.database.schema}"
        rows = copy_out(source, folder, say)
        target = SqliteStore(folder)
        try:
            details = {"from": "PostgreSQL", "rows": rows}
            target.audit.write(SystemClock().wall(), getpass.getuser(), "migrated", "run", details)
        finally:
            target.close()
        for key in KEYS:
            if (config.run.state / key).exists():
                shutil.copy2(config.run.state / key, folder / key)
    finally:
        source.close()
    return rows, where
