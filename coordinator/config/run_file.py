"""The run file: everything an operator decides about a run."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from mobile_sdk.net.loopback import is_loopback
from mobile_sdk.payload import UpdateFormat
from mobile_sdk.sizes import parse_bytes
from mobile_sdk.training.settings import COUNTS, RANGES, OptimiserName, TrainingSettings

from ..errors import ConfigError
from .toml_files import explain, read_toml

__all__ = ["Config", "load_config", "parse_config", "run_files", "shared_gateways", "shared_server", "split_address"]

Size = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]


def _network(value: str) -> str:
    return str(ipaddress.ip_network(value))


# An address, or a network such as 10.0.0.0/8.
Network = Annotated[str, AfterValidator(_network)]

# HOST:PORT, an IPv6 address in brackets.
HostPort = Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunSection(_Section):
    """Which run, of which task, and where it is kept; with ``hold`` it gives out no work until it is started."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    task: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    state: Path = Path("state")
    hold: bool = False


class StoreSection(_Section):
    """
    Where a run's state is kept: in the state directory, unless ``postgres`` names a database.

    ``objects``: where artifacts and large updates are, ``s3://bucket/prefix`` or a folder; without it, in the state
    directory. Either may be ``$NAME``: the value is that of the environment variable ``NAME``.
    """

    postgres: SecretStr | None = None
    objects: str | None = None

    @model_validator(mode="after")
    def _objects_of_a_database(self) -> StoreSection:
        if self.objects is not None and self.postgres is None:
            raise ValueError('objects is for runs in a database: give postgres = "postgresql://..." as well')
        return self


class ServerSection(_Section):
    """
    Where devices connect. Off loopback, TLS is needed, and devices enrol with a token.

    ``token`` lets any number of devices enrol; without it (and off loopback) they need one that ``ftte invite`` made.
    ``public_url`` is what invites say where it differs from host and port, behind a proxy for instance. At most
    ``connections`` are open at once, ``handshakes`` of them by peers that have not proved who they are, and
    ``handshakes_per_address`` of those from one address; each has ``handshake_seconds`` for it. ``proxies``: addresses
    of load balancers, such as ``10.0.0.0/8``, that say by the PROXY protocol whose connection they pass on.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    certificate: Path | None = None
    private_key: Path | None = None
    token: str = ""
    insecure: bool = False
    open_enrolment: bool | None = None
    public_url: Annotated[str, Field(pattern=r"^wss?://[^\s]+$")] | None = None
    connections: Annotated[int, Field(ge=1)] = 10_000
    handshakes: Annotated[int, Field(ge=1)] = 1_000
    handshakes_per_address: Annotated[int, Field(ge=1)] = 500
    handshake_seconds: Annotated[float, Field(gt=0)] = 20.0
    drain_seconds: Annotated[float, Field(ge=0)] = 20.0
    proxies: tuple[Network, ...] = ()

    @property
    def needs_token(self) -> bool:
        """Whether a device must give a token to enrol."""
        if self.open_enrolment is not None:
            return not self.open_enrolment
        return bool(self.token) or not is_loopback(self.host)

    @model_validator(mode="after")
    def _safe_off_loopback(self) -> ServerSection:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together: give both or neither")
        if not is_loopback(self.host):
            if self.certificate is None and not self.insecure:
                raise ValueError(
                    f"host {self.host} is not this machine: give certificate and private_key, or set insecure = true"
                )
            if self.open_enrolment:
                raise ValueError(f"host {self.host} is not this machine: open_enrolment would let anybody in")
        return self


class GatewaysSection(_Section):
    """
    How gateways of other machines and their conductor find and know each other; see docs/how-to/scaling.md.

    ``listen``: where the conductor waits for gateways, ``HOST:PORT``, by TLS. ``address``: what they call instead,
    where ``listen`` is no address that they can; with the run in a database they find it there. ``conductor``: the
    address, for gateways of a run that is in none. ``secret``: a file that conductors and gateways have, which lets
    them in. ``folder``: where a gateway keeps copies of files and what has come of uploads; by default a temporary one.
    """

    listen: HostPort | None = None
    address: HostPort | None = None
    conductor: HostPort | None = None
    secret: Path | None = None
    folder: Path | None = None

    @model_validator(mode="after")
    def _proved(self) -> GatewaysSection:
        if self.secret is None and (self.listen or self.conductor):
            raise ValueError(
                "listen and conductor need a secret that both sides have: give secret = FILE with 32 random bytes"
            )
        if self.address is not None and self.listen is None:
            raise ValueError("address is where gateways reach what listens: give listen as well")
        return self


class AdminSection(_Section):
    """
    Where `ftte runs`, `ftte devices` and the like reach the coordinator.

    ``folder`` gets the bearer token (``admin.token``) and the Unix socket (``admin.sock``); with a ``port``, loopback
    is listened on instead of the socket.
    """

    folder: Path = Path(".ftte")
    port: Annotated[int, Field(ge=0, le=65535)] | None = None


class DashboardSection(_Section):
    """
    The web page on which people see and operate the runs; `ftte dashboard` gives an address that lets one in.

    It listens on ``port`` (by default 8766, or any free one where that is taken). Off loopback it needs TLS, with
    ``certificate`` and ``private_key`` of its own. ``names``: host names by which browsers reach it, besides ``host``;
    requests under another name are refused. Whoever is in stays so for ``hours``.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    names: tuple[str, ...] = ()
    hours: Annotated[float, Field(gt=0, le=720)] = 12.0

    @model_validator(mode="after")
    def _safe_off_loopback(self) -> DashboardSection:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together: give both or neither")
        if not is_loopback(self.host) and self.certificate is None:
            raise ValueError(
                f"host {self.host} is not this machine: give certificate and private_key, as `ftte certificate` makes"
            )
        if self.host in ("0.0.0.0", "::") and not self.names:
            raise ValueError(f'host {self.host} is no name of a machine: give names = ["..."], as browsers call it')
        return self


class LimitsSection(_Section):
    """
    What one device may ask of the coordinator.

    ``bytes_per_day`` counts both directions; a device beyond it is sent away until it is a day older.
    ``messages_per_second`` is an average, of which a few seconds' worth may come at once.
    """

    bytes_per_day: Size | None = None
    messages_per_second: Annotated[float, Field(gt=0)] = 500.0


class SchedulingSection(_Section):
    """
    Who gets work.

    ``concurrency``: the most devices that train at once (0: all that ask). ``auto`` makes that between 1 and 10 times
    ``merge.least``: as many as keep merges stable (:mod:`coordinator.updates.buffer_size`), and no more than a third of
    those that are there, so that a queue gives slow devices their share; but 10 at the least. ``waiting``: the most
    that wait connected for their turn; further devices are told to come back after ``retry_seconds`` or later. A task
    whose update has not arrived within ``deadline_seconds``, or whose device has been offline for
    ``liveness_seconds``, is given to another device. ``repeat`` lets a device train the same version again.
    ``cohort``: the most devices that train one version (0: no limit). ``cohort = merge.buffer`` gives synchronous
    rounds; a larger cohort over-selects. ``coverage``: weights that fewer running tasks train go first.
    """

    concurrency: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    waiting: Annotated[int, Field(ge=0)] = 1_000
    retry_seconds: Annotated[float, Field(gt=0)] = 30.0
    deadline_seconds: Annotated[float, Field(gt=0)] = 1_800.0
    liveness_seconds: Annotated[float, Field(gt=0)] = 300.0
    repeat: bool = True
    cohort: Annotated[int, Field(ge=0)] = 0
    coverage: Annotated[int, Field(ge=0)] = 1


class EvaluationSection(_Section):
    """
    What is made of metrics.

    ``metric`` is watched, and should grow unless ``minimise``; where neither is set and the task has no accuracy, the
    loss is watched. The run ends after ``patience`` versions without a
    better one (0: never). A merge that makes it worse by more than ``guard`` is rolled back; after three such in a
    row the run is paused. Each ``federated_every``-th version, ``federated_devices`` devices are asked how it does on
    their own samples; of fewer than ``federated_minimum`` answers nothing is kept. After ``learns_within`` merges whose
    median is no better than version 0 the run says so, with the settings to look at (0: never).
    """

    metric: str = "accuracy"
    minimise: bool = False
    patience: Annotated[int, Field(ge=0)] = 0
    guard: Annotated[float, Field(gt=0)] | None = None
    federated_devices: Annotated[int, Field(ge=0)] = 0
    federated_every: Annotated[int, Field(ge=1)] = 5
    federated_minimum: Annotated[int, Field(ge=1)] = 3
    learns_within: Annotated[int, Field(ge=0)] = 30

    @property
    def has_direction(self) -> bool:
        """Whether it is known which values of the metric are better: the run file says so, or its name does."""
        return self.metric in ("accuracy", "loss") or "minimise" in self.model_fields_set

    def for_task(self, metrics: Collection[str]) -> EvaluationSection:
        """The same for a task with these metrics: a loss is always minimised, and watched where nothing else can be."""
        section = self
        if "metric" not in self.model_fields_set and self.metric not in metrics:
            section = self.model_copy(update={"metric": "loss"})
        if section.metric == "loss":
            section = section.model_copy(update={"minimise": True})
        return section


class PlanningSection(_Section):
    """
    What devices train within their budgets; see docs/how-to/plan.md.

    ``mode``: ``nested`` gives every budget a plan of its own, each inside the next; ``common`` gives all devices the
    plan of the smallest. ``selector`` ranks layers, on the samples that ``data`` gives (``module:callable``) or on the
    task's own. ``shrink``: whether a smaller micro-batch is taken where that lets a budget train more; it slows a step.
    ``plans``: a folder that ``ftte plan`` wrote, instead of a search when the run begins. ``bake``: whether
    convolutions that no plan trains are inside the programs, where that takes less memory; see
    docs/explanation/lowering.md.
    ``frozen_bits``: weights that no plan trains are rounded to ``2**frozen_bits`` steps to the largest of a channel
    before the run begins, and travel in about so many bits each.
    """

    mode: Literal["nested", "common"] = "nested"
    selector: Literal["contribution", "fisher", "magnitude", "sensitivity", "last-layers", "random"] | None = None
    shrink: bool = True
    data: Annotated[str, Field(pattern=r"^([\w.]+:\w+)?$")] = ""
    seed: int = 0
    plans: Path | None = None
    bake: bool = False
    frozen_bits: Annotated[int, Field(ge=3, le=12)] | None = None

    @model_validator(mode="after")
    def _searched_or_given(self) -> PlanningSection:
        if self.plans is not None and self.model_fields_set & {"selector", "data", "shrink"}:
            raise ValueError(
                "plans were searched with selector, data and shrink already: leave those out, or leave plans out"
            )
        return self


P = TypeVar("P", ServerSection, DashboardSection)
S = TypeVar("S", ServerSection, GatewaysSection)


# With ``epochs = "auto"``: less than so many steps move a model too little for the bytes of a trip, and more passes
# than this over few samples fit it to these alone.
FEWEST_STEPS = 10
MOST_EPOCHS = 5


def _training_field(name: str) -> Any:
    """A field with the default and the limits that devices hold to."""
    default = getattr(TrainingSettings(), name)
    if name in COUNTS:
        return Field(default, ge=COUNTS[name])
    if name in RANGES:
        least, below = RANGES[name]
        return Field(default, ge=least, lt=below, allow_inf_nan=False)
    return Field(default)


class TrainingSection(_Section):
    """
    What devices do with what they get; see :class:`mobile_sdk.training.settings.TrainingSettings`.

    ``learning_rate``: ``auto`` finds one when the run begins, on the task's own samples
    (:mod:`exporters.search.learning_rate`); it stays the same for the whole run.
    """

    epochs: Annotated[int, Field(ge=COUNTS["epochs"])] | Literal["auto"] = "auto"
    steps: int = _training_field("steps")
    seconds: float = _training_field("seconds")
    batch_size: int = _training_field("batch_size")
    optimiser: OptimiserName = _training_field("optimiser")
    learning_rate: (
        Annotated[float, Field(ge=RANGES["learning_rate"][0], lt=RANGES["learning_rate"][1], allow_inf_nan=False)]
        | Literal["auto"]
    ) = "auto"
    momentum: float = _training_field("momentum")
    nesterov: bool = _training_field("nesterov")
    beta1: float = _training_field("beta1")
    beta2: float = _training_field("beta2")
    epsilon: float = _training_field("epsilon")
    weight_decay: float = _training_field("weight_decay")
    proximal: float = _training_field("proximal")
    clip_norm: float = _training_field("clip_norm")

    @model_validator(mode="after")
    def _belongs_together(self) -> TrainingSection:
        if self.nesterov and (self.optimiser != "sgd" or not self.momentum):
            raise ValueError("nesterov is for the optimiser sgd with a momentum: set both or neither")
        if self.momentum and self.optimiser != "sgd":
            raise ValueError(f"momentum is for the optimiser sgd; {self.optimiser} has beta1")
        return self

    @property
    def settings(self) -> TrainingSettings:
        """As devices get it; an ``auto`` that was not found yet is the devices' own default."""
        return TrainingSettings(**{name: value for name, value in self.model_dump().items() if value != "auto"})

    def epochs_for(self, samples: int | None) -> int:
        """
        Passes of a device over its samples; where ``auto``, as many as make ten steps, but five at the most.

        Args:
            samples: how many it has; none if it has not said so.

        """
        if self.epochs != "auto":
            return self.epochs
        steps = -(-(samples or FEWEST_STEPS * self.batch_size) // self.batch_size)
        return min(-(-FEWEST_STEPS // max(steps, 1)), MOST_EPOCHS)


class PayloadSection(_Section):
    """
    What travels; see :mod:`mobile_sdk.payload`.

    ``update`` is the dtype of updates, ``top_k`` the share of their elements that is sent (1: all). With
    ``differences`` devices get what changed since the version that they hold; published weights then lie on a grid of
    ``2**grid_bits`` steps to the largest weight of a channel, fixed when the run begins.
    """

    update: Literal["float32", "float16", "int16", "int8", "int4"] = "float32"
    top_k: Annotated[float, Field(gt=0, le=0.5)] | Literal[1] = 1
    differences: bool = True
    grid_bits: Annotated[int, Field(ge=4, le=20)] = 12

    @property
    def packing(self) -> UpdateFormat:
        """As devices get it."""
        return UpdateFormat(self.update, float(self.top_k))


class StalenessSection(_Section):
    """
    How much an update counts by its staleness; see :mod:`coordinator.merge.staleness`.

    An update that is more than ``maximum`` versions old is refused, or left out if it became so while it waited.
    """

    policy: Literal["constant", "polynomial", "hinge", "exponential", "age_variance", "distance"] = "polynomial"
    exponent: Annotated[float, Field(gt=0)] = 0.5
    slope: Annotated[float, Field(gt=0)] = 10.0
    threshold: Annotated[int, Field(ge=0)] = 4
    rate: Annotated[float, Field(gt=0)] = 0.1
    beta: Annotated[float, Field(ge=0)] = 1.0
    scale: Annotated[float, Field(gt=0)] = 1.0
    maximum: Annotated[int, Field(ge=0)] | None = None


class OptimiserSection(_Section):
    """
    What the server does with the direction of a merge; see :mod:`coordinator.merge.optimisers`.

    ``merge.learning_rate`` is its learning rate. ``correct`` takes off the momentum what asynchrony brings.
    """

    kind: Literal["sgd", "momentum", "adam"] = "sgd"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    epsilon: Annotated[float, Field(gt=0)] = 1e-3
    correct: bool = True


class MergeSection(_Section):
    """
    When and how updates become a version; see :mod:`coordinator.merge`.

    A merge takes ``buffer`` updates by at least ``min_contributors`` devices. ``auto`` makes that the smallest number
    from ``least`` on at which merges are stable, given how stale updates are (:mod:`coordinator.updates.buffer_size`),
    and at most the number of devices at work. A buffer that is not full, and that nothing has come into for
    ``flush_seconds``, is merged as it is (0: never). With ``limit`` updates waiting
    (by default 4 times the buffer), devices have to wait before they upload more. Coordinates that fewer than
    ``min_contributors_per_coordinate`` devices hold do not move. With ``defence`` no
    device counts for more than a few times what the median device does, in length, examples and share of a version;
    devices that are out of line again and again are set aside; and a version whose held-out metrics collapse is not
    published: see :mod:`coordinator.merge.defence`. Robust rules bear ``hostile`` devices of a merge
    (:mod:`coordinator.merge.robust_rules`). With ``keep_updates`` merged updates are not erased, but kept in the state
    directory, so that ``ftte verify-log`` can make every version anew.
    """

    buffer: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    least: Annotated[int, Field(ge=1)] = 10
    rule: Literal["holders", "fixed-K", "trimmed-mean", "median", "multi-krum", "centred-clipping"] = "holders"
    hostile: Annotated[int, Field(ge=1)] = 1
    min_holders: Annotated[float, Field(ge=0)] = 0.0
    learning_rate: Annotated[float, Field(gt=0)] = 1.0
    flush_seconds: Annotated[float, Field(ge=0)] = 600.0
    limit: Annotated[int, Field(ge=1)] | None = None
    min_contributors: Annotated[int, Field(ge=1)] = 1
    min_contributors_per_coordinate: Annotated[int, Field(ge=1)] = 1
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    outlier_factor: Annotated[float, Field(ge=1)] | None = None
    defence: bool = True
    keep_updates: bool = False
    difference: Literal["base", "current"] = "base"
    optimiser: OptimiserSection = OptimiserSection()
    staleness: StalenessSection = StalenessSection()

    def most(self, buffer: int) -> int:
        """How many updates may wait beside a buffer of ``buffer``."""
        return 4 * buffer if self.limit is None else self.limit

    @property
    def smallest(self) -> int:
        """How many updates a merge takes at the least, where there are enough devices."""
        return max(self.least, self.min_contributors) if self.buffer == "auto" else self.buffer

    @property
    def contributors_needed(self) -> int:
        """Distinct devices of a merge with which its rule bears ``hostile`` of them; 1 where it bears none anyway."""
        if self.rule in ("holders", "fixed-K"):
            return 1
        return 2 * self.hostile + (3 if self.rule == "multi-krum" else 1)

    @model_validator(mode="after")
    def _can_be_filled(self) -> MergeSection:
        if self.limit is not None and self.limit < self.smallest:
            raise ValueError(f"limit {self.limit} would never let a buffer of {self.smallest} fill: make it larger")
        for name in ("min_contributors", "min_contributors_per_coordinate"):
            if getattr(self, name) > self.smallest:
                raise ValueError(f"{name} {getattr(self, name)} is more than the buffer of {self.smallest} holds")
        return self

    @model_validator(mode="after")
    def _bears_what_it_says(self) -> MergeSection:
        needed = self.contributors_needed
        if self.min_contributors < needed:
            raise ValueError(
                f"the rule {self.rule} bears hostile = {self.hostile} in merges of {needed} devices or more: set "
                f"min_contributors = {needed}"
            )
        return self


class RetentionSection(_Section):
    """
    Which versions keep their files: the newest, the best, and those that a device was given in the last days.

    Of the others the record stays, so the history is whole; but there is no way back to them.
    """

    versions: Annotated[int, Field(ge=1)] = 20
    held_days: Annotated[float, Field(ge=0)] = 1.0


class StopSection(_Section):
    """
    When the run has ended; without a limit it goes on until it is stopped.

    ``goal`` is a value of ``evaluation.metric``, reached from above where that is minimised. ``updates`` counts merged
    ones.
    """

    goal: Annotated[float, Field(allow_inf_nan=False)] | None = None
    accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    versions: Annotated[int, Field(ge=1)] | None = None
    updates: Annotated[int, Field(ge=1)] | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None


class TrackingSection(_Section):
    """
    Where the run's curves go, besides ``history`` in the state directory.

    ``tensorboard``: a folder for TensorBoard's event files, one below it for each run. ``mlflow``: the address of an
    MLflow server, or a database such as ``sqlite:///mlflow.db``. ``wandb``: the name of a Weights & Biases project; the
    environment variable ``WANDB_MODE=offline`` keeps it on this machine. ``opentelemetry``: the address of a collector,
    such as ``http://127.0.0.1:4318``, which gets a trace of each merged update's way. Each needs the extra of its name
    (``pip install 'ftte[tensorboard]'``). A tracker that fails is reported once and stops no run.
    """

    tensorboard: Path | None = None
    mlflow: str | None = None
    wandb: str | None = None
    opentelemetry: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None


class LocalSection(_Section):
    """
    What `ftte run` starts on this machine, beside the coordinator.

    Each of ``devices`` has the samples that ``data`` gives: ``package.module:function(arguments)``, in which
    ``{index}`` stands for the device's number from 0 and ``{devices}`` for how many there are. Their budgets are those
    of ``[budgets]``, in turn.
    """

    devices: Annotated[int, Field(ge=1, le=64)] = 4
    data: Annotated[str, Field(pattern=r"^([\w.]+:\w+.*)?$")] = ""


class Config(_Section):
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


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; brackets around an IPv6 address are taken off."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
