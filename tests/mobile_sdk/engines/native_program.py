"""A small weightless program, written with torch.export directly, for the tests of the native engine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import EdgeCompileConfig, ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes import MemoryPlanningPass
from torch.export import export

from mobile_sdk.engines import load_engine, self_check
from mobile_sdk.layout import Layout, Parameter, Slice, Subset
from mobile_sdk.manifest import FileEntry, InputContract, Manifest, Memory, Method, SelfCheck, TensorSpec

FEATURES, CLASSES, BATCH = 6, 3, 4
KEPT = (0, 2, 5)
LAYOUT = Layout(
    [Parameter("scale", (FEATURES,)), Parameter("weight", (FEATURES, CLASSES)), Parameter("bias", (CLASSES,))]
)
SUBSET = Subset(LAYOUT, {"weight": Slice(0, KEPT), "bias": None})
METHODS = ("train_step", "evaluate", "predict")


def _forward(x: Any, y: Any, sample_weight: Any, weight: Any, bias: Any, scale: Any) -> Any:
    features = x * scale
    logits = torch.bmm(features.unsqueeze(0), weight.unsqueeze(0)).squeeze(0) + bias
    loss = -(torch.log_softmax(logits, 1) * _one_hot(y)).sum(1)
    right = (logits.argmax(1) == y).to(torch.float32)
    return features, logits, (sample_weight * loss).sum(), (sample_weight * right).sum()


def _one_hot(y: Any) -> Any:
    return (y.unsqueeze(1) == torch.arange(CLASSES)).to(torch.float32)


class TrainStep(torch.nn.Module):
    def forward(self, x: Any, y: Any, sample_weight: Any, weight: Any, bias: Any, scale: Any) -> Any:
        features, logits, loss, correct = _forward(x, y, sample_weight, weight, bias, scale)
        error = sample_weight.unsqueeze(1) * (torch.softmax(logits, 1) - _one_hot(y))
        kept = torch.cat([features[:, i : i + 1] for i in KEPT], 1)
        return loss, correct, torch.bmm(kept.t().unsqueeze(0), error.unsqueeze(0)).squeeze(0), error.sum(0)


class Evaluate(torch.nn.Module):
    def forward(self, x: Any, y: Any, sample_weight: Any, weight: Any, bias: Any, scale: Any) -> Any:
        return _forward(x, y, sample_weight, weight, bias, scale)[2:]


class Predict(torch.nn.Module):
    def forward(self, x: Any, weight: Any, bias: Any, scale: Any) -> Any:
        return torch.bmm((x * scale).unsqueeze(0), weight.unsqueeze(0)).squeeze(0) + bias


def example(count: int = BATCH, seed: int = 0) -> Any:
    """x, y, sample_weight and weights."""
    rng = np.random.default_rng(seed)
    weights = {p.name: rng.standard_normal(p.shape).astype(np.float32) for p in LAYOUT}
    x = rng.standard_normal((count, FEATURES)).astype(np.float32)
    y = rng.integers(0, CLASSES, count)
    return x, y, rng.uniform(0.5, 1.5, count).astype(np.float32), weights


def by_autograd(x: Any, y: Any, sample_weight: Any, weights: Any) -> Any:
    """Loss sum, correct sum and compact gradients, by torch's own autograd on the n samples given."""
    tensors = {name: torch.tensor(array, requires_grad=name in SUBSET) for name, array in weights.items()}
    _, _, loss, correct = _forward(
        torch.tensor(x),
        torch.tensor(y),
        torch.tensor(sample_weight),
        *(tensors[n] for n in ("weight", "bias", "scale")),
    )
    loss.backward()
    gradients = {n: t.grad.numpy() for n, t in tensors.items() if t.grad is not None}
    return loss.item(), correct.item(), SUBSET.compact(gradients)


def program_bytes(*, delegate: bool = True, plan_outputs: bool = True, methods: Any = METHODS) -> bytes:
    """The ``.pte``."""
    x, y, sample_weight, weights = example()
    batch = [torch.tensor(x), torch.tensor(y), torch.tensor(sample_weight)]
    state = [torch.tensor(weights[n]) for n in ("weight", "bias", "scale")]
    exported = {
        "train_step": export(TrainStep(), (*batch, *state)),
        "evaluate": export(Evaluate(), (*batch, *state)),
        "predict": export(Predict(), (batch[0], *state)),
    }
    edge = to_edge_transform_and_lower(
        {name: exported[name] for name in methods},
        partitioner=[XnnpackPartitioner()] if delegate else [],
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )
    planning = MemoryPlanningPass(alloc_graph_input=False, alloc_graph_output=plan_outputs)
    return edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planning)).buffer


def manifest_for(content: bytes, methods: Any = METHODS) -> Manifest:
    """The manifest that describes :func:`program_bytes`."""
    batch = (
        TensorSpec("x", "", (BATCH, FEATURES), "float32"),
        TensorSpec("y", "", (BATCH,), "int64"),
        TensorSpec("sample_weight", "", (BATCH,), "float32"),
    )
    state = tuple(TensorSpec("weight", n, LAYOUT[n].shape, "float32") for n in ("weight", "bias", "scale"))
    sums = (TensorSpec("loss", "", (), "float32"), TensorSpec("metric", "correct", (), "float32"))
    gradients = tuple(TensorSpec("gradient", n, SUBSET.shape(n), "float32") for n in SUBSET)
    prediction = (TensorSpec("prediction", "", (BATCH, CLASSES), "float32"),)
    described = {
        "train_step": Method((*batch, *state), (*sums, *gradients), 0),
        "evaluate": Method((*batch, *state), sums, 0),
        "predict": Method((batch[0], *state), prediction, 0),
    }
    return Manifest(
        run="",
        serial=0,
        tier="all",
        task="test",
        files={"program.pte": FileEntry.of(content)},
        methods={name: described[name] for name in methods},
        layout=LAYOUT,
        subset=SUBSET,
        contract=InputContract((FEATURES,), "float32", (), "int64"),
        metrics=("correct",),
        micro_batch=BATCH,
        memory=Memory(0, 0, 0),
    )


def checked(content: bytes, manifest: Manifest, folder: Path) -> Manifest:
    """``manifest`` with the numbers that a right runtime computes; the program is written to ``folder`` for it."""
    limits = {p.name: (-1.0, 1.0) for p in LAYOUT}
    drawn = SelfCheck(0, ((-1.0, 1.0),), ((0.0, CLASSES - 1.0),), limits, loss=0.0, prediction=0.0, gradients={})
    engine = load_engine(write(folder, content, manifest))
    try:
        weights = self_check.draw_weights(manifest, drawn, folder / "drawn.safetensors")
        loss, prediction, gradients = self_check.observe(engine, drawn, weights)
    finally:
        engine.close()
    check = dataclasses.replace(drawn, loss=loss, prediction=prediction, gradients=gradients)
    return dataclasses.replace(manifest, check=check)


def write(folder: Path, content: bytes, manifest: Manifest) -> Path:
    """``content`` and ``manifest`` as a program folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "program.pte").write_bytes(content)
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return folder
