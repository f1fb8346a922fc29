"""Files that a peer sent: manifests, weights, differences, programs, updates."""

from __future__ import annotations

import hashlib
import io
import json
import zlib

import numpy as np

from coordinator.errors import UpdateRefused
from coordinator.programs.tiers import Tier
from coordinator.store.records import AssignmentRecord, TierRecord
from coordinator.updates.validation import MAX_MAGNITUDE, check_offer, parse_update, plain_report
from mobile_sdk import safetensors
from mobile_sdk.engines.interpreted import graph
from mobile_sdk.engines.interpreted.operators import OPERATORS
from mobile_sdk.errors import PayloadError, ProgramError, ProtocolError
from mobile_sdk.layout import Layout, Parameter, Slice, Subset
from mobile_sdk.manifest import (
    PROGRAM_FILE,
    Bound,
    FileEntry,
    InputContract,
    Manifest,
    Memory,
    Method,
    Part,
    SelfCheck,
    TensorSpec,
)
from mobile_sdk.payload import (
    Grid,
    SteppedVector,
    UpdateFormat,
    encode_update,
    make_difference,
    pack,
    unpack,
    unpack_text,
)
from mobile_sdk.payload.differences import apply_difference
from mobile_sdk.payload.steps import Steps
from mobile_sdk.protocol.decoding import decode
from mobile_sdk.protocol.messages import ENCODINGS, ArtifactRef, Offer, Sha256

from .target import Target

__all__ = ["TARGETS"]

_LAYOUT = Layout([Parameter("conv", (4, 3)), Parameter("bias", (4,)), Parameter("scale", ())])
_SUBSET = Subset(_LAYOUT, {"conv": Slice(1, (0, 2)), "bias": None, "scale": None})
_REF = ArtifactRef(Sha256("ab" * 32), 10)


def _manifest() -> Manifest:
    weight = TensorSpec("weight", "conv", (4, 3), "float32")
    mask = TensorSpec("dropout", "d", (2, 4), "float32", 0.5)
    steps = (TensorSpec("loss", "loss", (), "float32"), TensorSpec("gradient", "conv", (4, 2), "float32"))
    return Manifest(
        run="small",
        serial=1,
        tier="large",
        task="a.b:c",
        files={PROGRAM_FILE: FileEntry("ab" * 32, 100)},
        methods={"train_step": Method((weight, mask), steps, 64)},
        layout=_LAYOUT,
        subset=_SUBSET,
        contract=InputContract(
            (3,),
            "float32",
            (),
            "several",
            range=(-1.0, 1.0),
            labels=("a", "b"),
            y_parts=(Part("y", (), "int64"),),
            bounds=(Bound("y", "y", 0, 1, None, None),),
        ),
        metrics=("accuracy",),
        micro_batch=2,
        memory=Memory(1000, 64, 500),
        baked=(),
        check=SelfCheck(1, ((0.0, 1.0),), ((0, 1),), {"conv": (-0.1, 0.1)}, 1.5, 2.5, {"conv": 0.5}),
        moved=("scale",),
        whole=("train_step",),
    )


def _parse_manifest(data: bytes) -> None:
    manifest = Manifest.from_bytes(data)
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert manifest.trained.size >= manifest.subset.size


def _manifests() -> dict[str, bytes]:
    content = _manifest().to_bytes()
    huge = b"1" + b"0" * 400
    return {
        "whole": content,
        "huge-loss": content.replace(b'"loss":1.5', b'"loss":' + huge),
        "huge-range": content.replace(b"[-1.0,1.0]", b"[-1.0," + huge + b"]"),
        "not-a-number": content.replace(b"[-1.0,1.0]", b"[NaN,NaN]"),
        "infinite": content.replace(b"[4,3]", b"[1e999,3]"),
    }


def _file(data: bytes) -> bytes:
    """
    An input as a safetensors file.

    Where the first byte is even, the rest is the file; where it is odd, a line is the header, whose length is then
    right, and what follows are the arrays: the fuzzer would seldom get the length right.
    """
    if not data or data[0] % 2 == 0:
        return data[1:]
    header, _, arrays = data[1:].partition(b"\n")
    return len(header).to_bytes(8, "little") + header + arrays


def _input(file: bytes) -> bytes:
    """The inverse of :func:`_file`, of odd inputs."""
    length = int.from_bytes(file[:8], "little")
    return b"\1" + file[8 : 8 + length] + b"\n" + file[8 + length :]


def _parse_safetensors(data: bytes) -> None:
    arrays, metadata = safetensors.loads(_file(data))
    again, kept = safetensors.loads(safetensors.dumps(arrays, metadata))
    assert kept == metadata
    assert {n: a.tobytes() for n, a in again.items()} == {n: a.tobytes() for n, a in arrays.items()}


def _safetensors() -> dict[str, bytes]:
    file = safetensors.dumps(
        {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((0, 2), np.int8)}, {"grid": "AA=="}
    )
    # A shape whose size would take long to multiply out; longer ones take minutes.
    shape = ",".join(["9" * 4000] * 4)
    slow = f'{{"a":{{"dtype":"I8","shape":[{shape}],"data_offsets":[0,0]}}}}'.encode()
    axes = f'{{"a":{{"dtype":"I8","shape":[{",".join(["1"] * 99)}],"data_offsets":[0,1]}}}}\n.'.encode()
    return {"arrays": _input(file), "raw": b"\0" + file, "empty": b"\1{}\n", "slow": b"\1" + slow, "axes": b"\1" + axes}


def _version(value: float) -> bytes:
    arrays = {
        "conv": np.full((4, 3), value, np.float32),
        "bias": np.full(4, value, np.float32),
        "scale": np.full((), value, np.float32),
    }
    grid = Grid.of({name: np.ones_like(array) for name, array in arrays.items()})
    return safetensors.dumps(arrays, {"grid": grid.to_text()})


_BASE = _version(0.5)


def _apply(data: bytes) -> None:
    """A difference: bit 1 of the first byte gives it a base, and bit 2 takes the input as packed already."""
    which = data[0] if data else 0
    packed = data[1:] if which & 4 else zlib.compress(_file(data), 0)
    output = io.BytesIO()
    apply_difference(_BASE if which & 2 else None, packed, len(_BASE), output)
    assert output.tell() <= len(_BASE) + 100_000


def _differences() -> dict[str, bytes]:
    seeds = {"empty": b'\1{"__metadata__":{"grid":""}}\n'}
    for name, base, first in (("delta", _BASE, 3), ("whole", None, 1)):
        packed = make_difference(base, _version(0.75))
        assert packed is not None
        seeds[name] = bytes([first]) + _input(zlib.decompress(packed))[1:]
        seeds[f"{name}-packed"] = bytes([first + 3]) + packed
    return seeds


_SIZE = 4096


def _unpack(data: bytes) -> None:
    """A packed artifact: the first byte chooses the encoding, and whether the input is its plain content."""
    which = data[0] if data else 0
    encoding = ENCODINGS[which % len(ENCODINGS)]
    packed = zlib.compress(data[1:], 0) if which & 4 and encoding != "identity" else data[1:]
    if which & 8:
        assert len(unpack_text(packed, encoding)) <= 2**24
    else:
        assert len(unpack(packed, encoding, _SIZE)) == _SIZE


def _artifacts() -> dict[str, bytes]:
    words = np.arange(_SIZE // 4, dtype=np.uint32)
    floats = (np.random.default_rng(0).integers(-60, 60, _SIZE // 4) * 0.5).astype(np.float32)
    found = {"bomb": bytes([1]) + zlib.compress(b"\0" * 50_000_000), "text": bytes([9]) + zlib.compress(b"{}")}
    for name, content in (("words", words.tobytes()), ("floats", floats.tobytes())):
        packed, encoding = pack(content)
        found[name] = bytes([ENCODINGS.index(encoding)]) + packed
        if encoding != "identity":
            found[f"{name}-plain"] = bytes([ENCODINGS.index(encoding) | 4]) + zlib.decompress(packed)
    return found


_TIER = Tier(TierRecord("large", 1, 1000, _REF, "", _REF, None), _manifest(), _SUBSET.positions())
_ASSIGNMENT = AssignmentRecord(1, "phone-1", 3, "large", 0.0, open=True)


def _update(data: bytes) -> None:
    """What follows the first line is the update; the line is the JSON of its offer's report, or empty."""
    report, _, rest = data.partition(b"\n")
    content = _file(rest)
    said = report.decode("utf-8", "replace") or '{"version":3,"samples":10}'
    text = f'{{"type":"offer","assignment":"a00000001","artifact":{{"sha256":"{"ab" * 32}","size":{len(content) or 1},"encoding":"identity"}},"report":{said},"follows":false}}'  # noqa: E501
    offer = decode(text)
    assert isinstance(offer, Offer)
    plain = plain_report(offer.report)
    json.dumps(plain, allow_nan=False)
    check_offer(offer, _ASSIGNMENT, "phone-1", _TIER, 0, None)
    found = parse_update(content, hashlib.sha256(content).hexdigest(), _TIER)
    vector = found.values() if isinstance(found, SteppedVector) else found
    assert vector.shape == _TIER.positions.shape
    assert vector.dtype == np.float32
    assert np.abs(vector).max(initial=0.0) <= MAX_MAGNITUDE + 1


def _updates() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=_SUBSET.shape(name)).astype(np.float32) for name in _SUBSET}
    found = {
        "report": b'{"version":3,"samples":10,"loss":1e999,"metrics":{"a":0.5}}\n'
        + _input(safetensors.dumps(*encode_update(arrays, UpdateFormat(), 0)))
    }
    open_steps = Steps.open([array.shape for array in arrays.values()]).to_text()
    for dtype in ("float32", "float16", "int16", "int8", "int4"):
        for top_k in (1.0, 0.5, 0.1):
            for name, steps in (("steps", open_steps), ("scales", "")):
                if (name == "steps") if dtype.startswith("float") else (dtype == "int16" and name == "scales"):
                    continue
                file = safetensors.dumps(*encode_update(arrays, UpdateFormat(dtype, top_k, steps), 0))
                found[f"{dtype}-{name}-{top_k:g}"] = b"\n" + _input(file)
    huge = {name: np.full(_SUBSET.shape(name), 1e38, np.float32) for name in _SUBSET}
    found["huge-int8"] = b"\n" + _input(safetensors.dumps(*encode_update(huge, UpdateFormat("int8"), 0)))
    return found


def _parse_graph(data: bytes) -> None:
    graph.dumps(graph.loads(_file(data)))


def _graphs() -> dict[str, bytes]:
    methods = {
        "predict": {
            "inputs": [["float32", [2, 3]]],
            "constants": ["0"],
            "nodes": [["view", 0, [3, 2]], ["mm", 2, 1]],
            "outputs": [3],
        }
    }
    text = json.dumps({"format": 1, "methods": methods})
    return {"graph": _input(safetensors.dumps({"0": np.ones((2, 2), np.float32)}, {"ftte.graph": text}))}


def _words(*texts: str) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in texts)


_HEADER = _words(
    *(f'"{name}"' for name in ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U8", "BOOL")),
    *(
        f'"{name}":'
        for name in (
            "dtype",
            "shape",
            "data_offsets",
            "__metadata__",
            "grid",
            "format",
            "steps",
            "saturated",
            "ftte.graph",
        )
    ),
    *("\n", "[0,0]", "[]", "{}", "1e999", "NaN", "-1"),
)
_NAMES = _words(
    *(f'"{name}{part}":' for name in _SUBSET for part in ("", ":scale", ":mask", ":index", ":zlib")),
    *(f'"{name}"' for name in ("float32", "float16", "int16", "int8", "int4")),
)
_OPERATORS = _words(*(f'"{name}"' for name in OPERATORS))

TARGETS = (
    Target(
        "manifests",
        _parse_manifest,
        (ProgramError,),
        8,
        8192,
        tuple(sorted({b'"%s"' % part for part in _manifest().to_bytes().split(b'"')[1::2]})) + _words("1e999", "NaN"),
        _manifests,
    ),
    Target("safetensors", _parse_safetensors, (PayloadError,), 16, 16384, _HEADER, _safetensors),
    Target("differences", _apply, (PayloadError,), 8, 4096, _HEADER + _NAMES, _differences),
    Target("artifacts", _unpack, (PayloadError,), 24, 4096, (), _artifacts),
    Target("updates", _update, (UpdateRefused, ProtocolError), 8, 4096, _HEADER + _NAMES, _updates),
    Target(
        "graphs",
        _parse_graph,
        (ProgramError,),
        8,
        8192,
        _HEADER + _words(*(f'"{n}"' for n in OPERATORS)),
        _graphs,
    ),
)
