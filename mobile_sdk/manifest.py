"""
What a program says of itself.

A program is a folder (or, on the wire, its files one by one): ``manifest.json``, ``manifest.sig`` where it was
signed, and what engines run: ``program.pte`` for those over ExecuTorch, ``graph.safetensors`` for the one that
interprets. A device holds only its own engine's file. The manifest is canonical JSON; its
exact bytes are what is signed and hashed, so nobody ever needs to serialise it a second time.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import LayoutError, ProgramError
from .layout import Layout, Subset

__all__ = [
    "ANDROID_ARCHIVE",
    "ENGINE_FILES",
    "EXECUTORCH_VERSION",
    "GRAPH_FILE",
    "MANIFEST_FILE",
    "PROGRAM_FILE",
    "SIGNATURE_FILE",
    "Bound",
    "FileEntry",
    "InputContract",
    "Manifest",
    "Memory",
    "Method",
    "SelfCheck",
    "Part",
    "TensorSpec",
    "canonical_json",
]

# One constant for exporter, native runtime and Android archive: programs and runtimes are paired.
EXECUTORCH_VERSION = "1.5.1"
ANDROID_ARCHIVE = f"org.pytorch:executorch-android:{EXECUTORCH_VERSION}"

# Format 1 had no self-check, and programs of that time are wrong in ExecuTorch's archives for phones.
FORMAT = 2
PROGRAM_FILE = "program.pte"
GRAPH_FILE = "graph.safetensors"
MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.sig"

# What each engine runs.
ENGINE_FILES = {"native": PROGRAM_FILE, "android": PROGRAM_FILE, "interpreted": GRAPH_FILE}

# The dtype of x or y where it consists of several arrays.
SEVERAL = "several"
DTYPES = ("float32", "int64", "int32", "uint8", "bool")
ROLES = (
    "x", "y", "sample_weight", "weight", "dropout", "normal", "uniform", "exponential", "loss", "metric", "gradient",
    "prediction",
)  # fmt: skip


def canonical_json(data: Any) -> bytes:
    """JSON in UTF-8 with sorted keys and no spaces; NaN and infinities are errors."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


@dataclasses.dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: SHA-256 (hex) of its bytes, and how many there are."""

    sha256: str
    size: int

    @classmethod
    def of(cls, content: bytes) -> FileEntry:
        """The entry that describes ``content``."""
        return cls(hashlib.sha256(content).hexdigest(), len(content))


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """
    One input or output of a method, in the order of the call.

    ``role`` says what it is (one of ``x y sample_weight weight dropout normal uniform exponential`` for inputs,
    ``loss metric gradient prediction`` for outputs); ``name`` says which parameter, metric or module.
    ``keep`` is the probability that an element of a dropout mask is kept, and 1 for everything else.
    """

    role: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    keep: float = 1.0


@dataclasses.dataclass(frozen=True)
class Method:
    """Inputs and outputs of ``train_step``, ``evaluate`` or ``predict``, and its planned arena in bytes."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    planned_bytes: int


@dataclasses.dataclass(frozen=True)
class Part:
    """One of several arrays that x or y consists of, without the batch dimension."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Bound:
    """
    Whole numbers that the model or its loss looks something up by: classes, words of a table.

    ``array`` is ``x`` or ``y``, ``part`` one of several arrays in it, or empty. Values are ``low`` to ``high``, both
    included, or ``ignored``. ``column`` is the position on the last axis that is looked up, :obj:`None` for all.
    """

    array: str
    part: str
    low: int
    high: int
    ignored: int | None = None
    column: int | None = None


@dataclasses.dataclass(frozen=True)
class InputContract:
    """
    What one sample looks like, without the batch dimension.

    ``range`` is the closed interval of valid x (:obj:`None`: any finite value); ``labels`` names the
    classes where y is a class index. Where a task takes several arrays, ``x_parts`` (or ``y_parts``) lists them, and
    shape and dtype are ``()`` and ``"several"``. ``bounds`` says what whole numbers may be.
    """

    x_shape: tuple[int, ...]
    x_dtype: str
    y_shape: tuple[int, ...]
    y_dtype: str
    range: tuple[float, float] | None = None
    normalisation: str = ""
    labels: tuple[str, ...] = ()
    x_parts: tuple[Part, ...] = ()
    y_parts: tuple[Part, ...] = ()
    bounds: tuple[Bound, ...] = ()

    def parts(self, array: str) -> tuple[Part, ...]:
        """The arrays of ``x`` or ``y``; a single one has no name."""
        several: tuple[Part, ...] = getattr(self, f"{array}_parts")
        return several or (Part("", getattr(self, f"{array}_shape"), getattr(self, f"{array}_dtype")),)

    def numpy_dtype(self, array: str) -> np.dtype[Any]:
        """Of a batch of ``x`` or ``y`` as datasets give it: one with a field per part where there are several."""
        if not getattr(self, f"{array}_parts"):
            single: np.dtype[Any] = np.dtype(getattr(self, f"{array}_dtype"))
            return single
        return np.dtype([(p.name, p.dtype, p.shape) for p in self.parts(array)])


@dataclasses.dataclass(frozen=True)
class Memory:
    """
    What a device needs, in bytes.

    ``measured_bytes`` is the growth of anonymous memory from "runtime ready" to the peak of a training
    step, gradients, optimiser state and input buffers included, in a fresh process of the native
    runtime. ``planned_bytes`` is the arena that ExecuTorch planned for ``train_step``.
    ``budget_bytes`` is what the plan was made for; 0 where no budget was set. ``idle_bytes`` is the idle floor: what
    Python and the runtime held before the program was opened, resident and no part of the budget; 0 if not measured.
    """

    budget_bytes: int
    planned_bytes: int
    measured_bytes: int
    idle_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class SelfCheck:
    """
    What a right runtime makes of inputs that are drawn from ``seed``; see :mod:`mobile_sdk.engines.self_check`.

    ``x``, ``y`` (by part, in the contract's order) and ``weights`` (by name, all but baked ones) are the lowest and the
    highest value that is drawn.
    ``loss`` is the loss sum of a training step on a full micro-batch, ``prediction`` the Euclidean norm of the output,
    ``gradients`` the norms of the gradients by parameter.
    """

    seed: int
    x: tuple[tuple[float, float], ...]
    y: tuple[tuple[float, float], ...]
    weights: Mapping[str, tuple[float, float]]
    loss: float
    prediction: float
    gradients: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """
    Everything a device must know to run a program.

    ``serial`` numbers the sets of programs of a run: a device refuses one lower than it has seen.
    ``run`` is empty in a program that was saved without being signed for a run. ``baked`` names the weights that are
    inside the program: no method takes them, and no version of the run changes them. ``local`` names whole parameters
    that every device trains for itself; they are in no update and in no subset. ``moved`` names buffers of the subset
    that a training step moves by itself: their gradients are what they become less by, whatever the optimiser.
    ``whole`` lists methods in which samples of a batch see each other, so that a batch must be full.
    ``check`` is what devices try a program with; one that was built but not exported has none, and no device takes it.
    """

    run: str
    serial: int
    tier: str
    task: str
    files: Mapping[str, FileEntry]
    methods: Mapping[str, Method]
    layout: Layout
    subset: Subset
    contract: InputContract
    metrics: tuple[str, ...]
    micro_batch: int
    memory: Memory
    baked: tuple[str, ...] = ()
    local: tuple[str, ...] = ()
    check: SelfCheck | None = None
    moved: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    executorch: str = EXECUTORCH_VERSION
    format: int = FORMAT

    @functools.cached_property
    def trained(self) -> Subset:
        """What a training step gives gradients of: the subset, whose changes are sent, and what is local."""
        return Subset(self.layout, {**self.subset, **dict.fromkeys(self.local)}) if self.local else self.subset

    def to_bytes(self) -> bytes:
        """Canonical JSON: what is written to ``manifest.json``, hashed and signed."""
        data = {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
            if field.name not in ("layout", "subset")
        }
        return canonical_json(data | {"layout": self.layout.to_json(), "subset": self.subset.to_json()})

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """
        Parse the bytes of ``manifest.json``.

        Raises:
            ProgramError: if they are not a manifest of this format.

        """
        try:
            data = json.loads(content, parse_constant=_no_constant)
            if data["format"] != FORMAT:
                remedy = "export the program anew" if data["format"] in range(FORMAT) else "update the SDK"
                raise ProgramError(
                    f"the manifest has format {data['format']!r}; this SDK reads format {FORMAT}: {remedy}"
                )
            layout = Layout.from_json(data["layout"])
            manifest = cls(
                run=_text(data["run"]),
                serial=_count(data["serial"]),
                tier=_text(data["tier"]),
                task=_text(data["task"]),
                files={_text(k): FileEntry(_text(v["sha256"]), _count(v["size"])) for k, v in data["files"].items()},
                methods={_text(k): _method(v) for k, v in data["methods"].items()},
                layout=layout,
                subset=Subset.from_json(layout, data["subset"]),
                contract=_contract(data["contract"]),
                metrics=tuple(_text(m) for m in data["metrics"]),
                micro_batch=_count(data["micro_batch"]),
                memory=Memory(**{k: _count(v) for k, v in data["memory"].items()}),
                baked=tuple(_text(name) for name in data.get("baked", ())),
                local=tuple(_text(name) for name in data.get("local", ())),
                check=_check(layout, data["check"]),
                moved=tuple(_text(name) for name in data.get("moved", ())),
                whole=tuple(_text(name) for name in data.get("whole", ())),
                executorch=_text(data["executorch"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError, LayoutError) as error:
            raise ProgramError(f"not a program manifest: {type(error).__name__}: {error}") from error
        odd = [name for name in manifest.local if name in manifest.subset or name not in {p.name for p in layout}]
        if odd:
            raise ProgramError(f"the manifest keeps {odd[0]!r} local, but sends it or does not have it")
        if PROGRAM_FILE not in manifest.files:
            raise ProgramError(f"the manifest lists no {PROGRAM_FILE}")
        if manifest.micro_batch < 1:
            raise ProgramError(f"the manifest has the micro-batch {manifest.micro_batch}; it must be at least 1")
        return manifest


def _plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # What is not there is not written: manifests of a single input stay as they were.
        plain = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, TensorSpec) and value.role != "dropout":
            del plain["keep"]
        if isinstance(value, InputContract):
            plain = {key: item for key, item in plain.items() if item or not key.endswith(("_parts", "bounds"))}
        return plain
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a whole number of at least 0")
    return value


def _spec(data: Any) -> TensorSpec:
    if data["role"] not in ROLES or data["dtype"] not in DTYPES:
        raise ValueError(f"unknown role or dtype in {data!r}")
    keep = data.get("keep", 1.0)
    if not isinstance(keep, int | float) or not 0 < keep <= 1:
        raise ValueError(f"{keep!r} is no probability of keeping an element")
    shape = tuple(_count(d) for d in data["shape"])
    return TensorSpec(data["role"], _text(data["name"]), shape, data["dtype"], float(keep))


def _method(data: Any) -> Method:
    return Method(
        tuple(_spec(s) for s in data["inputs"]), tuple(_spec(s) for s in data["outputs"]), _count(data["planned_bytes"])
    )


def _check(layout: Layout, data: Any) -> SelfCheck | None:
    if data is None:
        return None
    return SelfCheck(
        seed=_count(data["seed"]),
        x=_limits_by_part(data["x"]),
        y=_limits_by_part(data["y"]),
        weights={layout[_text(name)].name: _limits(limits) for name, limits in data["weights"].items()},
        loss=_number(data["loss"]),
        prediction=_number(data["prediction"]),
        gradients={layout[_text(name)].name: _number(norm) for name, norm in data["gradients"].items()},
    )


def _limits_by_part(value: Any) -> tuple[tuple[float, float], ...]:
    """Limits of each part; earlier programs have one part, and its limits alone."""
    return tuple(_limits(limits) for limits in value) if isinstance(value[0], list) else (_limits(value),)


def _limits(value: Any) -> tuple[float, float]:
    low, high = value
    return _number(low), _number(high)


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return value


def _contract(data: Any) -> InputContract:
    if any(data[f"{a}_dtype"] != SEVERAL if data.get(f"{a}_parts") else data[f"{a}_dtype"] not in DTYPES for a in "xy"):
        raise ValueError(f"unknown dtype in {data!r}")
    span = data["range"]
    return InputContract(
        x_shape=tuple(_count(d) for d in data["x_shape"]),
        x_dtype=data["x_dtype"],
        y_shape=tuple(_count(d) for d in data["y_shape"]),
        y_dtype=data["y_dtype"],
        range=None if span is None else (float(_number(span[0])), float(_number(span[1]))),
        normalisation=_text(data["normalisation"]),
        labels=tuple(_text(label) for label in data["labels"]),
        x_parts=tuple(_part(part) for part in data.get("x_parts", ())),
        y_parts=tuple(_part(part) for part in data.get("y_parts", ())),
        bounds=tuple(_bound(bound) for bound in data.get("bounds", ())),
    )


def _part(data: Any) -> Part:
    if data["dtype"] not in DTYPES:
        raise ValueError(f"unknown dtype in {data!r}")
    return Part(_text(data["name"]), tuple(_count(d) for d in data["shape"]), data["dtype"])


def _bound(data: Any) -> Bound:
    if data["array"] not in ("x", "y"):
        raise ValueError(f"{data['array']!r} is neither x nor y")
    numbers = [data[key] for key in ("low", "high", "ignored", "column")]
    if any(isinstance(n, bool) or not isinstance(n, int | None) for n in numbers) or None in numbers[:2]:
        raise ValueError(f"{data!r} does not give whole numbers")
    return Bound(data["array"], _text(data["part"]), *numbers)
