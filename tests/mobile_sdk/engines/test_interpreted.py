"""The interpreter computes what torch computes, frees what it has used, and refuses graphs that are not right."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from pathlib import Path
from typing import Any

import hypothesis  # noqa: F401  (its compiled part crashes when it is loaded after ExecuTorch's runtime)
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from exporters.emit.graph_file import graph_bytes
from exporters.lowering import kernels
from mobile_sdk import load_engine, safetensors
from mobile_sdk.engines.interpreted import InterpretedEngine, blas
from mobile_sdk.engines.interpreted.graph import GraphValue, MethodGraph, Node, ProgramGraph, Values, dumps, loads
from mobile_sdk.engines.interpreted.operators import KINDS, OPERATORS
from mobile_sdk.errors import ProgramError
from mobile_sdk.layout import Layout, Parameter, Subset
from mobile_sdk.manifest import GRAPH_FILE, PROGRAM_FILE, FileEntry, InputContract, Manifest, Memory, Method, TensorSpec

aten = torch.ops.aten
generator = torch.Generator().manual_seed(0)
X = torch.randn(2, 3, 4, generator=generator)
Y = torch.randn(2, 3, 4, generator=generator)
ROW = torch.randn(4, generator=generator)
POSITIVE = X.abs() + 0.1
WHOLE = torch.randint(0, 3, (2, 3, 4), generator=generator)
SMALL = torch.randint(0, 200, (2, 3, 4), generator=generator).to(torch.uint8)
FLAGS = X > 0
IMAGE = torch.randn(2, 9, 8, 4, generator=generator)
SPECIAL = torch.tensor([0.0, -0.0, 1.0, -1.0, 1e-30, 3e38, float("inf"), float("-inf"), float("nan"), 88.0, -104.0])

CASES = {
    "add": (aten.add.Tensor, X, ROW),
    "add a number": (aten.add.Tensor, X, 0.1),
    "add whole and float": (aten.add.Tensor, WHOLE, X),
    "add whole and fraction": (aten.add.Scalar, WHOLE, 0.5),
    "add flags": (aten.add.Tensor, FLAGS, 1),
    "add bytes": (aten.add.Tensor, SMALL, WHOLE),
    "add a double without axes": (aten.add.Tensor, X, torch.tensor(0.1, dtype=torch.float64)),
    "sub": (aten.sub.Tensor, X, Y),
    "mul": (aten.mul.Tensor, X, Y),
    "mul a number": (aten.mul.Tensor, X, 1e38),
    "div": (aten.div.Tensor, X, Y),
    "div whole": (aten.div.Tensor, WHOLE, WHOLE),
    "pow": (aten.pow.Tensor_Scalar, X, 2),
    "pow fraction": (aten.pow.Tensor_Scalar, POSITIVE, 0.3),
    "maximum": (aten.maximum.default, X, Y),
    "minimum": (aten.minimum.default, X, Y),
    "where": (aten.where.self, FLAGS, X, Y),
    "clamp": (aten.clamp.default, X, -0.5, 0.5),
    "clamp below": (aten.clamp.default, SPECIAL, 0.0),
    "clamp above": (aten.clamp.default, SPECIAL, None, 1.0),
    **{
        name: (getattr(aten, name).default, x)
        for names, x in (
            (("neg", "abs", "floor", "round", "isnan", "relu", "exp", "tanh", "sigmoid", "erf"), SPECIAL),
            (("sin", "cos", "sign", "gelu"), X * 10),
            (("log", "log1p", "log2", "log10", "sqrt", "rsqrt", "reciprocal"), POSITIVE),
            (("logical_not", "bitwise_not"), FLAGS),
            (("ceil", "trunc", "isinf"), SPECIAL),
            (("atan", "asinh", "sinh", "cosh", "tan", "expm1"), X),
            (("acos", "asin", "atanh"), X.clamp(-0.9, 0.9)),
            (("acosh",), POSITIVE + 1),
        )
        for name in names
    },
    **{f"{name} a number": (getattr(aten, name).Scalar, WHOLE, 1) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{name: (getattr(aten, name).Tensor, WHOLE, SMALL) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "logical_and": (aten.logical_and.default, FLAGS, ~FLAGS),
    "logical_or": (aten.logical_or.default, FLAGS, ~FLAGS),
    "bitwise_and": (aten.bitwise_and.Tensor, WHOLE, WHOLE + 1),
    "bitwise_or": (aten.bitwise_or.Tensor, WHOLE, WHOLE + 1),
    "bitwise_xor": (aten.bitwise_xor.Tensor, WHOLE, WHOLE + 1),
    "bitwise_left_shift": (aten.bitwise_left_shift.Tensor, WHOLE, WHOLE),
    "bitwise_right_shift": (aten.bitwise_right_shift.Tensor, WHOLE * 9, WHOLE),
    "logical_xor": (aten.logical_xor.default, FLAGS, WHOLE > 0),
    "atan2": (aten.atan2.default, X, Y),
    "fmod": (aten.fmod.Tensor, X * 5, Y),
    "fmod a number": (aten.fmod.Scalar, X * 5, -0.7),
    "remainder": (aten.remainder.Tensor, X * 5, Y),
    "remainder of whole": (aten.remainder.Scalar, WHOLE - 1, 2),
    "pow of two": (aten.pow.Tensor_Tensor, POSITIVE, Y),
    "clamp by tensors": (aten.clamp.Tensor, X, -POSITIVE, POSITIVE),
    "clamp by one tensor": (lambda x, high: aten.clamp.Tensor(x, None, high), X, ROW),
    "to": (lambda x: aten._to_copy.default(x, dtype=torch.int64), X * 10),
    "to float": (lambda x: aten._to_copy.default(x, dtype=torch.float32), FLAGS),
    "view": (torch.view_copy, X, [6, 4]),
    "permute": (torch.permute_copy, X, [2, 0, 1]),
    "expand": (torch.expand_copy, ROW, [2, 3, -1]),
    "unsqueeze": (torch.unsqueeze_copy, X, -2),
    "squeeze": (torch.squeeze_copy, X[:, :1], [1, 2]),
    "slice": (torch.slice_copy, X, 2, 1, -1, 2),
    "slice past the end": (torch.slice_copy, X, 1, 1, 2**62),
    "select": (torch.select_copy, X, 1, -1),
    "cat": (lambda a, b: torch.cat([a, b, a], -1), X, Y),
    "pad": (torch.constant_pad_nd, X, [1, 0, 2, 3], -1.5),
    "full": (lambda x: x + torch.full([3, 4], float("-inf")), X),
    "ones": (lambda x: x + torch.ones(3, 1), X),
    "arange": (lambda x: x + torch.arange(1, 9, 2), X),
    "arange of fractions": (lambda x: x + torch.arange(0.5, 2.5, 0.5), X),
    "bmm": (aten.bmm.default, X, Y.transpose(1, 2).contiguous()),
    "bmm of a transposed": (lambda a, b: torch.bmm(a, torch.permute_copy(b, [0, 2, 1])), X, Y),
    "bmm of one": (lambda a, b: torch.bmm(a, torch.permute_copy(b, [0, 2, 1])), X[:1], Y[:1]),
    "dense": (kernels.dense, X[0], Y[1], Y[1, :, 0].contiguous()),
    "dense without bias": (kernels.dense, X[0], Y[1]),
    "static_convolution": (
        lambda x, w, b: kernels.static_convolution(x, w, b, [2, 1], [1, 0], [1, 2], 1),
        IMAGE, torch.randn(7, 3, 2, 4, generator=generator), torch.randn(7, generator=generator),
    ),
    "depthwise": (
        lambda x, w: kernels.static_convolution(x, w, None, [1, 2], [0, 1], [2, 1], 4),
        IMAGE, torch.randn(1, 3, 3, 4, generator=generator),
    ),
    "max_pool": (lambda x: kernels.max_pool(x, [3, 2], [2, 1], [1, 0], [1, 2]), IMAGE),
    "average_pool": (lambda x: kernels.average_pool(x, [3, 2], [2, 1]), IMAGE),
    "mean_pixel": (kernels.mean_pixel, IMAGE),
    "crop": (lambda x: kernels.crop(x, [0, 2, 1, 0], [2, 4, 5, 4]), IMAGE),
    "sum": (lambda x: aten.sum.dim_IntList(x, [0, 2], True), X),
    "sum whole": (lambda x: aten.sum.dim_IntList(x, None), WHOLE),
    "mean": (lambda x: aten.mean.dim(x, [1]), X),
    "amax": (aten.amax.default, X, [1], True),
    "amin": (aten.amin.default, X, [0, 2]),
    "argmax": (aten.argmax.default, X, 1),
    "argmin": (aten.argmin.default, X, -1, True),
    "any": (aten.any.dim, FLAGS, 1, True),
    "any over two axes": (aten.any.dims, FLAGS, [0, 2]),
    "largest": (lambda x: aten.topk.default(x, 2, 1)[0], X),
    "places of the largest": (lambda x: aten.topk.default(x, 2, 1)[1], X),
    "smallest": (lambda x: aten.topk.default(x, 3, -1, False)[0], X),
    "places of the largest bytes": (lambda x: aten.topk.default(x, 2, -1)[1], SMALL),
    "tril": (aten.tril.default, X, -1),
    "cumsum": (aten.cumsum.default, X, 1),
    "softmax": (aten._softmax.default, X * 30, 2, False),
    "log_softmax": (aten._log_softmax.default, X * 30, 1, False),
    "embedding": (aten.embedding.default, X[0], WHOLE),
    "index_select": (aten.index_select.default, X, 1, torch.tensor([2, 0])),
    "gather": (aten.gather.default, X, 1, WHOLE[:1, :2]),
    "scatter": (aten.scatter.src, X, 1, torch.tensor([[[2, 0, 1, 0]]]), Y),
    "scatter a number": (aten.scatter.value, X, 2, torch.tensor([[[3], [0], [1]]]), 0.5),
    "masked_scatter": (aten.masked_scatter.default, X, FLAGS, Y),
    "index": (lambda x, i, j: aten.index.Tensor(x, [None, i, j]), X, torch.tensor([2, -1]), torch.tensor([0, 3])),
    "index_put of pairs": (
        lambda x, i, j, v: aten.index_put.default(x, [i, None, j], v, True),
        X, torch.tensor([1, -1, 1]), torch.tensor([0, 2, 0]), Y[0, :, :3].contiguous(),
    ),
    "scatter_add": (aten.scatter_add.default, X, 1, WHOLE[:, :2], Y),
    "index_put": (lambda x, i, v: aten.index_put.default(x, [i], v, True), X[0], torch.tensor([2, 0, 2]), Y[1]),
}  # fmt: skip


def manifest_for(content: bytes, inputs: Any, outputs: Any) -> Manifest:
    """A ``predict`` whose only sample is whatever the graph takes, as far as a manifest can say it."""
    layout = Layout([Parameter(f"w{i}", shape) for i, shape in enumerate(inputs[1:])])
    specs = [TensorSpec("x", "", inputs[0], "float32")]
    specs += [TensorSpec("weight", p.name, p.shape, "float32") for p in layout]
    return Manifest(
        run="", serial=0, tier="", task="", files={PROGRAM_FILE: FileEntry.of(b""), GRAPH_FILE: FileEntry.of(content)},
        methods={"predict": Method(tuple(specs), (TensorSpec("prediction", "", outputs, "float32"),), 0)},
        layout=layout, subset=Subset(layout, {}), contract=InputContract(inputs[0][1:], "float32", (), "int64"),
        metrics=(), micro_batch=inputs[0][0], memory=Memory(0, 0, 0),
    )  # fmt: skip


def run(graph: MethodGraph, constants: Any, *inputs: Any) -> Any:
    """The results of a graph, as the engine computes them."""
    values = [*inputs, *(constants[name] for name in graph.constants)]
    for node in graph.nodes:
        arguments = [
            values[a.index]
            if isinstance(a, GraphValue)
            else [None if i is None else values[i] for i in a.indices]
            if isinstance(a, Values)
            else a
            for a in node.arguments
        ]
        values.append(np.asarray(OPERATORS[node.name].function(*arguments)))
    return [values[i] for i in graph.outputs]


def traced(name: str) -> tuple[ProgramGraph, list[torch.Tensor], torch.Tensor]:
    """A case as a graph that was written and read, its inputs, and what torch makes of them."""
    function: Any
    function, *arguments = CASES[name]
    tensors = [a for a in arguments if isinstance(a, torch.Tensor)]

    def call(*given: torch.Tensor) -> tuple[torch.Tensor]:
        left = iter(given)
        return (function(*[next(left) if isinstance(a, torch.Tensor) else a for a in arguments]),)

    graph = make_fx(call, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors)
    return loads(graph_bytes({"call": graph})), tensors, call(*tensors)[0]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", CASES)
def test_an_operator_gives_what_torch_gives(name: str) -> None:
    graph, tensors, expected = traced(name)
    (found,) = run(graph.methods["call"], graph.constants, *[t.numpy() for t in tensors])
    assert (found.dtype, found.shape) == (expected.numpy().dtype, tuple(expected.shape))
    np.testing.assert_allclose(found, expected.numpy(), rtol=2e-6, atol=2e-6)


def test_every_operator_is_tested_and_every_kind_is_known() -> None:
    tested = {node.name for name in CASES for node in traced(name)[0].methods["call"].nodes}
    assert set(OPERATORS) == tested
    assert {kind for found in OPERATORS.values() for kind in found.kinds} <= set(KINDS)


DOUBLE = MethodGraph(
    inputs=(("float32", (2, 3)),), constants=("c",), nodes=(Node("mul", (GraphValue(0), GraphValue(1))),), outputs=(2,)
)
CONSTANTS = {"c": np.array([2.0], np.float32)}


def write(folder: Path, graph: MethodGraph = DOUBLE, constants: Any = CONSTANTS, outputs: Any = (2, 3)) -> Path:
    content = dumps(ProgramGraph({"predict": graph}, constants))
    return write_bytes(folder, content, outputs)


def write_bytes(folder: Path, content: bytes, outputs: Any = (2, 3)) -> Path:
    (folder / GRAPH_FILE).write_bytes(content)
    (folder / "manifest.json").write_bytes(manifest_for(content, [(2, 3)], outputs).to_bytes())
    return folder


def test_a_graph_file_reads_back_as_it_was_written() -> None:
    nodes = (
        Node("clamp", (GraphValue(0), None, float("inf"))),
        Node("add", (GraphValue(1), -0.1)),
        Node("cat", (Values((1, 2, 0)), 0)),
        Node("full", ((), float("nan"), "float32")),
    )
    graph = ProgramGraph({"predict": MethodGraph((("float32", (2, 3)),), (), nodes, (3,))}, {})
    read = loads(dumps(graph)).methods["predict"]
    assert [n.arguments[:2] for n in read.nodes] == [n.arguments[:2] for n in nodes[:3]] + [
        ((), pytest.approx(float("nan"), nan_ok=True))
    ]
    assert [n.last for n in read.nodes] == [(), (), (1, 2), (4,)], "freed at the last use, outputs never"


def test_a_folder_without_the_pte_is_enough(tmp_path: Path) -> None:
    engine = load_engine(write(tmp_path), "interpreted")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(engine.predict(x, {}), 2 * x)
    np.testing.assert_array_equal(engine.predict(x[:1], {}), 2 * x[:1])
    engine.close()
    with pytest.raises(ProgramError, match="closed"):
        engine.predict(x, {})


def test_results_never_lie_in_what_was_passed_in(tmp_path: Path) -> None:
    """A gradient may be written to; a weight that comes out as it went in must not change with it."""
    engine = load_engine(write(tmp_path, dataclasses.replace(DOUBLE, nodes=(), outputs=(0,))), "interpreted")
    assert isinstance(engine, InterpretedEngine)
    x = np.ones((2, 3), np.float32)
    (result,) = engine._execute(engine._calls["predict"], [x])
    result[:] = 7
    assert (x == 1).all()


def test_values_are_freed_at_their_last_use(tmp_path: Path) -> None:
    """A chain of 50 steps over 4 MB holds two of them at a time, not 50."""
    shape = (1024, 1024)
    nodes = [Node("full", (shape, 1, "float32"))]
    nodes += [Node("add", (GraphValue(1 + i), 1.0)) for i in range(50)]
    nodes += [Node("slice", (GraphValue(51), 0, 0, 2, 1)), Node("slice", (GraphValue(52), 1, 0, 3, 1))]
    graph = MethodGraph((("float32", (2, 3)),), (), tuple(nodes), (53,))
    engine = load_engine(write(tmp_path, graph, {}), "interpreted")
    x = np.zeros((2, 3), np.float32)
    tracemalloc.start()
    assert (engine.predict(x, {}) == 51).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.2 * 4 * 1024 * 1024


def broken(change: Any) -> bytes:
    """:data:`DOUBLE` as a file whose JSON ``change`` has edited."""
    arrays, metadata = safetensors.loads(dumps(ProgramGraph({"predict": DOUBLE}, CONSTANTS)))
    data = json.loads(metadata["ftte.graph"])
    change(data, data["methods"]["predict"])
    return safetensors.dumps(arrays, {"ftte.graph": json.dumps(data)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data, method: data.update(format=2), r"format 2; this SDK reads 1: update the SDK"),
        (lambda data, method: data.pop("methods"), r"KeyError: 'methods'"),
        (lambda data, method: data.update(methods={}), r"the graph has no method 'predict'"),
        (lambda data, method: method["nodes"].append(["system", 0]), r"needs the operator 'system', which this SDK"),
        (lambda data, method: method["nodes"].append(["mul", 0]), r"'mul' takes 2 arguments, not 1"),
        (lambda data, method: method["nodes"].append(["mul", 0, 3]), r"value 3 is used before it is there"),
        (lambda data, method: method["nodes"].append(["mul", 0, -1]), r"-1 is not a whole number"),
        (lambda data, method: method["nodes"].append(["mul", 0, True]), r"True is not a whole number"),
        (lambda data, method: method["nodes"].append(["mul", 0, ["x"]]), r"'x' is not a number"),
        (lambda data, method: method["nodes"].append(["view", 0, [1] * 65]), r"65 numbers"),
        (lambda data, method: method["nodes"].append(["view", 0, [0.5]]), r"0.5 is not a whole number"),
        (lambda data, method: method["nodes"].append(["to", 0, "object"]), r"'object' is not a dtype"),
        (lambda data, method: method["nodes"].append(["argmax", 0, 0, 1]), r"1 is not true or false"),
        (lambda data, method: method["nodes"].append([]), r"ValueError"),
        (lambda data, method: method["nodes"].append([["mul"], 0, 0]), r"TypeError"),
        (lambda data, method: method.update(outputs=[3]), r"value 3 is used before"),
        (lambda data, method: method.update(outputs=[2, 2]), r"1 outputs by the manifest, 2 really"),
        (lambda data, method: method.update(constants=["d"]), r"there is no constant 'd'"),
        (lambda data, method: method.update(inputs=[["float32", [3, 2]]]), r"disagree: 'predict' takes"),
        (lambda data, method: method.update(inputs=[["float16", [2, 3]]]), r"'float16' is not a dtype"),
    ],
)  # fmt: skip
def test_a_malformed_graph_is_refused_when_it_is_loaded(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=message):
        load_engine(write_bytes(tmp_path, broken(change)), "interpreted")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (Node("view", (GraphValue(0), (5,))), "'view' cannot be computed"),
        (Node("bmm", (GraphValue(0), GraphValue(0))), "'bmm' cannot be computed: no batched product"),
        (Node("full", ((2**40, 2**10), 0, "float32")), "'full' needs more memory than there is"),
        (Node("select", (GraphValue(0), 0, 5)), "'select' cannot be computed"),
        (Node("embedding", (GraphValue(0), GraphValue(0))), "'embedding' cannot be computed"),
        (Node("permute", (GraphValue(0), (1, 0))), r"gives prediction '' as float32 of shape \(3, 2\), not"),
        (Node("to", (GraphValue(0), "int64")), r"as int64 of shape \(2, 3\), not float32"),
    ],
)
def test_a_graph_that_cannot_be_computed_says_where(node: Node, message: str, tmp_path: Path) -> None:
    engine = load_engine(write(tmp_path, MethodGraph((("float32", (2, 3)),), (), (node,), (1,)), {}), "interpreted")
    with pytest.raises(ProgramError, match=message):
        engine.predict(np.zeros((2, 3), np.float32), {})


CONTENT = dumps(ProgramGraph({"predict": DOUBLE}, CONSTANTS))


@settings(deadline=None, max_examples=300)
@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 255), st.booleans())
def test_no_damaged_file_gets_past_the_reader_with_anything_but_a_program_error(at: int, byte: int, cut: bool) -> None:
    damaged = CONTENT[:at] if cut else CONTENT[:at] + bytes([byte]) + CONTENT[at + 1 :]
    try:
        graph = loads(damaged)
    except ProgramError:
        return
    assert isinstance(graph, ProgramGraph)


def test_products_use_as_many_threads_as_the_engine_was_given() -> None:
    """And afterwards as many as before, which are the app's."""
    functions = blas._functions()
    if functions is None:
        pytest.skip("numpy does not stand on OpenBLAS here")
    get, put = functions
    before = get()
    put(2)
    try:
        with blas.limited(1):
            assert get() == 1
        assert get() == 2
    finally:
        put(before)
