"""``ftte doctor``: what would go wrong, before it does."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from exporters.identity import identify_reference
from mobile_sdk.errors import FtteError

from ..admin.folder_check import check_admin_folder
from ..checks.certificate import check_certificate
from ..checks.findings import Finding
from ..checks.fleet import check_together
from ..checks.machine import check_disk, check_open_files, check_port, check_server
from ..config import Config, load_config, run_files
from ..errors import ConfigError, StoreError
from ..programs.plan_checks import check_tiers
from ..programs.same_task import task_changes
from ..programs.tiers import load_tiers
from ..store.interface import Store
from ..store.open import in_postgres, open_store

__all__ = ["examine"]


def examine(files: Sequence[Path], overrides: Sequence[str] = ()) -> list[Finding]:
    """Check run files, their state directories and this machine."""
    findings: list[Finding] = []
    configs: dict[Path, Config] = {}
    for file in run_files(files):
        try:
            configs[file] = load_config(file, overrides)
        except FtteError as error:
            findings.append(Finding("error", str(error)))
    findings += check_together(configs)
    for file, config in configs.items():
        findings += _examine(file, config)
    return findings


def _examine(file: Path, config: Config) -> Iterator[Finding]:
    yield Finding("ok", f"{file} is a run file of the run {config.run.name}")
    served = _is_served(config)
    yield from _task(config)
    yield from _state(config)
    yield from check_disk(config)
    yield from check_server(config.server)
    if served:
        yield Finding(
            "ok", f"a coordinator serves this run now: its port and admin folder {config.admin.folder} are in use"
        )
    else:
        yield from check_port(config.server)
        yield from check_admin_folder(config.admin)
    yield from check_certificate(config.server)
    yield from check_open_files(config.server)


def _is_served(config: Config) -> bool:
    """Whether another process has the state."""
    if not config.run.state.is_dir():
        return False
    try:
        open_store(config).close()
    except (StoreError, ConfigError) as error:
        return "another coordinator" in str(error)
    return False


def _task(config: Config) -> Iterator[Finding]:
    from exporters.quiet import quiet

    with quiet():
        from ..checks.task import check_task  # it needs torch, which takes seconds to import

        findings = list(check_task(config))
    yield from findings


def _state(config: Config) -> Iterator[Finding]:
    folder = config.run.state
    if not folder.exists() and not in_postgres(config):
        yield Finding("ok", f"the state directory {folder} is to be made")
        return
    for name in ("run.key", "state.sqlite"):
        file = folder / name
        if file.exists() and stat.S_IMODE(folder.stat().st_mode) & 0o077 and stat.S_IMODE(file.stat().st_mode) & 0o077:
            yield Finding("error", f"{file} can be read by others: chmod 700 {folder}")
    try:
        store = open_store(config)
    except (StoreError, ConfigError) as error:
        yield Finding("ok" if "another coordinator" in str(error) else "error", str(error))
        return
    checks: list[Callable[[Config, Store], Iterator[Finding]]] = [_run, _same_task, _trained]
    try:
        if store.run() is None:
            words = "the database holds no run yet" if in_postgres(config) else f"the state directory {folder} is empty"
            yield Finding("ok", words)
            return
        for check in checks:
            yield from check(config, store)
    except FtteError as error:
        yield Finding("error", str(error))
    finally:
        store.close()


def _run(config: Config, store: Store) -> Iterator[Finding]:
    newest = store.versions.latest()
    for ref in newest.weights:
        store.artifacts.verified(ref.sha256)
    lines = len(store.audit.entries())
    phase, reason = store.phase()
    yield Finding("ok", f"the run is {phase} ({reason or 'new'}) at version {newest.version}, whose weights are sound")
    yield Finding("ok", f"the audit log's {lines} lines fit together")
    devices, waiting = len(store.devices.all()), len(store.updates.buffered())
    yield Finding("ok", f"{devices} devices are enrolled, {waiting} updates wait to be merged")


def _same_task(config: Config, store: Store) -> Iterator[Finding]:
    run = store.run()
    recorded = {} if run is None else run.plans.get("identity", {})
    if recorded:
        changes = task_changes(config, recorded, identify_reference(config.run.task))
        yield Finding("error", changes) if changes else Finding("ok", "the task is the one that the run began with")


def _trained(config: Config, store: Store) -> Iterator[Finding]:
    yield from check_tiers(load_tiers(store))
