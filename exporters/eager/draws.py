"""
Random numbers as inputs of the training step.

A program draws none: what a model draws in training (dropout, stochastic depth, noise, Gumbel's) becomes an input that
the device draws (:mod:`mobile_sdk.engines.dropout`). While :class:`Draws` is active, each draw takes the next of its
tensors; without any, it has the median of its distribution, which turns dropout off, exactly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import traceback
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mobile_sdk.engines.dropout import MEDIANS

from ..errors import ExportError
from .marks import MODULE

__all__ = ["Draw", "Draws", "medians"]

_aten = torch.ops.aten
# Function -> how many of the input's axes have a mask of their own; the others share it. None: all.
_KINDS: dict[Any, int | None] = {F.dropout: None, F.dropout1d: 2, F.dropout2d: 2, F.dropout3d: 2}
_OTHER = ("randint", "randint_like", "randperm", "multinomial", "poisson", "binomial", "geometric_", "cauchy_")


@dataclasses.dataclass(frozen=True)
class Draw:
    """What a step asks for: its module and shape, its role, and for masks the probability of keeping an element."""

    module: str
    shape: tuple[int, ...]
    keep: float = 1.0
    role: str = "dropout"


class Draws:
    """
    Gives ``given``, one tensor after the other, where the model draws, in the order in which it comes to that.

    ``found`` lists what was asked for.

    Raises:
        ExportError: where the distribution is one that no device draws.

    """

    def __init__(self, given: Sequence[Tensor] = ()) -> None:
        self.given = list(given)
        self.found: list[Draw] = []

    @contextmanager
    def active(self) -> Iterator[None]:
        """Answer the draws inside."""
        with _Masks(self), _Numbers(self):
            yield

    def next(self, role: str, shape: Sequence[int], keep: float = 1.0) -> Tensor | None:
        """The tensor of the next draw; :obj:`None` where none is given."""
        index = len(self.found)
        self.found.append(Draw(_module(), tuple(shape), keep, role))
        return self.given[index] if self.given else None


class _Masks(TorchFunctionMode):
    """Dropout as a product with a mask, which is nothing at all where there is none."""

    def __init__(self, draws: Draws) -> None:
        super().__init__()
        self.draws = draws

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _KINDS:
            return self._drop(_KINDS[func], *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _drop(
        self, axes: int | None, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        if not training or p == 0:
            return input
        if p == 1:
            return input * 0.0
        own = input.dim() if axes is None else axes
        mask = self.draws.next("dropout", tuple(input.shape[:own]) + (1,) * (input.dim() - own), 1.0 - p)
        return input if mask is None else input * mask


class _Numbers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every other draw, wherever inside an operator it happens."""

    def __init__(self, draws: Draws) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.draws = draws

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.removeprefix("aten::") if isinstance(func, torch._ops.OpOverload) else ""
        rule = _RULES.get(name)
        if rule is not None:
            return rule(self.draws, *args, **kwargs)
        if name in _OTHER:
            raise ExportError(
                f"{_where()} draws from {name}, which no device repeats; use dropout, torch.rand, torch.randn or "
                "gumbel_softmax, whose numbers come from the assignment's seed"
            )
        return func(*args, **kwargs)


def _drawn(draws: Draws, role: str, like: Tensor | Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    shape = tuple(like.shape) if isinstance(like, Tensor) else tuple(like)
    wanted = dtype or (like.dtype if isinstance(like, Tensor) else torch.get_default_dtype())
    given = draws.next(role, shape)
    if given is None:
        return torch.full(shape, MEDIANS[role], dtype=wanted)
    return given.to(wanted)


def _written(into: Tensor, value: Tensor) -> Tensor:
    return into.copy_(value)


def _bernoulli_(draws: Draws, x: Tensor, p: Any = 0.5, *, generator: Any = None) -> Tensor:
    return _written(x, _kept(draws, x, p))


def _bernoulli(draws: Draws, x: Tensor, p: Any = None, *, generator: Any = None) -> Tensor:
    return _kept(draws, x, x if p is None else p)


def _kept(draws: Draws, like: Tensor, p: Any) -> Tensor:
    """1 where an element is kept; the probability itself where nothing is drawn."""
    if isinstance(p, Tensor):
        given = draws.next("uniform", tuple(like.shape))
        return p.expand(like.shape).clone() if given is None else (given.to(p.dtype) < p).to(like.dtype)
    if not 0 < p < 1:
        return torch.full(tuple(like.shape), float(p), dtype=like.dtype)
    given = draws.next("dropout", tuple(like.shape), float(p))
    return torch.full(tuple(like.shape), float(p), dtype=like.dtype) if given is None else given.to(like.dtype) * p


def _uniform_(draws: Draws, x: Tensor, low: float = 0.0, high: float = 1.0, *, generator: Any = None) -> Tensor:
    return _written(x, _drawn(draws, "uniform", x) * (high - low) + low)


def _normal_(draws: Draws, x: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
    return _written(x, _drawn(draws, "normal", x) * std + mean)


def _exponential_(draws: Draws, x: Tensor, rate: float = 1.0, *, generator: Any = None) -> Tensor:
    return _written(x, _drawn(draws, "exponential", x) / rate)


def _of_shape(role: str) -> Callable[..., Tensor]:
    def rule(draws: Draws, shape: Sequence[int], *, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
        return _drawn(draws, role, shape, dtype)

    return rule


def _like(role: str) -> Callable[..., Tensor]:
    def rule(draws: Draws, x: Tensor, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
        return _drawn(draws, role, x, dtype)

    return rule


def _normal(draws: Draws, mean: Any, std: Any = 1.0, size: Any = None, **options: Any) -> Tensor:
    shapes = [v.shape for v in (mean, std) if isinstance(v, Tensor)]
    shape = tuple(size) if size is not None else tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]
    dtype = next((v.dtype for v in (mean, std) if isinstance(v, Tensor)), None)
    result: Tensor = _drawn(draws, "normal", shape, dtype) * std + mean
    return result


def _rrelu(
    draws: Draws,
    x: Tensor,
    noise: Tensor,
    lower: Any = 0.125,
    upper: Any = 1 / 3,
    training: bool = False,
    generator: Any = None,
) -> Tensor:
    if not training:
        return F.leaky_relu(x, (lower + upper) / 2)
    slope = _drawn(draws, "uniform", x) * (upper - lower) + lower
    noise.copy_(torch.where(x <= 0, slope, torch.ones_like(slope)))
    return x * noise


_RULES: dict[str, Callable[..., Tensor]] = {
    "bernoulli_": _bernoulli_,
    "bernoulli": _bernoulli,
    "uniform_": _uniform_,
    "normal_": _normal_,
    "exponential_": _exponential_,
    "rand": _of_shape("uniform"),
    "randn": _of_shape("normal"),
    "rand_like": _like("uniform"),
    "randn_like": _like("normal"),
    "normal": _normal,
    "rrelu_with_noise": _rrelu,
}


def _module() -> str:
    return str(traceback.current_meta.get("custom", {}).get(MODULE, ""))


def _where() -> str:
    return f"module {_module()!r}" if _module() else "the model"


def medians(draws: Sequence[Draw]) -> list[Tensor]:
    """What an engine passes where nothing is drawn."""
    return [torch.full(d.shape, MEDIANS[d.role]) for d in draws]
