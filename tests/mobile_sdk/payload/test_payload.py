"""What travels: unbiased, exact, in files that anybody's safetensors opens."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobile_sdk import safetensors as ours
from mobile_sdk.errors import PayloadError, ProtocolError
from mobile_sdk.layout import Layout, Parameter, Slice, Subset
from mobile_sdk.payload import Grid, UpdateFormat, apply_difference, decode_update, encode_update, make_difference
from mobile_sdk.payload.feedback import carried_over, left_out
from mobile_sdk.payload.grid import METADATA
from mobile_sdk.payload.quantise import pack_nibbles, unpack_nibbles
from mobile_sdk.payload.updates import most_bytes

LAYOUT = Layout([Parameter("conv", (6, 3, 3)), Parameter("bias", (6,)), Parameter("head", (4, 6))])
SUBSET = Subset(LAYOUT, {"conv": Slice(0, (0, 2, 5)), "bias": None, "head": None})
PACKINGS = [
    UpdateFormat(dtype, top_k) for dtype in ("float32", "float16", "int8", "int4") for top_k in (1.0, 0.3, 0.02)
]

finite = st.floats(-1e4, 1e4, width=32)


def update(seed: int = 0, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    spread = 10.0 ** rng.uniform(-3, 1, (8, 1))
    return {
        name: (scale * rng.standard_normal(SUBSET.shape(name)) * spread[i, 0]).astype(np.float32)
        for i, name in enumerate(SUBSET)
    }


def unpack(content: bytes) -> dict[str, np.ndarray]:
    return dict(decode_update(*ours.loads(content), SUBSET))


def pack(arrays: dict[str, np.ndarray], packing: UpdateFormat, seed: int = 0) -> bytes:
    return ours.dumps(*encode_update(arrays, packing, seed))


@pytest.mark.parametrize("packing", PACKINGS, ids=str)
def test_an_update_of_every_packing_opens_in_the_reference_implementation(packing: UpdateFormat) -> None:
    content = pack(update(), packing)
    theirs = safetensors.numpy.load(content)
    mine, _ = ours.loads(content)
    assert theirs.keys() == mine.keys()
    for name, array in mine.items():
        np.testing.assert_array_equal(theirs[name], array)


@pytest.mark.parametrize("packing", PACKINGS, ids=str)
def test_packing_is_seeded_and_loses_no_more_than_a_step(packing: UpdateFormat) -> None:
    arrays = update()
    content = pack(arrays, packing)
    assert content == pack(arrays, packing)
    decoded = unpack(content)
    assert list(decoded) == list(SUBSET)
    relative = {"float32": 0.0, "float16": 2**-11, "int8": 1 / 127, "int4": 1 / 7}[packing.dtype]
    sent = 0
    for name, array in arrays.items():
        rows = array.reshape(len(array) if array.ndim > 1 else 1, -1)
        # Of few values per channel the scale is the whole parameter's.
        largest = np.abs(rows).max(axis=1, keepdims=True) if packing.top_k == 1 else np.abs(rows).max()
        step = relative * largest * 1.0001
        error = np.abs(decoded[name].reshape(rows.shape) - rows)
        if packing.top_k == 1:
            assert (error <= step).all()
        else:
            kept = error <= step
            sent += kept.sum()
            assert (decoded[name].reshape(rows.shape)[~kept] == 0).all()
    if packing.top_k < 1:
        total = sum(array.size for array in arrays.values())
        assert sent >= np.ceil(packing.top_k * total)
        flat = np.concatenate([a.reshape(-1) for a in arrays.values()])
        got = np.concatenate([a.reshape(-1) for a in decoded.values()])
        count = int(np.ceil(packing.top_k * total))
        largest = np.argsort(np.abs(flat))[-count:]
        assert set(np.flatnonzero(got)) <= set(largest.tolist()), "the largest elements of all are sent"


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_integers_are_smaller_by_what_they_promise(dtype: str) -> None:
    layout = Layout([Parameter("w", (64, 256))])
    arrays = {"w": np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)}
    dense = len(ours.dumps(arrays))
    packed = len(ours.dumps(*encode_update(arrays, UpdateFormat(dtype), 0)))
    assert packed < dense / {"int8": 3.8, "int4": 7.3}[dtype]
    assert dict(decode_update(*encode_update(arrays, UpdateFormat(dtype), 0), Subset.whole(layout)))["w"].shape == (
        64,
        256,
    )


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@settings(max_examples=20, deadline=None)
@given(values=hnp.arrays(np.float32, 40, elements=finite), seed=st.integers(0, 2**31))
def test_rounding_at_random_is_unbiased(dtype: str, values: np.ndarray, seed: int) -> None:
    """
    The mean of many roundings approaches the value at the rate of an unbiased estimator.

    An element lies within one step s, so the mean of n roundings has a standard deviation of at most s / (2 sqrt(n)).
    Six of them are exceeded by chance once in five hundred million elements.
    """
    trials = 400
    layout = Subset.whole(Layout([Parameter("w", (4, 10, trials))]))  # every value so many times
    arrays = {"w": np.repeat(values.reshape(4, 10, 1), trials, 2)}
    rounded = dict(decode_update(*encode_update(arrays, UpdateFormat(dtype), seed), layout))["w"]
    off = rounded.mean(axis=2, dtype=np.float64) - arrays["w"][:, :, 0]
    step = np.abs(arrays["w"]).max(axis=(1, 2))[:, None] / {"int8": 127, "int4": 7}[dtype]
    assert (np.abs(off) <= 6 * step / (2 * np.sqrt(trials)) + 1e-30).all()


def test_a_deterministic_rounding_would_fail_that_test() -> None:
    values = np.full((1, 2), 0.3, np.float32)
    values[0, 0] = 7.0
    total = [
        dict(
            decode_update(
                *encode_update({"w": values}, UpdateFormat("int4"), s), Subset.whole(Layout([Parameter("w", (1, 2))]))
            )
        )["w"][0, 1]
        for s in range(400)
    ]
    assert set(total) == {0.0, 1.0}
    assert abs(np.mean(total) - 0.3) < 6 * 1 / (2 * 20)


@given(st.lists(st.integers(-8, 7), max_size=33))
def test_nibbles_come_back(values: list[int]) -> None:
    integers = np.array(values, np.int8)
    np.testing.assert_array_equal(unpack_nibbles(pack_nibbles(integers), len(values)), integers)


def test_error_feedback_sends_everything_in_the_end() -> None:
    """What is left out is carried over: the sum of all that was sent follows the sum of all updates."""
    packing = UpdateFormat("int8", 0.1)
    wanted = {name: np.zeros(SUBSET.shape(name), np.float32) for name in SUBSET}
    sent = {name: np.zeros(SUBSET.shape(name), np.float32) for name in SUBSET}
    one = update(3)
    residual = b""
    for seed in range(200):
        total = carried_over(one, residual)
        arrays, metadata = encode_update(total, packing, seed)
        residual = left_out(total, arrays, metadata)
        for name, array in decode_update(arrays, metadata, SUBSET):
            sent[name] += array
            wanted[name] += one[name]
    left, _ = ours.loads(residual)
    for name in SUBSET:
        np.testing.assert_allclose(
            sent[name] + left[name], wanted[name], rtol=1e-3, atol=1e-3 * np.abs(wanted[name]).max()
        )
        assert np.abs(sent[name] - wanted[name]).max() < 0.2 * max(np.abs(wanted[n]).max() for n in SUBSET)
    assert carried_over(one, b"rubbish") == one


DAMAGES = {
    "another format": lambda a, m: m.__setitem__("format", "int2"),
    "a missing scale": lambda a, m: a.pop("head:scale"),
    "a negative scale": lambda a, m: a.__setitem__("bias:scale", np.full(1, -1, np.float32)),
    "an infinite scale": lambda a, m: a.__setitem__("bias:scale", np.full(1, np.inf, np.float32)),
    "a scale too many": lambda a, m: a.__setitem__("head:scale", np.ones(5, np.float32)),
    "a foreign array": lambda a, m: a.__setitem__("other", np.ones(5, np.float32)),
    "a missing parameter": lambda a, m: a.pop("bias"),
    "another shape": lambda a, m: a.__setitem__("head", np.ones((6, 4), np.int8)),
    "another dtype": lambda a, m: a.__setitem__("head", np.ones((4, 6), np.uint8)),
    "an integer that no rounding gives": lambda a, m: a.__setitem__("head", np.full((4, 6), -128, np.int8)),
    "an index beyond the end": lambda a, m: a.update(
        {"head": np.ones(1, np.int8), "head:index": np.array([24], np.int32)}
    ),
    "an index twice": lambda a, m: a.update({"head": np.ones(2, np.int8), "head:index": np.array([3, 3], np.int32)}),
    "a mask of another length": lambda a, m: a.update({"head": np.ones(1, np.int8), "head:mask": np.ones(4, np.uint8)}),
    "mask and index": lambda a, m: a.update(
        {"head": np.ones(1, np.int8), "head:mask": np.ones(3, np.uint8), "head:index": np.zeros(1, np.int32)}
    ),
    "integers twice": lambda a, m: a.__setitem__("head:zlib", deflated(bytes(24))),
    "packed integers that are none": lambda a, m: a.update({"head:zlib": np.ones(9, np.uint8)} | _without(a, "head")),
    "packed integers of two axes": lambda a, m: a.update(
        {"head:zlib": deflated(bytes(24)).reshape(1, -1)} | _without(a, "head")
    ),
    "too few packed integers": lambda a, m: a.update({"head:zlib": deflated(bytes(23))} | _without(a, "head")),
    "too many packed integers": lambda a, m: a.update({"head:zlib": deflated(bytes(10**7))} | _without(a, "head")),
    "packed integers that break off": lambda a, m: a.update(
        {"head:zlib": deflated(bytes(24))[:-2]} | _without(a, "head")
    ),
    "packed floats": lambda a, m: (
        m.__setitem__("format", "float32"),
        a.clear(),
        a.update({n: np.zeros(SUBSET.shape(n), np.float32) for n in SUBSET if n != "head"}),
        a.__setitem__("head:zlib", deflated(bytes(96))),
    ),
}


def deflated(content: bytes) -> np.ndarray:
    return np.frombuffer(zlib.compress(content), np.uint8)


def _without(arrays: dict[str, Any], name: str) -> dict[str, Any]:
    """Nothing, after ``name`` is gone."""
    arrays.pop(name, None)
    return {}


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_integers_are_packed_where_that_is_shorter(dtype: str) -> None:
    """Most updates are: their values bunch around zero."""
    layout = Layout([Parameter("w", (64, 256))])
    generator = np.random.default_rng(0)
    bunched = {"w": generator.laplace(0, 1, (64, 256)).astype(np.float32)}
    even = {"w": generator.uniform(-1, 1, (64, 256)).astype(np.float32)}
    for arrays, packed in ((bunched, True), (even, dtype == "int4")):
        coded, metadata = encode_update(arrays, UpdateFormat(dtype), 0)
        assert ("w:zlib" in coded) == packed
        assert sum(a.nbytes for a in coded.values()) <= 64 * 256 * {"int8": 1, "int4": 0.5}[dtype] + 64 * 4
        step = np.abs(arrays["w"]).max(axis=1, keepdims=True) / {"int8": 127, "int4": 7}[dtype]
        decoded = dict(decode_update(coded, metadata, Subset.whole(layout)))["w"]
        assert (np.abs(decoded - arrays["w"]) <= step * 1.0001).all()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_an_update_that_is_not_one_is_refused(damage: Any) -> None:
    arrays, metadata = encode_update(update(), UpdateFormat("int8"), 0)
    damage(arrays, metadata)
    with pytest.raises(PayloadError):
        dict(decode_update(arrays, metadata, SUBSET))


@pytest.mark.parametrize("data", [{"dtype": "int2"}, {"top_k": 0}, {"top_k": 0.7}, {"top_k": True}, {"colour": 1}])
def test_a_packing_that_the_sdk_does_not_know_is_refused(data: Any) -> None:
    with pytest.raises(ProtocolError, match="payload"):
        UpdateFormat.from_json(data)


# Versions on their way down.


def test_of_a_large_update_the_largest_elements_are_sent_and_no_others() -> None:
    layout = Layout([Parameter("a", (700,)), Parameter("b", (300,))])
    values = np.random.default_rng(3).permutation(np.arange(1, 1001)).astype(np.float32)
    whole = Subset(layout, {"a": None, "b": None})
    content = pack({"a": values[:700], "b": values[700:]}, UpdateFormat("float32", 0.1))
    sent = dict(decode_update(*ours.loads(content), whole))
    np.testing.assert_array_equal(np.concatenate([sent["a"], sent["b"]]), np.where(values > 900, values, 0))


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("top_k", [1.0, 0.02])
@pytest.mark.parametrize("shape", [(256, 1), (256, 3), (64, 3, 3), (300,)])
def test_integers_are_shorter_than_floats_however_few_values_a_channel_has(
    dtype: str, top_k: float, shape: tuple[int, ...]
) -> None:
    subset = Subset.whole(Layout([Parameter("w", shape)]), ["w"])
    rng = np.random.default_rng(0)
    update = {"w": rng.standard_normal(shape).astype(np.float32)}
    packed, metadata = encode_update(update, UpdateFormat(dtype, top_k), 1)
    floats, _ = encode_update(update, UpdateFormat("float32", top_k), 1)
    # A sparse update has at least the positions of its values, whatever these are packed as.
    assert sum(a.nbytes for a in packed.values()) < 0.8 * sum(a.nbytes for a in floats.values())
    (decoded,) = dict(decode_update(packed, metadata, subset)).values()
    sent = decoded != 0
    step = np.abs(update["w"]).max() / (127 if dtype == "int8" else 7)
    assert np.abs(decoded - update["w"])[sent].max() <= 1.01 * step


def published(seed: int, grid: Grid | None = None) -> tuple[bytes, Grid]:
    rng = np.random.default_rng(seed)
    arrays = {p.name: (0.1 * rng.standard_normal(p.shape)).astype(np.float32) for p in LAYOUT}
    grid = grid or Grid.of(arrays)
    snapped = {name: grid.snap(name, array) for name, array in arrays.items()}
    return ours.dumps(snapped, {METADATA: grid.to_text()}), grid


def rebuild(base: bytes | None, difference: bytes, size: int) -> bytes:
    output = io.BytesIO()
    apply_difference(base, difference, size, output)
    return output.getvalue()


@settings(max_examples=60, deadline=None)
@given(
    values=hnp.arrays(np.float32, (2, 3, 4), elements=st.floats(-(2.0**30), 2.0**30, width=32)),
    bits=st.integers(4, 20),
    start=hnp.arrays(np.float32, (3, 4), elements=st.sampled_from([0.0, 0.001, -0.3, 1.0, 1.5, 100.0])),
)
def test_differences_on_the_grid_are_exact(values: np.ndarray, bits: int, start: np.ndarray) -> None:
    grid = Grid.of({"w": start}, bits)
    old, new = (ours.dumps({"w": grid.snap("w", value)}, {METADATA: grid.to_text()}) for value in values)
    for base in (old, None):
        difference = make_difference(base, new)
        if difference is not None:
            assert rebuild(base, difference, len(new)) == new
        else:  # too far apart for int32, and only then
            steps = grid.integers("w", ours.loads(new)[0]["w"])
            steps = steps if base is None else steps - grid.integers("w", ours.loads(old)[0]["w"])
            assert np.abs(steps).max() > 2**31 - 1


@given(hnp.arrays(np.float32, (3, 4), elements=st.floats(-10, 10, width=32)))
def test_snapping_moves_a_weight_by_half_a_step_at_most_and_only_once(start: np.ndarray) -> None:
    grid = Grid.of({"w": start}, 12)
    snapped = grid.snap("w", start)
    largest = np.abs(start).max(axis=1, keepdims=True)
    assert (np.abs(snapped - start) <= largest / 2**12 + 2.0**-121).all()  # steps are 2**-120 or more
    assert not np.signbit(snapped[snapped == 0]).any()
    np.testing.assert_array_equal(grid.snap("w", snapped), snapped)


def test_a_device_may_go_any_way_through_the_versions_and_ends_at_the_same_bytes() -> None:
    first, grid = published(0)
    versions = [first] + [published(seed, grid)[0] for seed in range(1, 12)]
    for path in ([0, 11], [0, 3, 4, 9, 11], list(range(12)), [5, 2, 11]):
        held = rebuild(None, make_difference(None, versions[path[0]]) or b"", len(first))
        for number in path[1:]:
            held = rebuild(held, make_difference(held, versions[number]) or b"", len(first))
        assert held == versions[11]


def test_large_parameters_are_rebuilt_piece_by_piece(tmp_path: Path) -> None:
    """Pieces end within channels, and the file is the same to the byte; little more than a piece is in memory."""
    rng = np.random.default_rng(0)
    shapes = {"wide": (3, 70_001), "deep": (50_000, 4), "flat": (40_000,), "none": (0,), "one": ()}
    arrays = {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    grid = Grid.of(arrays)
    old, new = (
        ours.dumps({n: grid.snap(n, a * np.float32(s)) for n, a in arrays.items()}, {METADATA: grid.to_text()})
        for s in (1, 1.003)
    )
    for base in (None, old):
        packed = make_difference(base, new)
        assert packed is not None
        with (tmp_path / "new").open("wb") as output:
            tracemalloc.start()
            apply_difference(base, packed, len(new), output)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert (tmp_path / "new").read_bytes() == new
        assert peak < 1_500_000 < len(new)


def test_a_difference_is_a_safetensors_file_of_small_integers() -> None:
    old, grid = published(0)
    arrays, _ = ours.loads(old)
    moved = {name: grid.snap(name, array * np.float32(1.002)) for name, array in arrays.items()}
    new = ours.dumps(moved, {METADATA: grid.to_text()})
    difference = make_difference(old, new)
    assert difference is not None
    steps = safetensors.numpy.load(zlib.decompress(difference))
    assert {array.dtype for array in steps.values()} == {np.dtype(np.int8)}
    assert len(safetensors.numpy.load(old)) == 3, "the weights themselves are one, too"


def test_files_on_no_grid_or_on_another_have_no_difference() -> None:
    old, grid = published(0)
    other, _ = published(1)
    plain = ours.dumps(ours.loads(old)[0])
    off = {name: array + np.float32(1e-7) for name, array in ours.loads(old)[0].items()}
    assert make_difference(other, old) is None
    assert make_difference(plain, old) is None
    assert make_difference(old, plain) is None
    assert make_difference(None, ours.dumps(off, {METADATA: grid.to_text()})) is None


def test_a_model_of_thousands_of_small_parameters_has_a_difference() -> None:
    rng = np.random.default_rng(0)
    weights = {f"a.block.with.a.long.name.{i}": rng.standard_normal(2).astype(np.float32) for i in range(2_000)}
    grid = Grid.of(weights)
    old = ours.dumps({name: grid.snap(name, array) for name, array in weights.items()}, {METADATA: grid.to_text()})
    assert rebuild(None, make_difference(None, old) or b"", len(old)) == old


def test_a_difference_that_unpacks_to_more_than_the_file_is_refused() -> None:
    old, _ = published(0)
    good = zlib.decompress(make_difference(None, old) or b"")
    long_header = zlib.compress((10**9).to_bytes(8, "little") + bytes(10_000_000), 9)
    with pytest.raises(PayloadError, match="a header of 1000000000 bytes; the limit is 100000"):
        rebuild(None, long_header, len(old))
    with pytest.raises(PayloadError, match="more than the file"):  # integers are shorter than what they stand for
        rebuild(None, make_difference(None, old) or b"", len(old) // 2)
    with pytest.raises(PayloadError, match="bad header"):
        rebuild(old, zlib.compress(bytes(10_000_000), 9), len(old))
    with pytest.raises(PayloadError, match="does not end"):
        rebuild(None, zlib.compress(good + bytes(10_000_000), 9), len(old))
    with pytest.raises(PayloadError, match="breaks off"):
        rebuild(None, zlib.compress(good[:-1], 9), len(old))
    with pytest.raises(PayloadError, match="breaks off"):
        rebuild(None, (make_difference(None, old) or b"")[:-20], len(old))
    with pytest.raises(PayloadError, match="cannot be unpacked"):
        rebuild(old, b"rubbish", len(old))
    with pytest.raises(PayloadError, match="do not go together"):
        rebuild(ours.dumps({"w": np.zeros(3, np.float32)}), make_difference(None, old) or b"", len(old))


def test_the_integers_of_a_difference_are_as_short_as_they_can_be() -> None:
    names = {"tiny": 127, "small": -128, "middle": 2**15 - 1, "large": -(2**15), "huge": 2**24}
    arrays = {name: np.array([value], np.float32) for name, value in names.items()}
    grid = Grid([(name, (1,)) for name in names], np.zeros(5, np.int8))
    packed = make_difference(None, ours.dumps(arrays, {METADATA: grid.to_text()}))
    steps = safetensors.numpy.load(zlib.decompress(packed or b""))
    assert {name: str(steps[name].dtype) for name in names} == {
        "tiny": "int8",
        "small": "int16",
        "middle": "int16",
        "large": "int32",
        "huge": "int32",
    }
    too_far = ours.dumps(
        {"w": np.array([2.0**31], np.float32)}, {METADATA: Grid([("w", (1,))], np.zeros(1, np.int8)).to_text()}
    )
    assert make_difference(None, too_far) is None


def test_a_difference_may_fill_the_file_that_it_gives_and_no_more() -> None:
    grid = Grid([("w", (10,))], np.zeros(1, np.int8))
    file = ours.dumps({"w": np.arange(10, dtype=np.float32)}, {METADATA: grid.to_text()})
    packed = make_difference(None, file) or b""
    assert rebuild(None, packed, 40) == file, "the caller knows its size, and looks at its hash"
    with pytest.raises(PayloadError, match="more than the file"):
        rebuild(None, packed, 39)


def test_a_difference_of_floats_is_refused() -> None:
    grid = Grid([("w", (3,))], np.zeros(1, np.int8))
    floats = ours.dumps({"w": np.zeros(3, np.float32)}, {METADATA: grid.to_text()})
    with pytest.raises(PayloadError, match="a difference has 'w' as float32"):
        rebuild(None, zlib.compress(floats), len(floats))


def test_a_file_that_says_more_than_its_grid_has_no_difference() -> None:
    grid = Grid([("w", (3,))], np.zeros(1, np.int8))
    said = ours.dumps({"w": np.zeros(3, np.float32)}, {METADATA: grid.to_text(), "author": "anna"})
    assert make_difference(None, said) is None


def test_an_update_has_room_on_the_disk_for_its_elements_and_their_places() -> None:
    assert SUBSET.size == 3 * 9 + 6 + 24
    assert most_bytes(SUBSET, UpdateFormat("float32")) == 4 * 57 + 4096 + 3 * 512
    assert most_bytes(SUBSET, UpdateFormat("int8", 0.5)) == 2 * (4 * 57 + 4096 + 3 * 512)


def test_halves_are_cut_off_at_the_largest_that_there_is() -> None:
    subset = Subset.whole(Layout([Parameter("w", (3,))]))
    coded = encode_update({"w": np.array([1e9, -1e9, 65504.0], np.float32)}, UpdateFormat("float16"), 0)
    assert dict(decode_update(*coded, subset))["w"].tolist() == [65504.0, -65504.0, 65504.0]


@pytest.mark.parametrize(("shape", "scales"), [((3, 4), 3), ((3, 3), 1), ((12,), 1), ((2, 2, 2), 2)])
def test_a_channel_of_four_values_is_worth_a_scale_of_its_own(shape: tuple[int, ...], scales: int) -> None:
    arrays, _ = encode_update({"w": np.ones(shape, np.float32)}, UpdateFormat("int8"), 0)
    assert arrays["w:scale"].shape == (scales,)


def test_which_elements_are_sent_is_said_by_a_mask_or_by_their_numbers_whichever_is_shorter() -> None:
    rng = np.random.default_rng(0)
    found = {}
    for count in (2, 3):
        values = np.zeros(64, np.float32)
        values[rng.choice(64, count, replace=False)] = 1
        arrays, _ = encode_update({"w": values}, UpdateFormat("float32", count / 64), 0)
        found[count] = sorted(arrays)
    assert found == {2: ["w", "w:index"], 3: ["w", "w:mask"]}


def test_the_smallest_scales_are_zeros() -> None:
    """Below what float32 holds in full a scale would lose digits."""
    subset = Subset.whole(Layout([Parameter("w", (4,))]))
    tiny = float(np.finfo(np.float32).tiny)
    for scale, kept in ((127 * tiny, True), (126 * tiny, False)):
        coded = encode_update({"w": np.full(4, scale, np.float32)}, UpdateFormat("int8"), 0)
        assert bool(dict(decode_update(*coded, subset))["w"].any()) == kept


def test_integers_of_which_none_were_sent_are_not_unpacked_to_any() -> None:
    arrays, metadata = encode_update(update(), UpdateFormat("int8", 0.3), 0)
    for name in ("head", "head:zlib", "head:mask", "head:index"):
        arrays.pop(name, None)
    arrays |= {"head:index": np.zeros(0, np.int32), "head:zlib": deflated(bytes(20_000_000))}
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError, match="does not unpack to the 0 bytes"):
            dict(decode_update(arrays, metadata, SUBSET))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
