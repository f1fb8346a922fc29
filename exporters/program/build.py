"""From a task to a program that is known to be right: export, verify, save."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, fx

from mobile_sdk import safetensors
from mobile_sdk.errors import ProgramError
from mobile_sdk.layout import Subset, Vector
from mobile_sdk.manifest import (
    GRAPH_FILE,
    MANIFEST_FILE,
    PROGRAM_FILE,
    FileEntry,
    Manifest,
    Memory,
    Method,
    SelfCheck,
    TensorSpec,
)

from ..batches import like, names_of, tensors_of
from ..cache import store as cache
from ..cache.fingerprint import Unknown, fingerprint
from ..eager.draws import medians
from ..emit.pte import Emitted, emit
from ..emit.simplify import cut
from ..lowering.lower import lower, prepare
from ..lowering.passes.forward_part import find
from ..plan import Plan
from ..task import Task
from .step import Step
from .tracing import trace

__all__ = ["WEIGHTS_FILE", "Program", "build"]

WEIGHTS_FILE = "weights.safetensors"
METHODS = ("train_step", "evaluate", "predict")
EVALUATE_AND_PREDICT = "evaluate and predict"

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Program:
    """
    A training program for one plan, with the weights to start from.

    Args:
        manifest: what a device must know of it.
        pte: the ExecuTorch program; it holds no weights.
        graph: the same methods for the engine that interprets.
        weights: the task's initial weights, float32, shape ``(layout.size,)``.
        gradient_error: largest error of a gradient found when it was verified, relative to its norm;
            :obj:`None` in a program that was not exported but loaded.
        seconds: what the export took, search included; 0 in a loaded one.

    """

    manifest: Manifest
    pte: bytes
    graph: bytes
    weights: Vector
    gradient_error: float | None = None
    seconds: float = 0.0

    @property
    def plan(self) -> Plan:
        """What it trains, and what is inside it; how it was lowered is not known of a loaded program."""
        return Plan(self.manifest.trained, self.manifest.micro_batch, self.manifest.baked)

    @property
    def files(self) -> dict[str, bytes]:
        """What the manifest lists, by name."""
        return {PROGRAM_FILE: self.pte, GRAPH_FILE: self.graph}

    def with_check(self, check: SelfCheck) -> Program:
        """The same program, its manifest with what devices try it with."""
        return dataclasses.replace(self, manifest=dataclasses.replace(self.manifest, check=check))

    def for_run(self, run: str, serial: int, tier: str) -> Program:
        """
        The same program, its manifest made out to a run.

        Args:
            run: the run's name.
            serial: rises with every program that a run signs.
            tier: the name of the budget.

        """
        return dataclasses.replace(self, manifest=dataclasses.replace(self.manifest, run=run, serial=serial, tier=tier))

    def save(self, folder: str | Path) -> None:
        """Write the manifest, the files that it lists and the initial weights to ``folder``, made if missing."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        (folder / WEIGHTS_FILE).write_bytes(safetensors.dumps(self.manifest.layout.views(self.weights)))
        (folder / MANIFEST_FILE).write_bytes(self.manifest.to_bytes())

    @classmethod
    def load(cls, folder: str | Path) -> Program:
        """
        Read what :meth:`save` wrote.

        Raises:
            ProgramError: if a file is missing or is not the manifest's.
            PayloadError: if the weights are not a safetensors file.
            LayoutError: if the weights do not fit the manifest.

        """
        folder = Path(folder)
        try:
            manifest = Manifest.from_bytes((folder / MANIFEST_FILE).read_bytes())
            files = {name: (folder / name).read_bytes() for name in (PROGRAM_FILE, GRAPH_FILE)}
            arrays, _ = safetensors.loads((folder / WEIGHTS_FILE).read_bytes())
        except OSError as error:
            raise ProgramError(f"no program in {folder}: {error}") from error
        for name, content in files.items():
            if FileEntry.of(content) != manifest.files.get(name):
                raise ProgramError(f"{folder / name} is not the file that the manifest describes")
        return cls(manifest, files[PROGRAM_FILE], files[GRAPH_FILE], manifest.layout.flatten(arrays))


def build(
    task: Task, plan: Plan, methods: Sequence[str] = METHODS, *, cached: bool = True, progress: Progress | None = None
) -> Program:
    """
    Lower and emit, without verifying or measuring: what the search tries out, with the methods that it needs.

    With ``cached``, what the same step gave before is taken from :mod:`exporters.cache.store`.

    Args:
        task: what to learn.
        plan: what is trained.
        methods: which of a program's methods.
        cached: whether what was built before may be used.
        progress: called with a line of text at every stage.

    Raises:
        ExportError: if an operator cannot be lowered.

    """
    known = _fingerprint(task, plan, methods) if cached else None
    kept = cache.load(known) if known else None
    if kept is not None:
        size, _, content = kept.partition(b"\n")
        manifest = Manifest.from_bytes(content[: int(size)])
        emitted = Emitted.from_bytes(content[int(size) :])
        return Program(manifest, emitted.pte, emitted.graph, task.initial_weights())
    program, emitted = _build(task, plan, methods, cached, progress or _silent)
    if known:
        manifest_bytes = program.manifest.to_bytes()
        cache.store(known, b"%d\n" % len(manifest_bytes) + manifest_bytes + emitted.to_bytes())
    return program


def _fingerprint(task: Task, plan: Plan, methods: Sequence[str]) -> str | None:
    try:
        return cache.key("step", *methods, fingerprint(task, plan))
    except Unknown:
        return None


def _build(task: Task, plan: Plan, methods: Sequence[str], cached: bool, say: Progress) -> tuple[Program, Emitted]:
    step = Step(task, plan)
    plan = step.plan
    functions = calls(step)
    # A prediction is part of an evaluation: both are traced and lowered as one.
    together = "evaluate" in methods and "predict" in methods
    whole = {"evaluate": EVALUATE_AND_PREDICT} if together else {}
    traced = {}
    for name in methods:
        if name == "predict" and together:
            continue
        say(f"tracing {name}")
        function, inputs = functions[whole.get(name, name)]
        traced[name] = trace(function, task.model, inputs), inputs
    known = cache.graphs_key(traced, json.dumps([plan.to_json(), together]))
    kept = cache.load(known) if cached else None
    if kept is None:
        graphs = {}
        for name, (graph, _) in traced.items():
            say(f"lowering {name}")
            graphs[name] = lowered(step, whole.get(name, name), graph)
        if together:
            joint = graphs["evaluate"]
            graphs["evaluate"] = cut(joint, outputs=slice(0, -1))
            first, last = len(tensors_of(task.example_x)), len(tensors_of(task.example_y))
            graphs["predict"] = cut(joint, outputs=slice(-1, None), without=range(first, first + last + 1))
        say("emitting")
        emitted = emit({name: graphs[name] for name in methods})
        cache.store(known, emitted.to_bytes())
    else:
        emitted = Emitted.from_bytes(kept)
    manifest = Manifest(
        run="",
        serial=0,
        tier="",
        task=task.name,
        files={PROGRAM_FILE: FileEntry.of(emitted.pte), GRAPH_FILE: FileEntry.of(emitted.graph)},
        methods={n: _method(step, n, emitted.planned[n], functions[n][1]) for n in methods},
        layout=task.layout,
        subset=Subset(task.layout, {n: kept for n, kept in plan.subset.items() if n not in task.local}),
        contract=task.contract,
        metrics=tuple(task.metrics),
        micro_batch=plan.micro_batch,
        memory=Memory(0, emitted.planned["train_step"], 0),
        baked=plan.baked,
        local=task.local,
        moved=task.moved,
        whole=tuple(method for method in task.whole if method in methods),
    )
    return Program(manifest, emitted.pte, emitted.graph, task.initial_weights()), emitted


def calls(step: Step) -> dict[str, tuple[Callable[..., tuple[Tensor, ...]], list[Tensor]]]:
    """Method -> its function and example inputs, in the order of the call."""
    x, y = step.task.batch(step.plan.micro_batch)
    xs, ys = tensors_of(x), tensors_of(y)
    sample_weight = torch.ones(step.plan.micro_batch)

    def of_batch(method: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
        """The method over tensors alone, in the order of the call."""
        i, j = len(xs), len(xs) + len(ys)
        return lambda *inputs: method(like(x, inputs[:i]), like(y, inputs[i:j]), *inputs[j:])

    state = {n: torch.from_numpy(view) for n, view in step.task.layout.views(step.task.initial_weights()).items()}
    ordered, natural = [state[n] for n in step.order], [state[n] for n in step.names]
    return {
        "train_step": (of_batch(step.train_step), [*xs, *ys, sample_weight, *ordered, *medians(step.draws)]),
        "evaluate": (of_batch(step.evaluate), [*xs, *ys, sample_weight, *natural]),
        "predict": (
            lambda *inputs: (step.predict(like(x, inputs[: len(xs)]), *inputs[len(xs) :]),),
            [*xs, *natural],
        ),
        EVALUATE_AND_PREDICT: (of_batch(step.evaluate_and_predict), [*xs, *ys, sample_weight, *natural]),
    }


def lowered(step: Step, method: str, graph: fx.GraphModule | None = None) -> fx.GraphModule:
    """
    A method as :func:`~exporters.emit.pte.emit` takes it.

    Args:
        step: of a task and a plan.
        method: a name in :func:`calls`.
        graph: its traced graph where there is one, which is used up.

    Raises:
        ExportError: if an operator cannot be lowered.

    """
    function, inputs = calls(step)[method]
    model = step.task.model
    first = len(tensors_of(step.task.example_x))
    batched = first if method == "predict" else first + len(tensors_of(step.task.example_y)) + 1
    masks = range(batched + len(step.order), len(inputs)) if method == "train_step" else range(0)
    targets = list(range(first, batched))
    live = [*targets, *range(batched, batched + len(step.trained)), *masks] if method == "train_step" else targets

    def fewer(samples: int) -> fx.GraphModule:
        rows = [t[:samples] if i < batched or i in masks else t for i, t in enumerate(inputs)]
        return prepare(trace(function, model, rows))

    graph = prepare(graph or trace(function, model, inputs))
    # Tiles are of one input, and of samples that do not see each other.
    part = None if first > 1 or step.moved else find(graph, inputs, live, step.plan.forward_batch, fewer)
    return lower(graph, inputs, step.plan.lowering, part)


def _silent(text: str) -> None:
    """Nobody is watching."""


def _method(step: Step, name: str, planned: int, inputs: list[Tensor]) -> Method:
    """What the manifest says of a method, which the runtime compares with the program itself."""
    order = step.order if name == "train_step" else step.names
    x, y = step.task.example_x, step.task.example_y
    roles = [("x", part) for part in names_of(x)]
    if name != "predict":
        roles += [*(("y", part) for part in names_of(y)), ("sample_weight", "")]
    roles += [("weight", n) for n in order]
    draws = step.draws if name == "train_step" else []
    roles += [(d.role, d.module) for d in draws]
    keep = [1.0] * (len(inputs) - len(draws)) + [d.keep for d in draws]
    specs = tuple(
        TensorSpec(role, n, tuple(t.shape), str(t.dtype).removeprefix("torch."), k)
        for (role, n), t, k in zip(roles, inputs, keep, strict=True)
    )
    if name == "predict":
        count = len(names_of(x))
        output = tuple(step.predict(like(x, inputs[:count]), *inputs[count:]).shape)
        return Method(specs, (TensorSpec("prediction", "", output, "float32"),), planned)
    sums = [TensorSpec("loss", "", (), "float32"), *(TensorSpec("metric", m, (), "float32") for m in step.task.metrics)]
    subset = step.plan.subset
    gradients = [TensorSpec("gradient", n, subset.shape(n), "float32") for n in subset] if name == "train_step" else []
    return Method(specs, (*sums, *gradients), planned)
