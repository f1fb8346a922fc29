"""
Batches as a task has them: one tensor, or several that belong together.

A model may take a tuple (``forward(ids, mask)``) or a dict (``forward(**batch)``), and so may a loss take its targets.
On devices such a batch is one array of records (:mod:`mobile_sdk.fields`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call

from mobile_sdk.fields import join, parts

from .errors import TaskError

__all__ = [
    "Batch",
    "Several",
    "arguments",
    "as_batch",
    "call",
    "like",
    "names_of",
    "numpy_of",
    "run",
    "tensors_of",
    "value_of",
]


class Several:
    """
    Tensors of shape (n, ...) that are one batch; an index picks samples of all of them.

    Args:
        tensors: by name; a tuple's are numbered.
        named: whether they are passed by name.

    """

    def __init__(self, tensors: Mapping[str, Tensor], named: bool) -> None:
        self.tensors = dict(tensors)
        self.named = named

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: Any) -> Several:
        return Several({name: tensor[index] for name, tensor in self.tensors.items()}, self.named)


Batch: TypeAlias = Tensor | Several

# What a device does not know -> what it is converted to.
_CONVERTED = {
    torch.float64: torch.float32,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}


def as_batch(value: Any, name: str, notes: list[str]) -> Batch:
    """
    A user's example as contiguous tensors of dtypes that devices know.

    Args:
        value: tensor or array, or a tuple or dict of them.
        name: of it, for sentences.
        notes: gets a sentence for every conversion.

    Raises:
        TaskError: if it is none of these.

    """
    if isinstance(value, np.ndarray) and value.dtype.names:
        value = parts(value)
    if isinstance(value, Mapping) or (isinstance(value, tuple | list) and _all_arrays(value)):
        named = isinstance(value, Mapping)
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        tensors = {str(key): _tensor(part, f"{name}[{key!r}]", notes) for key, part in pairs}
        if not tensors:
            raise TaskError(f"{name} is empty; give at least one tensor")
        if len(tensors) == 1 and not named:
            return next(iter(tensors.values()))
        return Several(tensors, named)
    return _tensor(value, name, notes)


def _all_arrays(value: Sequence[Any]) -> bool:
    return len(value) > 0 and all(isinstance(part, Tensor | np.ndarray) for part in value)


def _tensor(value: Any, name: str, notes: list[str]) -> Tensor:
    try:
        if not isinstance(value, Tensor) and hasattr(value, "__array__"):
            value = np.array(value)  # a table of pandas, say, whose own array may be read-only
        tensor = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(
            f"{name} is a {type(value).__name__}, of which no tensor can be made; give a tensor, an array, or a tuple "
            "or dict of them"
        ) from error
    wanted = _CONVERTED.get(tensor.dtype)
    if wanted is not None:
        notes.append(f"{name} is {_dtype(tensor)} and was converted to {str(wanted).removeprefix('torch.')}: "
                     "give devices such samples")  # fmt: skip
        tensor = tensor.to(wanted)
    return tensor.contiguous(memory_format=torch.contiguous_format)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def tensors_of(batch: Batch) -> list[Tensor]:
    """The tensors of a batch, in order."""
    return list(batch.tensors.values()) if isinstance(batch, Several) else [batch]


def names_of(batch: Batch) -> list[str]:
    """Their names; that of a single tensor is empty."""
    return list(batch.tensors) if isinstance(batch, Several) else [""]


def like(batch: Batch, tensors: Sequence[Tensor]) -> Batch:
    """The same kind of batch of other tensors."""
    if isinstance(batch, Several):
        return Several(dict(zip(batch.tensors, tensors, strict=True)), batch.named)
    return tensors[0]


def value_of(batch: Batch) -> Any:
    """What a loss is given: the tensor, the tuple or the dict."""
    if not isinstance(batch, Several):
        return batch
    return dict(batch.tensors) if batch.named else tuple(batch.tensors.values())


def call(model: nn.Module, x: Batch) -> Any:
    """The model's output; its buffers stay as they are, whatever the forward pass does to them."""
    return run(model, {name: b.clone() for name, b in model.named_buffers()}, x)


def run(model: nn.Module, state: Mapping[str, Tensor], x: Batch) -> Any:
    """
    The model's output with other parameters and buffers.

    Args:
        model: stays as it is.
        state: tensors by name; one that the model has under several names by the first of them. The model's own are
            used where there is none.
        x: inputs, shape ``(n, ...)``.

    """
    first: dict[int, str] = {}
    given: dict[str, Tensor] = {}
    # Each attribute is set once: functional_call by itself would not find back to the tensors of a module that is part
    # of the model under two names.
    for path, module in model.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                full = f"{path}.{name}" if path else name
                known = first.setdefault(id(tensor), full)
                if known in state:
                    given[full] = state[known]
    args, kwargs = arguments(x)
    return functional_call(model, given, args, kwargs, tie_weights=False)


def arguments(x: Batch) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Positional and named arguments of the model."""
    if not isinstance(x, Several):
        return (x,), {}
    return ((), dict(x.tensors)) if x.named else (tuple(x.tensors.values()), {})


def numpy_of(batch: Batch) -> npt.NDArray[Any]:
    """As devices have it."""
    if isinstance(batch, Several):
        return join({name: tensor.numpy() for name, tensor in batch.tensors.items()})
    array: npt.NDArray[Any] = batch.numpy()
    return array
