"""The run file: everything an operator decides about a run."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mobile_sdk.connection import is_loopback
from mobile_sdk.sizes import parse_bytes
from mobile_sdk.training import TrainingSettings

from .errors import ConfigError

__all__ = ["Config", "load_config", "parse_config"]

Size = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunSection(_Section):
    """Which run, of which task, and where it is kept."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    task: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    state: Path = Path("state")


class ServerSection(_Section):
    """Where devices connect. Off loopback, TLS and an enrolment token are needed."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    certificate: Path | None = None
    private_key: Path | None = None
    token: str = ""
    insecure: bool = False

    @model_validator(mode="after")
    def _safe_off_loopback(self) -> ServerSection:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together: give both or neither")
        if not is_loopback(self.host):
            if self.certificate is None and not self.insecure:
                raise ValueError(
                    f"host {self.host} is not this machine: give certificate and private_key, or set insecure = true"
                )
            if not self.token:
                raise ValueError(f"host {self.host} is not this machine: set a token that devices enrol with")
        return self


class TrainingSection(_Section):
    """What devices do with what they get."""

    epochs: Annotated[int, Field(ge=1)] = 1
    batch_size: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def settings(self) -> TrainingSettings:
        """As devices get it."""
        return TrainingSettings(**self.model_dump())


class StalenessSection(_Section):
    """How much an update counts by its staleness; see :mod:`coordinator.merge.staleness`."""

    policy: Literal["constant", "polynomial", "hinge", "exponential"] = "polynomial"
    exponent: Annotated[float, Field(gt=0)] = 0.5
    slope: Annotated[float, Field(gt=0)] = 10.0
    threshold: Annotated[int, Field(ge=0)] = 4
    rate: Annotated[float, Field(gt=0)] = 0.1
    maximum: Annotated[int, Field(ge=0)] | None = None


class MergeSection(_Section):
    """When and how updates become a version."""

    buffer: Annotated[int, Field(ge=1)] = 10
    rule: Literal["holders", "fixed-K"] = "holders"
    min_holders: Annotated[float, Field(ge=0)] = 0.0
    learning_rate: Annotated[float, Field(gt=0)] = 1.0
    staleness: StalenessSection = StalenessSection()


class StopSection(_Section):
    """When the run has ended; without a limit it goes on until it is stopped."""

    accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    versions: Annotated[int, Field(ge=1)] | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None


class Config(_Section):
    """A whole run file. ``budgets`` maps a tier's name to its memory for training."""

    run: RunSection
    server: ServerSection = ServerSection()
    budgets: Annotated[dict[str, Size], Field(min_length=1)]
    training: TrainingSection = TrainingSection()
    merge: MergeSection = MergeSection()
    stop: StopSection = StopSection()


def load_config(path: Path) -> Config:
    """
    Read a run file; relative paths in it start at its folder.

    Raises:
        ConfigError: naming file, key, value and remedy.

    """
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read the run file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return parse_config(data, path.parent, str(path))


def parse_config(data: dict[str, Any], folder: Path, name: str = "the run file") -> Config:
    """
    Check the contents of a run file; relative paths start at ``folder``.

    Raises:
        ConfigError: naming key, value and remedy.

    """
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{name}: {where}: {first['msg'].removeprefix('Value error, ')}") from error
    server = config.server.model_copy(
        update={
            key: folder / value
            for key, value in (("certificate", config.server.certificate), ("private_key", config.server.private_key))
            if value is not None
        }
    )
    run = config.run.model_copy(update={"state": folder / config.run.state})
    return config.model_copy(update={"run": run, "server": server})
