"""
An update as a safetensors file, and back.

Of each trained parameter NAME, in its compact shape:

    dense      NAME            float32, float16 or int8 in that shape; int4: uint8, two values to a byte
    top-k      NAME            the values that are sent, shape (k,)
               NAME:mask       uint8, a bit per element (numpy's packbits), or
               NAME:index      int32, their positions, ascending, whichever is shorter
    integers   NAME:scale      float32, one per output channel (axis 0), or one for all, where that is shorter: of a
                               vector, and where few values are sent per channel
               NAME:zlib       uint8, their bytes packed with zlib, in the place of NAME where that is shorter

The file's metadata says ``format`` (the dtype).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PayloadError
from ..layout import Arrays, Subset, Vector
from .format import DTYPES, UpdateFormat
from .quantise import LEVELS, dequantise, pack_nibbles, quantise, scales, unpack_nibbles

__all__ = ["decode_parameter", "decode_update", "encode_update", "most_bytes"]

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
    kept = _largest(update, packing.top_k) if packing.top_k < 1 else None
    arrays: AnyArrays = {}
    for name, array in update.items():
        values = array.reshape(-1)
        positions: npt.NDArray[np.intp] | None = None
        if kept is not None:
            positions = kept[name]
            values = values[positions]
            arrays |= _where(name, positions, array.size)
        if packing.dtype in _FLOATS:
            sent = np.clip(values, -_HALF_MAX, _HALF_MAX) if packing.dtype == "float16" else values
            arrays[name] = sent.astype(_FLOATS[packing.dtype], copy=False)
        else:
            channels, count = _channels(array.shape, positions, _scales(array.shape, len(values)))
            levels = LEVELS[packing.dtype]
            scale = scales(values, channels, count, levels)
            integers = quantise(values, scale[channels], levels, rng)
            arrays[name] = pack_nibbles(integers) if packing.dtype == "int4" else integers
            arrays[f"{name}:scale"] = scale
        if positions is None and packing.dtype != "int4":
            arrays[name] = arrays[name].reshape(array.shape)
        if packing.dtype in LEVELS and (packed := _packed(arrays[name].tobytes())) is not None:
            del arrays[name]
            arrays[f"{name}:zlib"] = packed
    return arrays, {"format": packing.dtype}


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
    dtype = metadata.get("format", "float32")
    if dtype not in DTYPES:
        raise PayloadError(f"the update is packed as {dtype[:40]!r}; this side knows {', '.join(DTYPES)}")
    known = {f"{name}{part}" for name in subset for part in ("", ":scale", ":mask", ":index", ":zlib")}
    odd = sorted((set(arrays) - known) | {name for name in subset if (name in arrays) == (f"{name}:zlib" in arrays)})
    if odd:
        raise PayloadError(f"update and subset differ in the parameter {odd[0]!r}")
    for name in subset:
        yield name, decode_parameter(name, subset.shape(name), arrays, metadata)


def decode_parameter(
    name: str, shape: tuple[int, ...], arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]
) -> Vector:
    """
    One parameter of a packed update: float32 of the compact ``shape``.

    Args:
        name: the parameter.
        shape: its compact shape.
        arrays: of the packed update.
        metadata: of the packed update; ``format`` says how it is packed.

    Raises:
        PayloadError: if the arrays are not that.

    """
    dtype = metadata.get("format", "float32")
    size = math.prod(shape)
    positions = _positions(name, arrays, size)
    count = size if positions is None else len(positions)
    values = _values(name, arrays, dtype, shape if positions is None else (count,), count)
    if dtype in LEVELS:
        scale = _scale(name, arrays, shape)
        values = dequantise(values, scale[_channels(shape, positions, len(scale))[0]])
    elif f"{name}:scale" in arrays:
        raise PayloadError(f"{name!r} has a scale, which {dtype} has not")
    if positions is None:
        return values.reshape(shape)
    full = np.zeros(size, np.float32)
    full[positions] = values
    return full.reshape(shape)


def _largest(update: Arrays, share: float) -> dict[str, npt.NDArray[np.intp]]:
    """Of the whole update's elements, the ``share`` of the largest magnitude: their ascending positions by name."""
    flat = np.concatenate([np.abs(array).reshape(-1) for array in update.values()])
    count = max(1, math.ceil(share * len(flat)))
    chosen = np.sort(np.argpartition(flat, len(flat) - count)[len(flat) - count :])
    result = {}
    start = 0
    for name, array in update.items():
        low, high = np.searchsorted(chosen, (start, start + array.size))
        result[name] = chosen[low:high] - start
        start += array.size
    return result


def _where(name: str, positions: npt.NDArray[np.intp], size: int) -> AnyArrays:
    if size / 8 < 4 * len(positions):
        mask = np.zeros(size, np.uint8)
        mask[positions] = 1
        return {f"{name}:mask": np.packbits(mask)}
    return {f"{name}:index": positions.astype(np.int32)}


def _positions(name: str, arrays: Mapping[str, npt.NDArray[Any]], size: int) -> npt.NDArray[np.intp] | None:
    mask, index = arrays.get(f"{name}:mask"), arrays.get(f"{name}:index")
    if mask is not None and index is not None:
        raise PayloadError(f"{name!r} has both a mask and an index")
    if mask is not None:
        if mask.dtype != np.uint8 or mask.shape != ((size + 7) // 8,):
            raise PayloadError(f"the mask of {name!r} is {mask.dtype} of shape {mask.shape}, for {size} elements")
        return np.flatnonzero(np.unpackbits(mask)[:size])
    if index is not None:
        good = index.dtype == np.int32 and index.ndim == 1 and bool((np.diff(index) > 0).all())
        if not good or (len(index) and not 0 <= index[0] <= index[-1] < size):
            raise PayloadError(f"the index of {name!r} must be ascending int32 within its {size} elements")
        return index.astype(np.intp)
    return None


def _values(
    name: str, arrays: Mapping[str, npt.NDArray[Any]], dtype: str, shape: tuple[int, ...], count: int
) -> npt.NDArray[Any]:
    """The values as sent, shape ``(count,)``: float32, or integers."""
    array = _unpacked(name, arrays, dtype, shape, count)
    if dtype == "int4":
        integers = unpack_nibbles(array, count)
    else:
        wanted = _FLOATS.get(dtype, np.dtype(np.int8))
        if array.dtype != wanted or array.shape != shape:
            raise PayloadError(f"{name!r} is {array.dtype} of shape {array.shape}, not {wanted} of shape {shape}")
        if dtype in _FLOATS:
            return array.reshape(-1).astype(np.float32, copy=False)
        integers = array.reshape(-1)
    if integers.min(initial=0) < -LEVELS[dtype]:
        raise PayloadError(f"{name!r} holds an integer below {-LEVELS[dtype]}")
    return integers


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
    if dtype not in LEVELS or packed.dtype != np.uint8 or packed.ndim != 1:
        raise PayloadError(f"{name!r} is packed as {packed.dtype} of shape {packed.shape}, in an update of {dtype}")
    size = (count + 1) // 2 if dtype == "int4" else count
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed.tobytes(), size + 1)
    except zlib.error as error:
        raise PayloadError(f"{name!r} cannot be unpacked: {error}") from error
    if len(content) != size or not unpacker.eof:
        raise PayloadError(f"{name!r} does not unpack to the {size} bytes of its integers")
    return np.frombuffer(content, np.uint8) if dtype == "int4" else np.frombuffer(content, np.int8).reshape(shape)


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
