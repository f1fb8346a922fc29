"""The task, its data and the budgets. This needs torch: ``ftte serve`` does it in a worker process."""

from __future__ import annotations

from collections.abc import Iterator

from exporters.search import check_budgets
from exporters.search.plan_files import load as load_plans
from exporters.task import Task, load_samples, load_task
from exporters.user_code import call_users
from mobile_sdk.errors import FtteError
from mobile_sdk.sizes import format_bytes

from ..config import Config
from .findings import Finding
from .samples import fit_samples

__all__ = ["check_task"]


def check_task(config: Config) -> Iterator[Finding]:
    """Whether a run can be planned: the task loads, its data fit it, and each budget has room for some plan."""
    try:
        task = load_task(config.run.task)
    except FtteError as error:
        yield Finding("error", f"run.task: {error}")
        return
    yield Finding("ok", f"the task {config.run.task} has {task.layout.size} parameters")
    for note in task.notes:
        yield Finding("ok", f"the task {config.run.task}: {note}")
    yield from _metrics(config, task)
    yield from _statistics(config, task)
    try:
        if task.held_out is not None:
            x, _ = fit_samples(task, call_users(task.held_out, "held_out"), "the held-out data")
            yield Finding("ok", f"the held-out data have {len(x)} samples")
        yield from _planning(config, task)
    except FtteError as error:
        yield Finding("error", str(error))


def _metrics(config: Config, task: Task) -> Iterator[Finding]:
    evaluation, stop = config.evaluation, config.stop
    watched = {"loss", *task.metrics}
    if task.held_out is None:
        yield Finding(
            "warning", "the task has no held-out data: versions get no metrics, and no guard watches over merges"
        )
    elif evaluation.metric not in watched:
        decides = evaluation.guard is not None or evaluation.patience > 0 or "metric" in evaluation.model_fields_set
        own = ", ".join(sorted(watched))
        yield (
            Finding(
                "error",
                f"evaluation.metric {evaluation.metric!r} is none of the task's metrics ({own}): set evaluation.metric "
                "to one of them",
            )
            if decides
            else Finding("ok", f"the loss is watched: evaluation.metric may name another of the task's metrics ({own})")
        )
    elif not evaluation.has_direction:
        yield Finding(
            "warning",
            f"larger values of {evaluation.metric} are taken for better ones: set evaluation.minimise to say which are",
        )
    if stop.accuracy is not None and (task.held_out is None or "accuracy" not in task.metrics):
        yield Finding("error", "stop.accuracy needs a task with held-out data and a metric named accuracy")
    if stop.goal is not None and task.held_out is None:
        yield Finding("error", "stop.goal needs a task with held-out data: give Task(..., held_out=...)")
    if task.local and task.held_out is not None:
        used = [
            name
            for name, value in (
                ("stop.accuracy", stop.accuracy),
                ("stop.goal", stop.goal is not None),
                ("evaluation.guard", evaluation.guard),
                ("evaluation.patience", evaluation.patience),
            )
            if value
        ]
        if used:
            yield Finding(
                "warning",
                f"devices keep {', '.join(task.local)} to themselves, so the coordinator evaluates with those as the "
                f"task gives them: {', '.join(used)} would follow a metric that says little. Set stop.versions or "
                "stop.seconds instead, and evaluation.federated_devices to see the metrics of devices",
            )


def _statistics(config: Config, task: Task) -> Iterator[Finding]:
    """Whether merges suit buffers that a training step moves, and batches models whose samples see each other."""
    if "train_step" in task.whole:
        if config.training.batch_size % task.micro_batch:
            yield Finding(
                "error",
                f"training.batch_size {config.training.batch_size} cannot be split into full micro-batches of "
                f"{task.micro_batch}, which the task needs, since its samples see each other (as in batch "
                f"normalisation): set training.batch_size to a multiple of {task.micro_batch}",
            )
        yield Finding(
            "warning",
            f"samples of a micro-batch see each other (as in batch normalisation in training mode): devices with fewer "
            f"than {task.micro_batch} samples cannot train, and each is normalised with its own data only. Group "
            "normalisation has neither limit",
        )
    kind = config.merge.optimiser.kind
    if task.moved and kind != "sgd":
        yield Finding(
            "error" if kind == "adam" else "warning",
            f"merge.optimiser.kind {kind!r} treats {task.moved[0]} and {len(task.moved) - 1} other buffers that "
            "training moves like weights, and may make a variance negative: set merge.optimiser.kind to 'sgd', or "
            "train with the model in eval mode",
        )


def _planning(config: Config, task: Task) -> Iterator[Finding]:
    planning = config.planning
    proxy = "the proxy data"
    samples = load_samples(planning.data) if planning.data else None
    if planning.data:
        proxy = f"planning.data {planning.data}"
    elif task.proxy is not None:
        samples = call_users(task.proxy, "proxy")
    if samples is not None:
        x, _ = fit_samples(task, samples, proxy)
        yield Finding("ok", f"{proxy} have {len(x)} samples")
    budgets = sorted(config.budgets.values())
    if planning.plans is not None:
        load_plans(planning.plans, task.layout, budgets[:1] if planning.mode == "common" else budgets)
        yield Finding("ok", f"the plans of all budgets are in {planning.plans}")
        return
    enough = check_budgets(task, budgets)
    if budgets[0] < enough:
        yield Finding(
            "warning",
            f"perhaps no plan fits the budget {format_bytes(budgets[0])}, which planning finds out: "
            f"{format_bytes(enough)} are enough",
        )
    else:
        yield Finding("ok", "every budget has room for some plan")
