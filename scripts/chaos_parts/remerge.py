"""
Make a run's versions anew from its kept updates, by a program that shares no code with the coordinator.

Written from ``docs/explanation/merging.md``, ``docs/explanation/state.md`` and ``docs/reference/protocol.md``, with
numpy, JSON and SQLite alone. It knows what ``scripts/chaos.py`` uses: dense updates of float32 or int8, the rule
``holders``, the polynomial policy, and ``w += eta d``.
"""

from __future__ import annotations

import base64
import decimal
import hashlib
import json
import math
import sqlite3
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read_kept_merge", "remerge"]


def read_safetensors(content: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    """Arrays and metadata: eight bytes of length, a JSON header, the arrays."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    dtypes = {"F32": "<f4", "F16": "<f2", "I8": "i1", "U8": "u1", "I32": "<i4", "I64": "<i8"}
    arrays = {}
    for name, item in header.items():
        begin, end = (8 + length + offset for offset in item["data_offsets"])
        arrays[name] = np.frombuffer(content[begin:end], dtypes[item["dtype"]]).reshape(item["shape"])
    return arrays, metadata


def read_kept_merge(path: Path) -> list[str]:
    """The assignments whose updates a file of kept updates holds."""
    _, metadata = read_safetensors(path.read_bytes())
    return [update["assignment"] for update in json.loads(metadata["merge"])["updates"]]


def elements(content: bytes, subset: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """An update's compact arrays in float32, rounded to multiples of 2**-26."""
    arrays, metadata = read_safetensors(content)
    compact = {name: compact_shape(shapes[name], part) for name, part in subset.items()}
    floats = metadata.get("format", "float32") == "float32"
    exponents = {} if floats else steps(metadata["steps"], compact)
    found = {}
    for name, shape in compact.items():
        if floats:
            values = arrays[name].astype(np.float64)
        else:
            packed = arrays.get(f"{name}:zlib")
            integers = arrays[name] if packed is None else np.frombuffer(zlib.decompress(packed.tobytes()), np.int8)
            own = exponents[name]
            values = integers.reshape(len(own), -1) * 2.0 ** own.reshape(-1, 1).astype(np.float64)
        found[name] = (np.rint(values.reshape(shape) * 2.0**26) / 2.0**26).astype(np.float32)
    return found


def compact_shape(shape: tuple[int, ...], part: dict[str, Any] | None) -> tuple[int, ...]:
    """Of what is trained of a parameter."""
    if part is None:
        return shape
    return (*shape[: part["axis"]], len(part["indices"]), *shape[part["axis"] + 1 :])


def steps(text: str, compact: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """The exponents of each parameter's channels; the nets here have fewer than 16,384 channels."""
    counts = {
        name: shape[0] if len(shape) > 1 and math.prod(shape) >= 16 * shape[0] else 1 for name, shape in compact.items()
    }
    content = base64.b64decode(text)
    if len(content) < sum(counts.values()):
        content = zlib.decompress(content)
    exponents = np.frombuffer(content, np.int8)
    ends = np.cumsum(list(counts.values()))
    return dict(zip(counts, np.split(exponents, ends[:-1]), strict=True))


def positions(subset: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Where the compact arrays lie in the full ones."""
    return {
        name: ... if part is None else (*[slice(None)] * part["axis"], part["indices"]) for name, part in subset.items()
    }


def merge(weights: dict[str, Any], facts: dict[str, Any], contents: dict[str, Any], tiers: dict[str, Any]) -> Any:
    """One merge: sums of integers (Python's own), one division per element, one addition."""
    section = facts["section"]
    assert section["rule"] == "holders"
    assert section["staleness"]["policy"] == "polynomial"
    assert section["optimiser"]["kind"] == "sgd"
    sums = {name: np.zeros(array.shape, object) for name, array in weights.items()}
    held = {name: np.zeros(array.shape, np.int64) for name, array in weights.items()}
    for update in facts["updates"]:
        subset, shapes = tiers[update["tier"]]
        content = contents[update["assignment"]].tobytes()
        assert hashlib.sha256(content).hexdigest() == update["sha256"], f"{update['assignment']} was changed"
        exponent = -decimal.Decimal(section["staleness"]["exponent"])
        age = float(decimal.Context(prec=28).power(decimal.Decimal(1 + update["staleness"]), exponent))
        staleness_weight = age * update["factor"]
        fixed = min(max(round(staleness_weight * 1024), 1), 16 * 1024) if staleness_weight > 0 else 0
        examples = min(max(round(update["examples"]), 1), 65_536)
        where = positions(subset, shapes)
        for name, array in elements(content, subset, shapes).items():
            if update["scale"] != 1.0:
                scaled = (array * np.float32(update["scale"])).astype(np.float64)
                array = (np.rint(scaled * 2.0**26) / 2.0**26).astype(np.float32)
            steps = (array.astype(np.float64) * 2.0**26).astype(np.int64).astype(object)
            sums[name][where[name]] += steps * (fixed * examples)
            held[name][where[name]] += examples
    moved = {}
    for name, array in weights.items():
        total = sums[name]
        touched = held[name] > 0
        # As two integers below 2**32 and above: float64 holds each, and their sum is rounded once.
        high, low = total // 2**32, total % 2**32
        values = high.astype(np.float64) * 2.0**6 + low.astype(np.float64) * 2.0**-26
        direction = values[touched] / (held[name][touched] * 1024.0)
        result = array.copy()
        result[touched] = (result[touched].astype(np.float64) + section["learning_rate"] * direction).astype(np.float32)
        moved[name] = result
    return moved


def remerge(state: Path) -> tuple[int, list[str]]:
    """
    Make every version of a state directory anew.

    Returns:
        How many came out the same, and a sentence for each that did not.

    """
    database = sqlite3.connect(f"file:{state / 'state.sqlite'}?mode=ro", uri=True)
    artifacts = state / "artifacts"
    tiers = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, text in database.execute("SELECT name, manifest FROM tiers"):
        ref = json.loads(text)
        content = (artifacts / ref["sha256"]).read_bytes()
        manifest = json.loads(zlib.decompress(content) if ref["encoding"] == "zlib" else content)
        shapes = {item["name"]: tuple(item["shape"]) for item in manifest["layout"]}
        # The manifest's keys are sorted; parameters, and so the steps of their channels, are in the layout's order.
        subset = {parameter: manifest["subset"][parameter] for parameter in shapes if parameter in manifest["subset"]}
        tiers[name] = (subset, shapes)
    versions = database.execute(
        "SELECT version, parent, weights, private, kind FROM versions ORDER BY version"
    ).fetchall()
    database.close()
    made: dict[int, dict[str, Any]] = {}
    good, wrong = 0, []
    for version, parent, weights, private, kind in versions:
        exact = json.loads(private).get("master") or json.loads(weights)[-1]
        if kind == "initial":
            made[version] = read_safetensors((artifacts / exact["sha256"]).read_bytes())[0]
            continue
        contents, metadata = read_safetensors((state / "merged" / f"{version:08d}.safetensors").read_bytes())
        made[version] = merge(made[parent], json.loads(metadata["merge"]), contents, tiers)
        found = hashlib.sha256(_written(made[version])).hexdigest()
        if found == exact["sha256"]:
            good += 1
        else:
            near = _near(artifacts / exact["sha256"], made[version])
            wrong.append(f"version {version} comes to {found[:12]}, and not {exact['sha256'][:12]}{near}")
    return good, wrong


def _written(arrays: dict[str, Any]) -> bytes:
    """The bytes of a file of float32 arrays."""
    header: dict[str, Any] = {}
    offset = 0
    for name, array in arrays.items():
        size = 4 * math.prod(array.shape)
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values())


def _near(path: Path, arrays: dict[str, Any]) -> str:
    if not path.exists():
        return ""
    other = read_safetensors(path.read_bytes())[0]
    return (
        f"; they differ by up to {max(float(np.abs(other[name] - array).max()) for name, array in arrays.items()):.3g}"
    )


if __name__ == "__main__":
    count, differ = remerge(Path(sys.argv[1]))
    print(f"{count} versions come out the same", *differ, sep="\n")
    sys.exit(1 if differ else 0)
