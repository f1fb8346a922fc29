"""The run file: everything an operator decides about a run."""

from .evaluation import EvaluationSection
from .local import LocalSection
from .merge import MergeSection, OptimiserSection, StalenessSection
from .operating import AdminSection, DashboardSection
from .payload import PayloadSection
from .planning import PlanningSection
from .run import RetentionSection, RunSection, StopSection, StoreSection
from .run_file import Config, load_config, parse_config, run_files, shared_gateways, shared_server
from .scheduling import LimitsSection, SchedulingSection
from .section import Size
from .server import GatewaysSection, ServerSection, split_address
from .tracking import TrackingSection
from .training import TrainingSection

__all__ = [
    "AdminSection",
    "Config",
    "DashboardSection",
    "EvaluationSection",
    "GatewaysSection",
    "LimitsSection",
    "LocalSection",
    "MergeSection",
    "OptimiserSection",
    "PayloadSection",
    "PlanningSection",
    "RetentionSection",
    "RunSection",
    "SchedulingSection",
    "ServerSection",
    "Size",
    "StalenessSection",
    "StopSection",
    "StoreSection",
    "TrackingSection",
    "TrainingSection",
    "load_config",
    "parse_config",
    "run_files",
    "shared_gateways",
    "shared_server",
    "split_address",
]
