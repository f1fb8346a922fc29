"""Curves in MLflow, by mlflow-skinny's client."""

from __future__ import annotations

from pathlib import Path

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from .tracker import TrackedPhase, TrackedUpdate, TrackedVersion

__all__ = ["MlflowTracker"]


class MlflowTracker:
    """
    One MLflow run in the experiment ``ftte``, found again by its tag after a restart; the step is the version.

    Args:
        uri: a tracking server's address, or a folder's.
        run: the run's name.
        state: the state directory, which says which MLflow run is this one's.

    """

    def __init__(self, uri: str, run: str, state: Path) -> None:
        self._client = MlflowClient(tracking_uri=uri)
        experiment = self._client.get_experiment_by_name("ftte")
        identity = experiment.experiment_id if experiment else self._client.create_experiment("ftte")
        tag = str(state.absolute())
        found = [
            each
            for each in self._client.search_runs([identity], f"attributes.run_name = '{run}'")
            if each.data.tags.get("ftte.state") == tag
        ]
        begun = found[0] if found else self._client.create_run(identity, run_name=run, tags={"ftte.state": tag})
        self._run = begun.info.run_id

    def on_version(self, version: TrackedVersion) -> None:
        numbers = dict(version.metrics) | {
            "bytes_up": float(version.bytes_up),
            "bytes_down": float(version.bytes_down),
            "merged_updates": float(version.updates),
        }
        if version.staleness is not None:
            numbers["staleness"] = version.staleness
        at = int(version.at * 1000)
        metrics = [Metric(name, value, at, version.version) for name, value in numbers.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def on_update(self, update: TrackedUpdate) -> None:
        pass  # their means are in the version's curves

    def on_phase(self, phase: TrackedPhase) -> None:
        self._client.set_tag(self._run, "ftte.phase", f"{phase.phase}: {phase.reason}")
        status = {"finished": "FINISHED", "running": "RUNNING"}.get(phase.phase)
        if status is not None:
            self._client.update_run(self._run, status=status)

    def close(self) -> None:
        pass  # every call was written as it came
