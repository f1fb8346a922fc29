"""A whole run file, and the reading of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError, model_validator

from ..errors import ConfigError
from .evaluation import EvaluationSection
from .local import LocalSection
from .merge import MergeSection
from .operating import AdminSection, DashboardSection
from .payload import PayloadSection
from .planning import PlanningSection
from .run import RetentionSection, RunSection, StopSection, StoreSection
from .scheduling import LimitsSection, SchedulingSection
from .section import Section, Size
from .server import GatewaysSection, ServerSection
from .toml_files import explain, read_toml
from .tracking import TrackingSection
from .training import TrainingSection

__all__ = ["Config", "load_config", "parse_config", "run_files", "shared_gateways", "shared_server"]

S = TypeVar("S", ServerSection, GatewaysSection)
P = TypeVar("P", ServerSection, DashboardSection)


class Config(Section):
    """A whole run file. ``budgets`` maps a tier's name to its memory for training."""

    run: RunSection
    store: StoreSection = StoreSection()
    server: ServerSection = ServerSection()
    gateways: GatewaysSection = GatewaysSection()
    budgets: Annotated[dict[str, Size], Field(min_length=1)]
    planning: PlanningSection = PlanningSection()
    training: TrainingSection = TrainingSection()
    payload: PayloadSection = PayloadSection()
    merge: MergeSection = MergeSection()
    stop: StopSection = StopSection()
    retention: RetentionSection = RetentionSection()
    scheduling: SchedulingSection = SchedulingSection()
    limits: LimitsSection = LimitsSection()
    evaluation: EvaluationSection = EvaluationSection()
    admin: AdminSection = AdminSection()
    dashboard: DashboardSection = DashboardSection()
    tracking: TrackingSection = TrackingSection()
    local: LocalSection = LocalSection()

    @property
    def goal(self) -> float | None:
        """Where the run ends by the watched metric."""
        if self.stop.goal is None and self.evaluation.metric == "accuracy":
            return self.stop.accuracy
        return self.stop.goal

    @model_validator(mode="after")
    def _goal_has_a_direction(self) -> Config:
        if self.stop.goal is not None and not self.evaluation.has_direction:
            raise ValueError(
                f"stop.goal is a value of evaluation.metric, which is {self.evaluation.metric!r}: set "
                "evaluation.minimise to true if smaller values are better, or else to false"
            )
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """
    Read a run file; relative paths in it start at its folder.

    Args:
        path: the file.
        overrides: ``section.key=value``, in place of what the file has.

    Raises:
        ConfigError: naming file, key, value and remedy.

    """
    return parse_config(read_toml(path, "run file", overrides), path.parent, str(path))


def run_files(paths: Sequence[Path]) -> list[Path]:
    """
    The run files that are meant: files as they are, and every ``.toml`` file of a folder.

    Raises:
        ConfigError: if there is none.

    """
    files = [file for path in paths for file in (sorted(path.glob("*.toml")) if path.is_dir() else [path])]
    if not files:
        raise ConfigError(f"there is no run file (*.toml) in {', '.join(map(str, paths))}")
    return files


def parse_config(data: dict[str, Any], folder: Path, name: str = "the run file") -> Config:
    """
    Check the contents of a run file; relative paths start at ``folder``.

    Args:
        data: what TOML gave.
        folder: of the file.
        name: of the file, for messages.

    Raises:
        ConfigError: naming key, value and remedy.

    """
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{name}: {explain(error, Config)}") from error
    server, dashboard = _placed(config.server, folder), _placed(config.dashboard, folder)
    run = config.run.model_copy(update={"state": folder / config.run.state})
    store = config.store
    if store.objects is not None and "://" not in store.objects and not store.objects.startswith("$"):
        store = store.model_copy(update={"objects": str(folder / store.objects)})
    planning = config.planning
    if planning.plans is not None:
        planning = planning.model_copy(update={"plans": folder / planning.plans})
    admin = config.admin.model_copy(update={"folder": folder / config.admin.folder})
    gateways = config.gateways
    given = {"secret": gateways.secret, "folder": gateways.folder}
    gateways = gateways.model_copy(update={key: folder / path for key, path in given.items() if path is not None})
    tracking = config.tracking
    if tracking.tensorboard is not None:
        tracking = tracking.model_copy(update={"tensorboard": folder / tracking.tensorboard})
    return config.model_copy(
        update={
            "run": run,
            "store": store,
            "server": server,
            "gateways": gateways,
            "planning": planning,
            "admin": admin,
            "dashboard": dashboard,
            "tracking": tracking,
        }
    )


def _placed(section: P, folder: Path) -> P:
    """A section whose certificate and key are looked for in ``folder``."""
    files = {"certificate": section.certificate, "private_key": section.private_key}
    return section.model_copy(update={key: folder / value for key, value in files.items() if value is not None})


def shared_server(configs: Sequence[Config]) -> ServerSection:
    """
    The one ``[server]`` of run files that are served together.

    Raises:
        ConfigError: if they have different ones.

    """
    return _shared("server", [config.server for config in configs], ServerSection())


def shared_gateways(configs: Sequence[Config]) -> GatewaysSection:
    """
    The one ``[gateways]`` of run files that are served together.

    Raises:
        ConfigError: if they have different ones.

    """
    return _shared("gateways", [config.gateways for config in configs], GatewaysSection())


def _shared(name: str, sections: Sequence[S], default: S) -> S:
    given = [section for section in sections if section != default]
    if any(section != given[0] for section in given):
        raise ConfigError(
            f"the run files have different [{name}] tables: write it into one of them, or the same into all"
        )
    return given[0] if given else default
