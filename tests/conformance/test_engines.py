"""All engines give the same numbers for the programs of the zoo, and refuse what does not fit them in the same way."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobile_sdk import load_engine, safetensors
from mobile_sdk.engines import Engine
from mobile_sdk.engines.dropout import generator
from mobile_sdk.errors import ProgramError, ProgramRejected
from mobile_sdk.manifest import ENGINE_FILES, FileEntry, Manifest
from mobile_sdk.weights import map_weights

TOLERANCE = 1e-4
# Steps of SGD add up their errors.
MOVED_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A case in an engine; ``weights`` are mapped from their file."""

    engine: Engine
    folder: Path
    weights: dict[str, Any]
    arrays: dict[str, Any]
    counts: tuple[int, ...]

    def batch(self, count: int) -> tuple[Any, Any, Any]:
        x, y, sample_weight = (self.arrays[name][:count] for name in ("x", "y", "sample_weight"))
        return x, y, sample_weight


@pytest.fixture
def loaded(engine_name: str, case: Path) -> Iterator[Loaded]:
    engine = load_engine(case, engine_name)
    arrays, metadata = safetensors.loads((case / "expected.safetensors").read_bytes())
    weights = map_weights(engine.manifest.layout, [case / "weights.safetensors"])
    yield Loaded(engine, case, weights, arrays, tuple(map(int, metadata["counts"].split())))
    engine.close()


def errors_of(actual: dict[str, Any], expected: dict[str, Any]) -> dict[str, float]:
    """Relative to each norm, and to a thousandth of the mean norm where one vanishes."""
    assert actual.keys() == expected.keys()
    norms = {name: np.linalg.norm(e) for name, e in expected.items()}
    floor = 1e-3 * np.sqrt(np.mean(np.square(list(norms.values()))))
    return {name: float(np.linalg.norm(actual[name] - e) / max(norms[name], floor)) for name, e in expected.items()}


def assert_close(
    actual: dict[str, Any],
    expected: dict[str, Any],
    tolerance: float = TOLERANCE,
    rounded: dict[str, Any] | None = None,
) -> None:
    """
    Within the tolerance, or no further off than twice what torch itself is in single precision.

    In a deep net with a million ReLUs, an input of one that rounding moves across zero changes every gradient.
    """
    if rounded is not None:
        tolerance = max(tolerance, 2 * max(errors_of(rounded, expected).values()))
    errors = errors_of(actual, expected)
    assert max(errors.values()) < tolerance, errors


def test_a_step_has_the_loss_metrics_and_gradients_of_double_precision(loaded: Loaded) -> None:
    for count in loaded.counts:
        loss, metrics, gradients = loaded.engine.train_step(*loaded.batch(count), loaded.weights)
        for i, value in enumerate([loss, *metrics.values()]):
            assert value == pytest.approx(float(loaded.arrays[f"{count}/train/{i}"]), rel=TOLERANCE, abs=TOLERANCE)
        assert tuple(metrics) == loaded.engine.manifest.metrics
        expected, rounded = (
            {n: loaded.arrays[f"{count}/{kind}/{n}"] for n in loaded.engine.manifest.subset}
            for kind in ("gradient", "rounded")
        )
        assert_close(gradients, expected, rounded=rounded)


def test_dropout_drops_what_the_seed_says(loaded: Loaded) -> None:
    """The masks are drawn here, so every engine has the same ones; without a generator nothing is dropped."""
    expected = {n: loaded.arrays.get(f"dropout/gradient/{n}") for n in loaded.engine.manifest.subset}
    if any(e is None for e in expected.values()):
        pytest.skip("the program has no dropout")
    batch = loaded.batch(loaded.engine.manifest.micro_batch)
    _, _, gradients = loaded.engine.train_step(*batch, loaded.weights, generator(7))
    assert_close(gradients, expected)


def test_evaluation_and_prediction_are_those_of_double_precision(loaded: Loaded) -> None:
    for count in loaded.counts:
        loss, metrics = loaded.engine.evaluate(*loaded.batch(count), loaded.weights)
        for i, value in enumerate([loss, *metrics.values()]):
            assert value == pytest.approx(float(loaded.arrays[f"{count}/evaluate/{i}"]), rel=TOLERANCE, abs=TOLERANCE)
        output = loaded.engine.predict(loaded.batch(count)[0], loaded.weights)
        assert output.dtype == np.float32
        assert_close({"output": output}, {"output": loaded.arrays[f"{count}/predict"]})


def test_five_steps_of_sgd_move_the_weights_as_double_precision_does(loaded: Loaded) -> None:
    """Frozen weights stay mapped; trained ones are the caller's own, changed in place between calls."""
    subset = loaded.engine.manifest.subset
    weights = loaded.weights | {name: np.array(loaded.weights[name]) for name in subset}
    batch = loaded.batch(loaded.engine.manifest.micro_batch)
    rate = np.float32(0.01 / len(batch[0]))
    for _ in range(5):
        _, _, gradients = loaded.engine.train_step(*batch, weights)
        for name, gradient in gradients.items():
            weights[name][subset.selector(name)] -= rate * gradient
    moved = [(weights[name] - loaded.weights[name])[subset.selector(name)].ravel() for name in subset]
    expected, rounded = (
        {"all": np.concatenate([loaded.arrays[f"{kind}/{name}"].ravel() for name in subset])}
        for kind in ("moved", "rounded")
    )
    assert_close({"all": np.concatenate(moved)}, expected, MOVED_TOLERANCE, rounded)


def test_weights_may_come_from_another_file_at_every_call(loaded: Loaded, tmp_path: Path) -> None:
    """A new version's file, and then another under the same name."""
    arrays, _ = safetensors.loads((loaded.folder / "weights.safetensors").read_bytes())
    file = tmp_path / "weights.safetensors"
    x = loaded.batch(loaded.counts[0])[0]
    before = loaded.engine.predict(x, loaded.weights)
    for factor in (0.5, 0.25):
        scaled = {name: np.float32(factor) * array for name, array in arrays.items()}
        fresh = tmp_path / "fresh"
        fresh.write_bytes(safetensors.dumps(scaled))
        fresh.replace(file)
        mapped = loaded.engine.predict(x, map_weights(loaded.engine.manifest.layout, [file]))
        np.testing.assert_array_equal(mapped, loaded.engine.predict(x, scaled))
        assert not np.array_equal(mapped, before)
    np.testing.assert_array_equal(loaded.engine.predict(x, loaded.weights), before)


def test_arrays_that_do_not_fit_are_refused_and_the_engine_still_works(loaded: Loaded) -> None:
    count = loaded.engine.manifest.micro_batch
    x, y, sample_weight = loaded.batch(count)
    first = next(p.name for p in loaded.engine.manifest.layout if p.name not in loaded.engine.manifest.baked)
    without = {name: array for name, array in loaded.weights.items() if name != first}
    for wrong, message in (
        ((np.concatenate([x, x]), y, sample_weight, loaded.weights), f"x must have 1 to {count} samples"),
        ((x[..., None], y, sample_weight, loaded.weights), "'x' must be"),
        ((x, y, sample_weight.astype(np.float64), loaded.weights), "'sample_weight' must be float32"),
        ((x, y, sample_weight, without), f"the weights lack the parameter '{first}'"),
    ):
        with pytest.raises(ProgramError, match=message):
            loaded.engine.train_step(*wrong)
    loss, _, _ = loaded.engine.train_step(x, y, sample_weight, loaded.weights)
    assert loss == pytest.approx(float(loaded.arrays[f"{count}/train/0"]), rel=TOLERANCE)


def test_a_closed_engine_says_so_and_closes_twice(loaded: Loaded) -> None:
    loaded.engine.close()
    loaded.engine.close()
    with pytest.raises(ProgramError, match="closed"):
        loaded.engine.predict(loaded.batch(loaded.counts[0])[0], loaded.weights)


def copied(case: Path, folder: Path) -> Path:
    return Path(shutil.copytree(case, folder / "program"))


def describe_again(folder: Path, name: str) -> None:
    """Make the manifest's hash fit what ``name`` is now, so that only the engine itself can refuse it."""
    manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes())
    files = {**manifest.files, name: FileEntry.of((folder / name).read_bytes())}
    (folder / "manifest.json").write_bytes(dataclasses.replace(manifest, files=files).to_bytes())


def test_an_altered_file_is_refused_before_it_is_loaded(engine_name: str, case: Path, tmp_path: Path) -> None:
    folder = copied(case, tmp_path)
    file = folder / ENGINE_FILES[engine_name]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ProgramRejected, match="is altered"):
        load_engine(folder, engine_name)


@pytest.mark.parametrize("content", [b"", b"not a program at all", bytes(4096)], ids=["empty", "text", "zeros"])
def test_a_file_that_is_no_program_is_refused(engine_name: str, case: Path, tmp_path: Path, content: bytes) -> None:
    folder = copied(case, tmp_path)
    (folder / ENGINE_FILES[engine_name]).write_bytes(content)
    describe_again(folder, ENGINE_FILES[engine_name])
    with pytest.raises(ProgramError):
        load_engine(folder, engine_name)


def test_a_file_cut_short_is_refused(engine_name: str, case: Path, tmp_path: Path) -> None:
    folder = copied(case, tmp_path)
    file = folder / ENGINE_FILES[engine_name]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    describe_again(folder, ENGINE_FILES[engine_name])
    with pytest.raises(ProgramError):
        load_engine(folder, engine_name)


def test_a_method_that_the_manifest_leaves_out_is_not_there(engine_name: str, case: Path, tmp_path: Path) -> None:
    folder = copied(case, tmp_path)
    manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes())
    methods = {name: method for name, method in manifest.methods.items() if name != "predict"}
    (folder / "manifest.json").write_bytes(dataclasses.replace(manifest, methods=methods).to_bytes())
    engine = load_engine(folder, engine_name)
    with pytest.raises(ProgramError, match="the program has no method 'predict'"):
        engine.predict(np.zeros((1, *manifest.contract.x_shape), manifest.contract.x_dtype), {})
    engine.close()
