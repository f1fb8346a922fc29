"""
The operators of a graph file: ATen's, by their names, as numpy sees them.

:data:`OPERATORS` is the whole language; what a lowered graph can hold is here or is refused. Each has a signature of
kinds, which says how its arguments are written in the file and checked:

========= =====================================================
tensor    a value of the graph
tensor?   the same, or nothing
tensors   a list of values
operand   a value, or a number
number    a number
number?   the same, or nothing
operand?  a value, or a number, or nothing
tensors?  a list of values, and of nothing
int       a whole number
ints      a list of them
bool      true or false
dtype     the name of one
========= =====================================================

Results have ATen's dtypes: where numpy would go to float64 (int64 with float32), they stay float32. Views are
views, which cost nothing; no operator writes to its arguments.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["DTYPES", "KINDS", "OPERATORS", "Operator", "operator"]

Array = npt.NDArray[Any]
Function = Callable[..., Array]

KINDS = (
    "tensor", "tensor?", "tensors", "tensors?", "operand", "operand?", "number", "number?", "int", "ints", "bool",
    "dtype",
)  # fmt: skip
DTYPES = ("float32", "float64", "int64", "int32", "uint8", "bool")


@dataclasses.dataclass(frozen=True)
class Operator:
    """A function of arrays and what its arguments are."""

    kinds: tuple[str, ...]
    function: Function


OPERATORS: dict[str, Operator] = {}


def operator(name: str, *kinds: str) -> Callable[[Function], Function]:
    """Register the decorated function as ``name``."""

    def register(function: Function) -> Function:
        OPERATORS[name] = Operator(kinds, function)
        return function

    return register


def _rank(dtype: np.dtype[Any]) -> int:
    return 0 if dtype.kind == "b" else 1 if dtype.kind in "iu" else 2


def _common(a: Array, b: Array) -> tuple[Array, Array]:
    """Both in the dtype of ATen's type promotion: floats win over integers, and arrays over arrays without axes."""
    if a.dtype == b.dtype:
        return a, b
    if _rank(a.dtype) != _rank(b.dtype):
        dtype = max(a.dtype, b.dtype, key=_rank)
    elif (a.ndim == 0) != (b.ndim == 0):
        dtype = b.dtype if a.ndim == 0 else a.dtype
    else:
        dtype = np.promote_types(a.dtype, b.dtype)
    return a.astype(dtype, copy=False), b.astype(dtype, copy=False)


def _with_number(x: Array, number: float) -> tuple[Array, Any]:
    """``x`` and ``number`` in one dtype: a fraction makes integers float32, and a float array keeps its dtype."""
    if isinstance(number, float):
        x = _floats(x)
    elif x.dtype == np.bool_ and not isinstance(number, bool):
        x = x.astype(np.int64)
    return x, x.dtype.type(number)


def _pair(a: Array | float, b: Array | float) -> tuple[Any, Any]:
    if not isinstance(b, np.ndarray):
        return _with_number(_array(a), b)
    if not isinstance(a, np.ndarray):
        return _with_number(b, a)[::-1]
    return _common(a, b)


def _array(value: Array | float) -> Array:
    return value if isinstance(value, np.ndarray) else np.asarray(value, _dtype_of(value))


def _dtype_of(number: float) -> str:
    return "bool" if isinstance(number, bool) else "int64" if isinstance(number, int) else "float32"


def _floats(x: Array) -> Array:
    return x if x.dtype.kind == "f" else x.astype(np.float32)


# Arithmetic and comparisons of two.


def _binary(name: str, function: Callable[..., Array]) -> None:
    operator(name, "operand", "operand")(lambda a, b: function(*_pair(a, b)))


_BINARY: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
    "bitwise_left_shift": np.left_shift,
    "bitwise_right_shift": np.right_shift,
    "logical_xor": np.logical_xor,
    "atan2": lambda a, b: np.arctan2(_floats(np.asarray(a)), _floats(np.asarray(b))),
    "fmod": np.fmod,
    "remainder": np.remainder,
}
for _name, _function in _BINARY.items():
    _binary(_name, _function)


@operator("div", "operand", "operand")
def _div(a: Array | float, b: Array | float) -> Array:
    a, b = _pair(a, b)
    return np.asarray(np.divide(_floats(np.asarray(a)), _floats(np.asarray(b))))


@operator("pow", "operand", "operand")
def _pow(a: Array | float, b: Array | float) -> Array:
    if isinstance(b, int | float) and b == 2:
        return np.square(_array(a))
    a, b = _pair(a, b)
    return np.asarray(np.power(a, b))


@operator("where", "tensor", "operand", "operand")
def _where(condition: Array, a: Array | float, b: Array | float) -> Array:
    a, b = _pair(a, b)
    return np.where(condition, a, b)


@operator("clamp", "tensor", "operand?", "operand?")
def _clamp(x: Array, low: Array | float | None, high: Array | float | None) -> Array:
    if low is not None:
        x = np.maximum(*_pair(x, low))
    return x if high is None else np.minimum(*_pair(x, high))


# Functions of one.

_PLAIN: dict[str, Callable[..., Any]] = {
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "ceil": np.ceil,
    "floor": np.floor,
    "isinf": np.isinf,
    "round": np.round,
    "isnan": np.isnan,
    "logical_not": np.logical_not,
    "bitwise_not": np.invert,
    "trunc": np.trunc,
    "relu": lambda x: np.maximum(x, x.dtype.type(0)),
}
_OF_FLOATS: dict[str, Callable[..., Any]] = {
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "acos": np.arccos,
    "acosh": np.arccosh,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "cos": np.cos,
    "cosh": np.cosh,
    "expm1": np.expm1,
    "log10": np.log10,
    "log2": np.log2,
    "sinh": np.sinh,
    "tan": np.tan,
    "tanh": np.tanh,
}
for _name, _of_one in _PLAIN.items():
    operator(_name, "tensor")(_of_one)
for _name, _of_one in _OF_FLOATS.items():
    operator(_name, "tensor")(lambda x, function=_of_one: function(_floats(x)))


@operator("rsqrt", "tensor")
def _rsqrt(x: Array) -> Array:
    root = np.sqrt(_floats(x))
    return np.asarray(np.divide(root.dtype.type(1), root))


@operator("reciprocal", "tensor")
def _reciprocal(x: Array) -> Array:
    x = _floats(x)
    return np.asarray(np.divide(x.dtype.type(1), x))


@operator("sigmoid", "tensor")
def _sigmoid(x: Array) -> Array:
    y = np.exp(-_floats(x))
    y += y.dtype.type(1)
    return np.asarray(np.divide(y.dtype.type(1), y))


# Numerator and denominator of erf(x) / x in x**2 on [-4, 4], highest power first: the float32 approximation of
# Eigen's SpecialFunctions (generic_fast_erf_float), a few units in the last place.
_ERF_ABOVE = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_BELOW = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)


@operator("erf", "tensor")
def _erf(x: Array) -> Array:
    x = np.clip(_floats(x), -4, 4)
    square = np.square(x)
    above, below = np.full_like(x, _ERF_ABOVE[0]), np.full_like(x, _ERF_BELOW[0])
    for total, coefficients in ((above, _ERF_ABOVE), (below, _ERF_BELOW)):
        for coefficient in coefficients[1:]:
            total *= square
            total += coefficient
    above *= x
    above /= below
    return above


@operator("gelu", "tensor")
def _gelu(x: Array) -> Array:
    y = _erf(x * x.dtype.type(math.sqrt(0.5)))
    y += 1
    y *= x
    y *= x.dtype.type(0.5)
    return y


@operator("to", "tensor", "dtype")
def _to(x: Array, dtype: str) -> Array:
    return x.astype(dtype)


# Shapes. Views, where numpy can make them.


@operator("view", "tensor", "ints")
def _view(x: Array, shape: Sequence[int]) -> Array:
    return x.reshape(shape)


@operator("permute", "tensor", "ints")
def _permute(x: Array, axes: Sequence[int]) -> Array:
    return x.transpose(axes)


@operator("expand", "tensor", "ints")
def _expand(x: Array, shape: Sequence[int]) -> Array:
    new = len(shape) - x.ndim
    sizes = [x.shape[i - new] if size == -1 else size for i, size in enumerate(shape)]
    return np.broadcast_to(x, sizes)


@operator("unsqueeze", "tensor", "int")
def _unsqueeze(x: Array, axis: int) -> Array:
    return np.expand_dims(x, axis)


@operator("squeeze", "tensor", "ints")
def _squeeze(x: Array, axes: Sequence[int]) -> Array:
    return np.squeeze(x, tuple(axis for axis in axes if x.shape[axis] == 1))


@operator("slice", "tensor", "int", "int", "int", "int")
def _slice(x: Array, axis: int, start: int, stop: int, step: int) -> Array:
    return x[(slice(None),) * (axis % x.ndim) + (slice(start, stop, step),)]


@operator("select", "tensor", "int", "int")
def _select(x: Array, axis: int, index: int) -> Array:
    return np.asarray(x[(slice(None),) * (axis % x.ndim) + (index,)])


@operator("cat", "tensors", "int")
def _cat(parts: Sequence[Array], axis: int) -> Array:
    return np.concatenate(parts, axis)


@operator("constant_pad_nd", "tensor", "ints", "number")
def _pad(x: Array, padding: Sequence[int], value: float) -> Array:
    before, after = [0] * x.ndim, [0] * x.ndim
    for i, width in enumerate(padding):  # pairs, from the last axis on
        (after if i % 2 else before)[x.ndim - 1 - i // 2] = width
    if min(before + after, default=0) < 0:
        raise ValueError(f"negative padding {list(padding)}")
    shape = tuple(b + s + a for b, s, a in zip(before, x.shape, after, strict=True))
    padded = np.zeros(shape, x.dtype) if value == 0 else np.full(shape, value, x.dtype)
    padded[tuple(slice(b, b + s) for b, s in zip(before, x.shape, strict=True))] = x
    return padded


@operator("full", "ints", "number", "dtype")
def _full(shape: Sequence[int], number: float, dtype: str) -> Array:
    return np.full(tuple(shape), number, dtype)


@operator("arange", "number", "number", "number", "dtype")
def _arange(start: float, stop: float, step: float, dtype: str) -> Array:
    return np.arange(start, stop, step).astype(dtype)


# Products and reductions.


def _for_blas(x: Array) -> Array:
    """``x`` itself if the library of numpy's products can read it as it lies, transposed or not; else a copy."""
    size, (row, column) = x.itemsize, x.strides[-2:]
    plain = column == size and row >= x.shape[-1] * size
    turned = row == size and column >= x.shape[-2] * size
    return x if plain or turned else np.ascontiguousarray(x)


@operator("bmm", "tensor", "tensor")
def _bmm(a: Array, b: Array) -> Array:
    if a.ndim != 3 or b.ndim != 3 or a.shape[0] != b.shape[0]:
        raise ValueError(f"no batched product of the shapes {a.shape} and {b.shape}")
    if len(a) == 1:
        return np.asarray(np.matmul(_for_blas(a[0]), _for_blas(b[0]))[None])
    return np.asarray(np.matmul(_for_blas(a), _for_blas(b)))


@operator("dense", "tensor", "tensor", "tensor?")
def _dense(x: Array, w: Array, b: Array | None) -> Array:
    if x.ndim != 2 or w.ndim != 2 or x.shape[1] != w.shape[1]:
        raise ValueError(f"no dense layer of the shapes {x.shape} and {w.shape}")
    product: Array = np.matmul(_for_blas(x), _for_blas(w.T))
    return product if b is None else product + b


@operator("static_convolution", "tensor", "tensor", "tensor?", "ints", "ints", "ints", "int")
def _static_convolution(
    x: Array,
    w: Array,
    b: Array | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Array:
    """(n, h, w, c) by filters (out, kh, kw, c), or (1, kh, kw, c) where ``groups`` is c: a sum over taps."""
    sides = [(0, 0), (padding[0], padding[0]), (padding[1], padding[1]), (0, 0)]
    x = np.pad(x, sides) if any(padding) else x
    total: Any = 0
    for i, j, part in _taps(x, w.shape[1:3], stride, dilation):
        total = total + (part * w[0, i, j] if groups > 1 else _rows_by(part, w[:, i, j].T))
    return np.asarray(total if b is None else total + b)


def _taps(
    x: Array, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Iterator[tuple[int, int, Array]]:
    """What each tap of a window reads of (n, h, w, c)."""
    sizes = [(x.shape[1 + i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + stride[0] * (sizes[0] - 1) + 1, stride[0])
            yield i, j, x[:, rows, left : left + stride[1] * (sizes[1] - 1) + 1 : stride[1]]


@operator("max_pool", "tensor", "ints", "ints", "ints", "ints")
def _max_pool(
    x: Array, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Array:
    sides = [(0, 0), (padding[0], padding[0]), (padding[1], padding[1]), (0, 0)]
    x = np.pad(x, sides, constant_values=-np.inf) if any(padding) else x
    return functools.reduce(np.maximum, [part for _, _, part in _taps(x, kernel, stride, dilation)])


@operator("average_pool", "tensor", "ints", "ints")
def _average_pool(x: Array, kernel: Sequence[int], stride: Sequence[int]) -> Array:
    total = functools.reduce(np.add, [part for _, _, part in _taps(x, kernel, stride, (1, 1))])
    return np.asarray(total / np.float32(kernel[0] * kernel[1]))


@operator("mean_pixel", "tensor")
def _mean_pixel(x: Array) -> Array:
    return np.asarray(x.mean((1, 2), dtype=x.dtype, keepdims=True))


@operator("crop", "tensor", "ints", "ints")
def _crop(x: Array, starts: Sequence[int], sizes: Sequence[int]) -> Array:
    return x[tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))]


def _rows_by(x: Array, w: Array) -> Array:
    """The last axis of ``x`` times ``w``, as one product of matrices: numpy would make one per row of the image."""
    product: Array = np.matmul(x.reshape(-1, x.shape[-1]), _for_blas(w))
    return product.reshape(*x.shape[:-1], w.shape[1])


@operator("sum", "tensor", "ints", "bool", "dtype")
def _sum(x: Array, axes: Sequence[int], keep: bool, dtype: str) -> Array:
    return np.asarray(x.sum(tuple(axes) or None, dtype, keepdims=keep))


@operator("mean", "tensor", "ints", "bool", "dtype")
def _mean(x: Array, axes: Sequence[int], keep: bool, dtype: str) -> Array:
    return np.asarray(x.mean(tuple(axes) or None, dtype, keepdims=keep))


@operator("amax", "tensor", "ints", "bool")
def _amax(x: Array, axes: Sequence[int], keep: bool) -> Array:
    return np.asarray(x.max(tuple(axes) or None, keepdims=keep))


@operator("amin", "tensor", "ints", "bool")
def _amin(x: Array, axes: Sequence[int], keep: bool) -> Array:
    return np.asarray(x.min(tuple(axes) or None, keepdims=keep))


@operator("argmax", "tensor", "int", "bool")
def _argmax(x: Array, axis: int, keep: bool) -> Array:
    return np.asarray(x.argmax(axis, keepdims=keep), np.int64)


@operator("argmin", "tensor", "int", "bool")
def _argmin(x: Array, axis: int, keep: bool) -> Array:
    return np.asarray(x.argmin(axis, keepdims=keep), np.int64)


@operator("any", "tensor", "ints", "bool")
def _any(x: Array, axes: Sequence[int], keep: bool) -> Array:
    return np.asarray(x.astype(bool).any(tuple(axes) or None, keepdims=keep))


@operator("topk_values", "tensor", "int", "int", "bool")
def _topk_values(x: Array, k: int, axis: int, largest: bool) -> Array:
    return np.asarray(np.take_along_axis(x, _topk_places(x, k, axis, largest), axis))


@operator("topk_places", "tensor", "int", "int", "bool")
def _topk_places(x: Array, k: int, axis: int, largest: bool) -> Array:
    ranked = x if x.dtype.kind == "f" else x.astype(np.int64)
    places = np.argsort(-ranked if largest else ranked, axis, kind="stable")
    return places.take(range(k), axis).astype(np.int64)


@operator("tril", "tensor", "int")
def _tril(x: Array, diagonal: int) -> Array:
    return np.tril(x, diagonal)


@operator("cumsum", "tensor", "int", "dtype")
def _cumsum(x: Array, axis: int, dtype: str) -> Array:
    return x.cumsum(axis, dtype)


@operator("_softmax", "tensor", "int")
def _softmax(x: Array, axis: int) -> Array:
    y: Array = x - x.max(axis, keepdims=True)
    np.exp(y, out=y)
    y /= y.sum(axis, keepdims=True)
    return y


@operator("_log_softmax", "tensor", "int")
def _log_softmax(x: Array, axis: int) -> Array:
    y: Array = x - x.max(axis, keepdims=True)
    y -= np.log(np.exp(y).sum(axis, keepdims=True))
    return y


# Rows by index.


@operator("embedding", "tensor", "tensor")
def _embedding(table: Array, indices: Array) -> Array:
    return np.asarray(table[_inside(indices, len(table))])


@operator("index_select", "tensor", "int", "tensor")
def _index_select(x: Array, axis: int, indices: Array) -> Array:
    return np.asarray(x.take(_inside(indices, x.shape[axis]), axis))


@operator("gather", "tensor", "int", "tensor")
def _gather(x: Array, axis: int, indices: Array) -> Array:
    return np.take_along_axis(_fitted(x, axis, indices), _inside(indices, x.shape[axis]), axis)


@operator("scatter_add", "tensor", "int", "tensor", "tensor")
def _scatter_add(x: Array, axis: int, indices: Array, source: Array) -> Array:
    result = x.copy()
    places: list[Array] = list(np.indices(indices.shape, sparse=True))
    places[axis] = _inside(indices, x.shape[axis])
    np.add.at(result, tuple(places), source[tuple(slice(n) for n in indices.shape)])
    return result


@operator("scatter", "tensor", "int", "tensor", "operand")
def _scatter(x: Array, axis: int, indices: Array, source: Array | float) -> Array:
    result = x.copy()
    fitted: Any = result[tuple(slice(None) if i == axis % x.ndim else slice(n) for i, n in enumerate(indices.shape))]
    values = source[tuple(slice(n) for n in indices.shape)] if isinstance(source, np.ndarray) else source
    np.put_along_axis(fitted, _inside(indices, x.shape[axis]), values, axis)
    return result


@operator("masked_scatter", "tensor", "tensor", "tensor")
def _masked_scatter(x: Array, mask: Array, source: Array) -> Array:
    result = np.array(np.broadcast_to(x, np.broadcast_shapes(x.shape, mask.shape)))
    mask = np.broadcast_to(mask, result.shape)
    result[mask] = source.reshape(-1)[: int(mask.sum())]
    return result


@operator("index", "tensor", "tensors?")
def _index(x: Array, indices: Sequence[Array | None]) -> Array:
    return np.asarray(x[_places(x, indices)])


def _places(x: Array, indices: Sequence[Array | None]) -> tuple[Any, ...]:
    """What numpy takes: indices counted from the end wrap, as in ATen; others must be inside."""
    found: list[Any] = []
    axis = 0
    for index in indices:
        if index is None:
            found.append(slice(None))
            axis += 1
        elif index.dtype == np.bool_:
            found.append(index)
            axis += index.ndim
        else:
            size = x.shape[axis]
            found.append(_inside(np.where(index < 0, index + size, index), size))
            axis += 1
    return tuple(found)


@operator("index_put", "tensor", "tensors?", "tensor", "bool")
def _index_put(x: Array, indices: Sequence[Array | None], values: Array, accumulate: bool) -> Array:
    result = x.copy()
    places = _places(x, indices)
    if accumulate:
        np.add.at(result, places, values)
    else:
        result[places] = values
    return result


def _inside(indices: Array, size: int) -> Array:
    """ATen refuses what numpy would count from the end."""
    if indices.size and (indices.min() < 0 or indices.max() >= size):
        raise IndexError(f"an index lies outside 0..{size - 1}")
    return indices


def _fitted(x: Array, axis: int, indices: Array) -> Array:
    """``x``, cut to the extent of ``indices`` on every other axis."""
    axis %= x.ndim
    return x[tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(indices.shape))]
