"""
Where each parameter lies in the flat weight vector, and which part of it is trained.

Weights are one float32 vector; a :class:`Layout` maps names to ranges of it. A
:class:`Subset` says, per trained parameter, *whole* or *an axis plus sorted indices*.
Trained arrays travel in compact form: the kept indices only, in layout order.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import LayoutError

__all__ = ["Arrays", "Layout", "Parameter", "Slice", "Subset", "Vector"]

Vector = npt.NDArray[np.float32]
Arrays = Mapping[str, npt.NDArray[np.float32]]


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A named float32 tensor of the model; buffers such as running means are parameters that never train."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Layout:
    """
    The order of parameters in the flat vector.

    Raises:
        LayoutError: if two parameters share a name or a dimension is not positive.

    """

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = tuple(parameters)
        self._by_name = {p.name: p for p in self.parameters}
        self._offsets: dict[str, int] = {}
        offset = 0
        for parameter in self.parameters:
            if parameter.name in self._offsets:
                raise LayoutError(f"the layout names {parameter.name!r} twice")
            if any(d < 1 for d in parameter.shape):
                raise LayoutError(f"{parameter.name!r} has the shape {parameter.shape}; dimensions must be positive")
            self._offsets[parameter.name] = offset
            offset += parameter.size
        self.size = offset

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Parameter:
        try:
            return self._by_name[name]
        except KeyError:
            raise LayoutError(f"the layout has no parameter {name!r}") from None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and self.parameters == other.parameters

    def __hash__(self) -> int:
        return hash(self.parameters)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole model in float32."""
        return 4 * self.size

    def offset(self, name: str) -> int:
        """Position of the parameter's first element in the flat vector."""
        self[name]
        return self._offsets[name]

    def views(self, vector: Vector) -> dict[str, Vector]:
        """
        Name -> view into ``vector`` (float32, shape ``(size,)``) with the parameter's shape; no copies.

        Raises:
            LayoutError: if ``vector`` has another shape or dtype.

        """
        if vector.shape != (self.size,) or vector.dtype != np.float32:
            raise LayoutError(
                f"weights must be float32 of shape ({self.size},), not {vector.dtype} of shape {vector.shape}"
            )
        return {
            p.name: vector[self._offsets[p.name] : self._offsets[p.name] + p.size].reshape(p.shape)
            for p in self.parameters
        }

    def flatten(self, arrays: Arrays) -> Vector:
        """
        The flat vector of ``arrays``, which must name every parameter with its shape.

        Args:
            arrays: name -> array of the parameter's shape.

        Returns:
            float32, shape ``(size,)``.

        Raises:
            LayoutError: if a parameter is missing or has another shape.

        """
        vector = np.empty(self.size, np.float32)
        for name, view in self.views(vector).items():
            if name not in arrays:
                raise LayoutError(f"weights lack the parameter {name!r}")
            if arrays[name].shape != view.shape:
                raise LayoutError(f"{name!r} must have the shape {view.shape}, not {arrays[name].shape}")
            view[...] = arrays[name]
        return vector

    def to_json(self) -> list[dict[str, Any]]:
        """``[{"name": ..., "shape": [...]}, ...]``."""
        return [{"name": p.name, "shape": list(p.shape)} for p in self.parameters]

    @classmethod
    def from_json(cls, data: Any) -> Layout:
        """
        Parse what :meth:`to_json` gives.

        Raises:
            LayoutError: if ``data`` is anything else.

        """
        try:
            return cls(Parameter(str(item["name"]), tuple(int(d) for d in item["shape"])) for item in data)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise LayoutError(f"not a parameter layout: {error}") from error


@dataclasses.dataclass(frozen=True)
class Slice:
    """Part of a parameter: the ``indices`` (sorted, distinct) that are kept of ``axis``."""

    axis: int
    indices: tuple[int, ...]


class Subset(Mapping[str, Slice | None]):
    """
    The trained part of a layout: name -> :obj:`None` (the whole parameter) or a :class:`Slice` of it.

    Iterates in layout order, whatever the order of ``choice``.

    Raises:
        LayoutError: if a name is unknown, or a slice's axis or indices do not fit its parameter.

    """

    def __init__(self, layout: Layout, choice: Mapping[str, Slice | None]) -> None:
        unknown = sorted(set(choice) - {p.name for p in layout})
        if unknown:
            raise LayoutError(f"the subset names {unknown[0]!r}, which the layout does not have")
        self.layout = layout
        self._choice = {p.name: choice[p.name] for p in layout if p.name in choice}
        for name, part in self._choice.items():
            if part is not None:
                self._check(layout[name], part)

    @staticmethod
    def _check(parameter: Parameter, part: Slice) -> None:
        if not 0 <= part.axis < len(parameter.shape):
            raise LayoutError(f"{parameter.name!r} of shape {parameter.shape} has no axis {part.axis}")
        limit = parameter.shape[part.axis]
        ordered = all(a < b for a, b in zip(part.indices, part.indices[1:], strict=False))
        if not part.indices or not ordered or part.indices[0] < 0 or part.indices[-1] >= limit:
            raise LayoutError(
                f"indices of {parameter.name!r} on axis {part.axis} must be distinct, "
                f"ascending and within 0..{limit - 1}"
            )

    @classmethod
    def whole(cls, layout: Layout, names: Iterable[str] | None = None) -> Subset:
        """Every parameter whole, or just those in ``names``."""
        return cls(layout, dict.fromkeys([p.name for p in layout] if names is None else names))

    def __getitem__(self, name: str) -> Slice | None:
        return self._choice[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._choice)

    def __len__(self) -> int:
        return len(self._choice)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subset) and self.layout == other.layout and self._choice == other._choice

    def __hash__(self) -> int:
        return hash((self.layout, tuple(self._choice.items())))

    def shape(self, name: str) -> tuple[int, ...]:
        """Compact shape of a trained parameter."""
        shape, part = self.layout[name].shape, self._choice[name]
        return shape if part is None else (*shape[: part.axis], len(part.indices), *shape[part.axis + 1 :])

    @property
    def size(self) -> int:
        """Number of trained elements."""
        return sum(math.prod(self.shape(name)) for name in self)

    def selector(self, name: str) -> tuple[Any, ...]:
        """What to index a full parameter with to get, or set, its trained part."""
        part = self._choice[name]
        return (...,) if part is None else (*[slice(None)] * part.axis, list(part.indices))

    def compact(self, arrays: Arrays) -> dict[str, Vector]:
        """
        Copies of the trained parts of full ``arrays``, in layout order.

        Args:
            arrays: name -> float32 array of the parameter's shape; more than the subset's are allowed.

        Returns:
            Name -> float32 array of :meth:`shape`.

        """
        return {name: np.array(arrays[name][self.selector(name)], np.float32, copy=True) for name in self}

    def positions(self) -> npt.NDArray[np.int64]:
        """
        Position in the flat vector of every trained element, in the order of the compact arrays, each in C order.

        Returns:
            int64, shape ``(self.size,)``.

        """
        parts = [np.empty(0, np.int64)]
        for name in self:
            parameter = self.layout[name]
            start = self.layout.offset(name)
            grid = np.arange(start, start + parameter.size, dtype=np.int64).reshape(parameter.shape)
            parts.append(grid[self.selector(name)].reshape(-1))
        return np.concatenate(parts)

    def to_json(self) -> dict[str, Any]:
        """``{"name": null | {"axis": int, "indices": [...]}}``."""
        return {
            name: None if part is None else {"axis": part.axis, "indices": list(part.indices)}
            for name, part in self._choice.items()
        }

    @classmethod
    def from_json(cls, layout: Layout, data: Any) -> Subset:
        """
        Parse what :meth:`to_json` gives.

        Raises:
            LayoutError: if ``data`` is anything else or does not fit ``layout``.

        """
        try:
            choice = {
                str(name): None if part is None else Slice(int(part["axis"]), tuple(int(i) for i in part["indices"]))
                for name, part in data.items()
            }
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise LayoutError(f"not a subset: {error}") from error
        return cls(layout, choice)
