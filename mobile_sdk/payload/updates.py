"""
An update as a safetensors file, and back.

Of each trained parameter NAME, in its compact shape:

    dense      NAME            float32, float16, int16 or int8 in that shape; int4: uint8, two values to a byte
    top-k      NAME            the values that are sent, shape (k,)
               NAME:mask       uint8, a bit per element (numpy's packbits), or
               NAME:index      int32, their positions, ascending, whichever is shorter
    integers   NAME:zlib       uint8, their bytes packed with zlib, in the place of NAME where that is shorter; of int16
                               all low bytes come first

The file's metadata says ``format`` (the dtype); of integers ``steps``, what they are multiples of
(:mod:`mobile_sdk.payload.steps`), and ``saturated``, how many elements were cut off. In the place of ``steps``, updates
for earlier coordinators have an array NAME:scale: float32, one per output channel (axis 0), or one for all, where that
is shorter: of a vector, and where few values are sent per channel.
"""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PayloadError, ProtocolError
from ..layout import Arrays, Subset, Vector
from .format import DTYPES, UpdateFormat
from .quantise import (
    LEVELS,
    dequantise,
    own_exponents,
    pack_nibbles,
    quantise,
    round_to_steps,
    scales,
    unpack_nibbles,
)
from .sparse import choose_largest, fill, place_arrays, read_places
from .steps import BITS, OPEN, SteppedVector, Steps, largest_integer

__all__ = ["check_packing", "decode_update", "decode_vector", "encode_update", "most_bytes", "steps_of"]

AnyArrays = dict[str, npt.NDArray[Any]]

_FLOATS: dict[str, np.dtype[Any]] = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16)}
_HALF_MAX = 65504.0

# A scale takes four bytes: with fewer values than that to a channel, scales would take more than the values.
_PER_SCALE = 4


# Of a file's header: for the file, and for each parameter.
_HEADER_BYTES, _ENTRY_BYTES = 4096, 512


def most_bytes(subset: Subset, packing: UpdateFormat) -> int:
    """What an update of ``subset`` takes on the disk at most, with what ``packing`` leaves out of it."""
    elements = sum(math.prod(subset.shape(name)) for name in subset)
    size = 4 * elements + _HEADER_BYTES + _ENTRY_BYTES * sum(1 for _ in subset)
    return size if packing.top_k == 1 else 2 * size


def check_packing(packing: UpdateFormat, subset: Subset) -> None:
    """
    See that updates of ``subset`` can be packed as a coordinator wants them.

    Raises:
        ProtocolError: if its steps are none for this subset.

    """
    try:
        if packing.steps:
            Steps.from_text([subset.shape(name) for name in subset], packing.steps)
    except PayloadError as error:
        raise ProtocolError(f"the payload's steps cannot be used: {error}") from error


def encode_update(update: Arrays, packing: UpdateFormat, seed: int) -> tuple[AnyArrays, dict[str, str]]:
    """
    Pack an update.

    Args:
        update: name -> float32 array in compact shape.
        packing: how.
        seed: of the rounding; the same gives the same bytes.

    Returns:
        Arrays and metadata of the safetensors file.

    """
    rng = np.random.default_rng([seed, 1])  # not the stream that shuffles samples
    kept = choose_largest(update, packing.top_k) if packing.top_k < 1 else None
    arrays: AnyArrays = {}
    given = _given(update, packing)
    exponents: list[npt.NDArray[np.int8]] = []
    saturated = 0
    for place, (name, array) in enumerate(update.items()):
        values = array.reshape(-1)
        positions: npt.NDArray[np.intp] | None = None
        if kept is not None:
            positions = kept[name]
            values = values[positions]
            arrays |= place_arrays(name, positions, array.size)
        if packing.dtype in _FLOATS:
            sent = np.clip(values, -_HALF_MAX, _HALF_MAX) if packing.dtype == "float16" else values
            arrays[name] = sent.astype(_FLOATS[packing.dtype], copy=False)
        elif given is None:
            channels, count = _channels(array.shape, positions, _scales(array.shape, len(values)))
            levels = LEVELS[packing.dtype]
            scale = scales(values, channels, count, levels)
            arrays[name] = quantise(values, scale[channels], levels, rng)
            arrays[f"{name}:scale"] = scale
        else:
            own, largest = given[place], largest_integer(packing.dtype)
            channels = _of_channel(array.size, positions, len(own))
            if (own == OPEN).any():
                own = np.where(own == OPEN, own_exponents(values, channels, len(own), largest), own)
            arrays[name], lost = round_to_steps(values, own[channels], largest, rng)
            exponents.append(own)
            saturated += lost
        if packing.dtype == "int4":
            arrays[name] = pack_nibbles(arrays[name])
        elif positions is None:
            arrays[name] = arrays[name].reshape(array.shape)
        if packing.dtype in BITS and (packed := _packed(_planes(arrays[name]))) is not None:
            del arrays[name]
            arrays[f"{name}:zlib"] = packed
    metadata = {"format": packing.dtype}
    if given is not None:
        steps = Steps([array.shape for array in update.values()], np.concatenate([np.empty(0, np.int8), *exponents]))
        metadata |= {"steps": steps.to_text(), "saturated": str(saturated)}
    return arrays, metadata


def _given(update: Arrays, packing: UpdateFormat) -> list[npt.NDArray[np.int8]] | None:
    """The exponents of each parameter; none if the update is of floats, or has scales of its own."""
    if packing.dtype not in BITS or (not packing.steps and packing.dtype in LEVELS):
        return None
    shapes = [array.shape for array in update.values()]
    steps = Steps.from_text(shapes, packing.steps) if packing.steps else Steps.open(shapes)
    return list(steps.parts())


def decode_update(
    arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str], subset: Subset
) -> Iterator[tuple[str, Vector]]:
    """
    Unpack what :func:`encode_update` made; the arrays come from a peer and are believed in nothing.

    Args:
        arrays: of the file that the peer sent.
        metadata: of that file; ``format`` says how it is packed.
        subset: the parameters that it must hold, and their compact shapes.

    Returns:
        Name -> float32 array in compact shape, in the order of ``subset``; elements that were not sent are 0.

    Raises:
        PayloadError: if it is not an update of exactly this subset.

    """
    dtype = _check_names(arrays, metadata, subset)
    steps = steps_of(metadata, [subset.shape(name) for name in subset]) if "steps" in metadata else None
    parts: Iterator[npt.NDArray[np.int8]] = steps.parts() if steps is not None else iter(())
    for name in subset:
        shape = subset.shape(name)
        values, positions = _sent(name, arrays, dtype, shape)
        if steps is not None:
            own = next(parts)
            exponents = own[_of_channel(math.prod(shape), positions, len(own))]
            values = np.ldexp(values.astype(np.float32), exponents.astype(np.int32))
        elif dtype in LEVELS:
            scale = _scale(name, arrays, shape)
            values = dequantise(values, scale[_channels(shape, positions, len(scale))[0]])
        yield name, fill(values, positions, shape)


def decode_vector(
    arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str], subset: Subset
) -> SteppedVector | None:
    """
    The integers of an update as one vector; none if it has no integers, or scales of its own.

    Args:
        arrays: of the file that the peer sent.
        metadata: of that file.
        subset: the parameters that it must hold, and their compact shapes.

    Raises:
        PayloadError: if it has steps, and is not an update of exactly this subset.

    """
    if "steps" not in metadata:
        return None
    dtype = _check_names(arrays, metadata, subset)
    steps = steps_of(metadata, [subset.shape(name) for name in subset])
    if steps is None:
        return None
    parts = []
    whole = True
    for name in subset:
        values, positions = _sent(name, arrays, dtype, subset.shape(name))
        whole = whole and positions is None
        parts.append(fill(values, positions, subset.shape(name)).reshape(-1))
    joined = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, _integers(dtype)), *parts])
    return SteppedVector(joined, steps, BITS[dtype], whole)


def steps_of(metadata: Mapping[str, str], shapes: Sequence[tuple[int, ...]]) -> Steps | None:
    """
    The steps that a file of an update says it has; none if it says none.

    Args:
        metadata: of the file.
        shapes: compact shapes of the parameters.

    Raises:
        PayloadError: if what it says are no steps for these shapes.

    """
    text = metadata.get("steps")
    if text is None:
        return None
    if metadata.get("format") not in BITS:
        raise PayloadError("an update of floats has steps")
    steps = Steps.from_text(shapes, text)
    if (steps.exponents == OPEN).any():
        raise PayloadError("an update leaves a step open")
    return steps


def _check_names(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str], subset: Subset) -> str:
    """The dtype of an update that has the arrays of the subset and no others."""
    dtype = metadata.get("format", "float32")
    if dtype not in DTYPES:
        raise PayloadError(f"the update is packed as {dtype[:40]!r}; this side knows {', '.join(DTYPES)}")
    scaled = dtype in LEVELS and "steps" not in metadata
    if dtype in BITS and not scaled and "steps" not in metadata:
        raise PayloadError(f"the update is packed as {dtype} and does not say in what steps")
    whole, known = _names(tuple(subset), scaled)
    if arrays.keys() == whole and not scaled:
        return dtype  # as most are
    twice_or_not = {name for name in subset if (name in arrays) == (f"{name}:zlib" in arrays)}
    odd = sorted((arrays.keys() - known) | twice_or_not)
    if odd:
        raise PayloadError(f"update and subset differ in the parameter {odd[0]!r}")
    return dtype


@functools.lru_cache(64)
def _names(parameters: tuple[str, ...], scaled: bool) -> tuple[frozenset[str], frozenset[str]]:
    """The arrays of an update of these parameters that is sent whole and not packed, and all that one may have."""
    parts = ("", ":mask", ":index", ":zlib", *((":scale",) if scaled else ()))
    return frozenset(parameters), frozenset(f"{name}{part}" for name in parameters for part in parts)


def _sent(
    name: str, arrays: Mapping[str, npt.NDArray[Any]], dtype: str, shape: tuple[int, ...]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp] | None]:
    """The values of a parameter as they were sent, shape ``(count,)``, and their positions if they are not all."""
    size = math.prod(shape)
    positions = read_places(name, arrays, size)
    count = size if positions is None else len(positions)
    return _values(name, arrays, dtype, shape if positions is None else (count,), count), positions


def _of_channel(size: int, positions: npt.NDArray[np.intp] | None, channels: int) -> npt.NDArray[np.intp]:
    """Which channel each value belongs to: intp, shape ``(count,)``."""
    each = size // max(channels, 1)  # 0 of an empty parameter, which has no values
    return np.repeat(np.arange(channels), each) if positions is None else positions // each


def _values(
    name: str, arrays: Mapping[str, npt.NDArray[Any]], dtype: str, shape: tuple[int, ...], count: int
) -> npt.NDArray[Any]:
    """The values as sent, shape ``(count,)``: float32, or integers."""
    array = _unpacked(name, arrays, dtype, shape, count)
    if dtype == "int4":
        integers = unpack_nibbles(array, count)
    else:
        wanted = _FLOATS.get(dtype, _integers(dtype))
        if array.dtype != wanted or array.shape != shape:
            raise PayloadError(f"{name!r} is {array.dtype} of shape {array.shape}, not {wanted} of shape {shape}")
        if dtype in _FLOATS:
            return array.reshape(-1).astype(np.float32, copy=False)
        integers = array.reshape(-1)
    if integers.min(initial=0) < -largest_integer(dtype):
        raise PayloadError(f"{name!r} holds an integer below {-largest_integer(dtype)}")
    return integers


def _integers(dtype: str) -> np.dtype[Any]:
    return np.dtype(np.int16) if dtype == "int16" else np.dtype(np.int8)


def _planes(array: npt.NDArray[Any]) -> bytes:
    """The bytes of integers; all low ones first, which are alike less than the high ones."""
    if array.dtype != np.int16:
        return array.tobytes()
    return array.reshape(-1).astype("<i2").view(np.uint8).reshape(-1, 2).T.tobytes()


def _packed(content: bytes) -> npt.NDArray[np.uint8] | None:
    """The bytes of integers packed, if that makes them shorter: most are small, or many the same."""
    coders = (zlib.compressobj(6), zlib.compressobj(6, strategy=zlib.Z_HUFFMAN_ONLY))
    best = min((coder.compress(content) + coder.flush() for coder in coders), key=len)
    return np.frombuffer(best, np.uint8) if len(best) < len(content) else None


def _unpacked(
    name: str, arrays: Mapping[str, npt.NDArray[Any]], dtype: str, shape: tuple[int, ...], count: int
) -> npt.NDArray[Any]:
    """The array of a parameter, as it would be if it had not been packed."""
    packed = arrays.get(f"{name}:zlib")
    if packed is None:
        return arrays[name]
    if dtype not in BITS or packed.dtype != np.uint8 or packed.ndim != 1:
        raise PayloadError(f"{name!r} is packed as {packed.dtype} of shape {packed.shape}, in an update of {dtype}")
    size = (count + 1) // 2 if dtype == "int4" else count * _integers(dtype).itemsize
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed.tobytes(), size + 1)
    except zlib.error as error:
        raise PayloadError(f"{name!r} cannot be unpacked: {error}") from error
    if len(content) != size or not unpacker.eof:
        raise PayloadError(f"{name!r} does not unpack to the {size} bytes of its integers")
    if dtype == "int4":
        return np.frombuffer(content, np.uint8)
    if dtype == "int8":
        return np.frombuffer(content, np.int8).reshape(shape)
    planes = np.frombuffer(content, np.uint8).reshape(2, count).T
    return np.ascontiguousarray(planes).view("<i2").astype(np.int16).reshape(shape)


def _scale(name: str, arrays: Mapping[str, npt.NDArray[Any]], shape: tuple[int, ...]) -> Vector:
    channels = shape[0] if len(shape) > 1 else 1
    scale = arrays.get(f"{name}:scale")
    if scale is None or scale.dtype != np.float32 or scale.shape not in ((channels,), (1,)):
        raise PayloadError(f"{name!r} needs a float32 scale for each of its {channels} channels, or one for all")
    if not (np.isfinite(scale) & (scale >= 0)).all():
        raise PayloadError(f"{name!r} has a scale that is negative or no number")
    return scale


def _scales(shape: tuple[int, ...], sent: int) -> int:
    """How many scales are worth their bytes, for so many values."""
    return shape[0] if len(shape) > 1 and sent >= _PER_SCALE * shape[0] else 1


def _channels(
    shape: tuple[int, ...], positions: npt.NDArray[np.intp] | None, scales: int
) -> tuple[npt.NDArray[np.intp], int]:
    """Which scale each value has, and how many there are: one per channel, or one for all."""
    size = math.prod(shape)
    where = np.arange(size) if positions is None else positions
    if scales == 1:
        return np.zeros(len(where), np.intp), 1
    return where // (size // shape[0]), shape[0]
