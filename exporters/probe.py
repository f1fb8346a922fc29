"""
What one eager step over the example tells of a task, before anything is exported.

The model runs on copies of its state, so that making a task never changes it. Seen are: which parameters the loss
depends on, which buffers the forward pass moves, whether samples of a batch see each other, and what whole numbers are
looked up in the model's tables or among its classes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils._python_dispatch import TorchDispatchMode

from mobile_sdk.manifest import Bound

from .batches import Batch, names_of, run, tensors_of, value_of
from .errors import ExportError, TaskError, one_line

__all__ = ["Probe", "evaluating", "probe", "unwrap"]

Loss = Callable[[Any, Any], Tensor]
_CLOSE = 1e-4


@dataclasses.dataclass(frozen=True)
class Probe:
    """
    What was seen.

    Args:
        unused: parameters that ask for gradients and get none.
        moved: buffers of the state that a training step changes, in the order of the state.
        whole: methods in which samples of a batch see each other, so that a batch must be full.
        bounds: what whole numbers may be.

    """

    unused: tuple[str, ...]
    moved: tuple[str, ...]
    whole: tuple[str, ...]
    bounds: tuple[Bound, ...]


def unwrap(model: nn.Module, notes: list[str]) -> nn.Module:
    """
    The eager module inside ``torch.compile`` or data parallelism.

    Raises:
        TaskError: if there is none, or its parameters are not there yet.

    """
    if not isinstance(model, nn.Module):
        remedy = "; call it" if callable(model) else ""
        raise TaskError(f"the model is a {type(model).__name__}, no torch.nn.Module{remedy}")
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(inner, nn.Module):
            notes.append("the model is compiled; the module inside is exported")
            model = inner
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            notes.append(f"the model is a {type(model).__name__}; the module inside is exported")
            model = model.module
        else:
            break
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            where = f"its module {name!r}" if name else "the model"
            raise TaskError(f"{where} is TorchScript, whose Python is gone; give the nn.Module that was scripted")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise TaskError(f"{name!r} has no shape yet: call the model once, model(example_x), before making a Task")
    return model


def probe(
    model: nn.Module, loss: Loss, x: Batch, y: Batch, metrics: Mapping[str, Loss], plain: Callable[[], Any]
) -> tuple[Probe, Any, Tensor, dict[str, Tensor]]:
    """
    Run the model and its loss on the example.

    Args:
        model: in the mode in which it trains.
        loss: one value per sample.
        x: the example's inputs.
        y: its targets.
        metrics: looked at for what they look up.
        plain: a context in which the model draws no random numbers.

    Returns:
        What was seen, the model's output, its losses, and each metric's values.

    Raises:
        TaskError: if the model, the loss or a metric fails.

    """
    parameters = dict(model.named_parameters())
    asked = [name for name, p in parameters.items() if p.requires_grad]
    state = _copied(model)
    for name in asked:
        state[name].requires_grad_(True)
    seen = _LookUps(x, y)
    with plain(), seen:
        try:
            output = run(model, state, x)
        except ExportError:
            raise
        except Exception as error:
            raise TaskError(f"the model fails on the example batch: {one_line(error)}") from error
        _check_output(output, len(x))
        values = _values(loss, "the loss", output, y)
        measured = {name: _values(metric, f"metric {name!r}", output.detach(), y) for name, metric in metrics.items()}
    gradients: Sequence[Tensor | None] = [None] * len(asked)
    if values.requires_grad and asked:
        gradients = torch.autograd.grad(
            values.double().sum(), [state[name] for name in asked], allow_unused=True, materialize_grads=False
        )
    unused = tuple(name for name, gradient in zip(asked, gradients, strict=True) if gradient is None)
    moved = tuple(name for name, before in _buffers(model).items() if not _same(before, state[name]))
    whole = []
    if _mixes(model, loss, x, y, plain, values.detach()):
        whole.append("train_step")
    if _mixes(model, loss, x, y, plain, None):
        whole.append("evaluate")
    found = Probe(unused, moved, tuple(whole), seen.bounds())
    return found, output.detach(), values.detach(), measured


def _copied(model: nn.Module) -> dict[str, Tensor]:
    """Copies of parameters and buffers, each once: what ``functional_call`` takes."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in tensors}


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_buffers())


def _same(before: Tensor, after: Tensor) -> bool:
    return before.shape == after.shape and torch.equal(before.detach().nan_to_num(0.0), after.detach().nan_to_num(0.0))


def _check_output(output: object, n: int) -> None:
    if not isinstance(output, Tensor) or output.dim() < 1 or len(output) != n:
        what = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        hint = "" if isinstance(output, Tensor) else "; wrap it in a module that returns one, such as torch.cat of them"
        raise TaskError(f"the model must give one tensor with {n} samples on its first axis, not {what}{hint}")


def _values(function: Loss, name: str, output: Tensor, y: Batch) -> Tensor:
    try:
        values = function(output, value_of(y))
    except Exception as error:
        raise TaskError(f"{name} fails on the example batch: {one_line(error)}") from error
    n = len(output)
    if not isinstance(values, Tensor) or tuple(values.shape) != (n,):
        what = f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
        raise TaskError(f"{name} must give one value per sample, shape ({n},), not {what}{_remedy(values, output, y)}")
    return values


def _remedy(values: object, output: Tensor, y: Batch) -> str:
    """What gives one value per sample, for the end of a sentence."""
    if not isinstance(values, Tensor):
        return ""
    if values.dim() == 0:
        return '; leave the mean out, as reduction="none" does'
    if isinstance(y, Tensor) and output.shape != y.shape and output.squeeze().shape == y.squeeze().shape:
        shapes = f"{tuple(output.shape)} and {tuple(y.shape)}"
        return f": outputs and targets, of the shapes {shapes}, meet each with each; use output.reshape(y.shape)"
    return "; take the mean over all axes but the first" if values.dim() > 1 else ""


def _mixes(model: nn.Module, loss: Loss, x: Batch, y: Batch, plain: Callable[[], Any], training: Tensor | None) -> bool:
    """Whether the first half of the batch has another loss by itself, or cannot be run by itself."""
    if training is not None and any(
        isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in model.modules()
    ):
        return True  # also where the samples of the example are all the same
    count = len(x) // 2
    if not count:
        return False
    mode = contextlib.nullcontext() if training is not None else evaluating(model)
    with torch.no_grad(), plain(), mode:
        try:
            whole = training if training is not None else _losses(model, loss, x, y)
            part = _losses(model, loss, x[:count], y[:count])
        except Exception:  # a batch size that is written into the model
            return True
    scale = float(whole.abs().max()) + 1e-6
    return not float((whole[:count] - part).abs().max()) <= _CLOSE * scale


def _losses(model: nn.Module, loss: Loss, x: Batch, y: Batch) -> Tensor:
    return loss(run(model, _copied(model), x), value_of(y))


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """All modules in eval mode inside."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@dataclasses.dataclass(frozen=True)
class _Origin:
    """Where the numbers of a storage come from; ``width`` is the last axis of what was given, 1 for single numbers."""

    array: str
    part: str
    width: int
    whole: bool
    column: int | None = None


class _LookUps(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes by what numbers of x and y something is looked up."""

    def __init__(self, x: Batch, y: Batch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._alive: list[Tensor] = []
        self._origins: dict[int, _Origin] = {}
        self._found: dict[tuple[str, str, int | None], Bound] = {}
        for array, batch in (("x", x), ("y", y)):
            for name, tensor in zip(names_of(batch), tensors_of(batch), strict=True):
                width = tensor.shape[-1] if tensor.dim() > 1 else 1
                self._note(tensor, _Origin(array, name, width, not tensor.is_floating_point()))

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::") if isinstance(func, torch._ops.OpOverload) else ""
        if name in ("_to_copy", "clone") and isinstance(args[0], Tensor):
            origin = self._origin(args[0])
            if origin is not None:
                self._note(result, origin)
        for index, size, ignored in _looked_up(name, args):
            self._bound(index, size, ignored)
        return result

    def bounds(self) -> tuple[Bound, ...]:
        """What was found; a bound on everything in an array stands for those on its columns."""
        return tuple(self._found[key] for key in sorted(self._found, key=repr))

    def _note(self, tensor: Tensor, origin: _Origin) -> None:
        self._alive.append(tensor)
        self._origins[tensor.untyped_storage().data_ptr()] = origin

    def _origin(self, tensor: Tensor) -> _Origin | None:
        """Of the numbers that a view of a noted storage shows."""
        if tensor.numel() == 0:
            return None
        origin = self._origins.get(tensor.untyped_storage().data_ptr())
        if origin is None or origin.column is not None or origin.width == 1:
            return origin
        steps = [step for size, step in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]
        if all(step % origin.width == 0 for step in steps):
            return dataclasses.replace(origin, column=int(tensor.storage_offset()) % origin.width)
        everything = tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
        return origin if origin.whole or everything else None

    def _bound(self, index: Tensor, size: int, ignored: int | None) -> None:
        origin = self._origin(index)
        if origin is None:
            return
        key = (origin.array, origin.part, origin.column)
        before = self._found.get(key)
        bound = Bound(origin.array, origin.part, 0, size - 1, ignored, origin.column)
        if before is not None:
            both = before.ignored if before.ignored == ignored else None
            bound = dataclasses.replace(bound, high=min(bound.high, before.high), ignored=both)
        self._found[key] = bound


def _looked_up(name: str, args: Sequence[Any]) -> list[tuple[Tensor, int, int | None]]:
    """(indices, how many there are to choose from, what is ignored) of an operator that looks something up."""
    match name:
        case "embedding" | "_embedding_bag" | "_embedding_bag_forward_only":
            return [(args[1], args[0].shape[0], None)]
        case "nll_loss_forward" | "nll_loss2d_forward":
            ignored = int(args[4]) if len(args) > 4 else -100
            classes = args[0].shape[1] if args[0].dim() > 1 else args[0].shape[0]
            return [(args[1], classes, None if 0 <= ignored < classes else ignored)]
        case "gather" | "index_select" | "scatter" | "scatter_" | "scatter_add" | "scatter_add_":
            axis = int(args[1])
            return [(args[2], args[0].shape[axis], None)] if args[0].dim() else []
        case "index" | "_unsafe_index":
            return [
                (index, args[0].shape[axis], None)
                for axis, index in enumerate(args[1])
                if isinstance(index, Tensor) and index.dtype in (torch.int64, torch.int32)
            ]
    return []
