"""A trained version as a model to use: a state dict for torch, or an ExecuTorch program that holds its weights."""

from __future__ import annotations

import copy
import io

import torch
from torch import nn

from mobile_sdk import safetensors

from ..batches import Batch, arguments, call, tensors_of
from ..errors import ExportError
from ..quiet import quiet
from ..task import Task, load_task

__all__ = ["inference_program", "state_dict"]

# Outputs of the program and of the model differ by rounding only.
TOLERANCE = 1e-3


def state_dict(task: str, weights: bytes) -> bytes:
    """
    A version as a ``.pt`` file: ``torch.load(file, weights_only=True)`` gives what ``load_state_dict`` takes.

    Args:
        task: ``package.module:task``.
        weights: the version's safetensors file.

    Raises:
        ExportError: if the weights are not those of the task's model.

    """
    model = _model(load_task(task), weights)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.getvalue()


def inference_program(task: str, weights: bytes) -> bytes:
    """
    A version as a ``.pte`` file: one method, ``forward(x) -> output``, for one sample, delegated to XNNPACK.

    Its output on the task's example was compared with that of the model.

    Args:
        task: ``package.module:task``.
        weights: the version's safetensors file.

    Raises:
        ExportError: if the weights are not those of the task's model, or the program computes something else.

    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    loaded = load_task(task)
    model = _model(loaded, weights)
    x = loaded.batch(1)[0]
    with quiet(), torch.no_grad():
        args, kwargs = arguments(x)
        program = torch.export.export(model, args, kwargs, strict=False)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        content = bytes(lowered.to_executorch().buffer)
    _check(content, model, x)
    return content


def _model(task: Task, weights: bytes) -> nn.Module:
    arrays, _ = safetensors.loads(weights)
    model = copy.deepcopy(task.model).eval()
    state = model.state_dict()
    wrong = sorted(name for name in arrays if name not in state or tuple(state[name].shape) != arrays[name].shape)
    missing = sorted(parameter.name for parameter in task.layout if parameter.name not in arrays)
    if wrong or missing:
        raise ExportError(
            f"the weights do not fit the task's model at {(wrong or missing)[0]!r}: give the run's own task"
        )
    with torch.no_grad():  # in place: a tied weight has its other names' values too
        for name, array in arrays.items():
            state[name].copy_(torch.from_numpy(array.copy()))
    return model


def _check(content: bytes, model: nn.Module, x: Batch) -> None:
    from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer

    with torch.no_grad():
        expected = call(model, x)
    with quiet():
        (given,) = _load_for_executorch_from_buffer(content).forward([t.contiguous() for t in tensors_of(x)])
    error = float((given - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    if not error <= TOLERANCE:
        raise ExportError(f"the program's output differs from the model's by {error:.1e} of its largest value")
