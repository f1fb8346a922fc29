"""The native engine runs real programs and refuses what does not fit them."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary
from executorch.exir.schema import Bool, Int

from mobile_sdk import load_engine
from mobile_sdk.engines.base import Engine
from mobile_sdk.errors import ProgramError, ProgramRejected
from mobile_sdk.manifest import Manifest, Method
from mobile_sdk.native.library import NativeProgram, set_threads, threads

from . import native_program as sample


@pytest.fixture(scope="module")
def content() -> bytes:
    return sample.program_bytes()


@pytest.fixture(scope="module")
def step_only() -> bytes:
    """A program of ``train_step`` alone."""
    return sample.program_bytes(methods=("train_step",))


@pytest.fixture
def folder(tmp_path: Path, content: bytes) -> Path:
    return sample.write(tmp_path / "program", content, sample.manifest_for(content))


@pytest.fixture
def engine(folder: Path) -> Iterator[Any]:
    engine = load_engine(folder)
    yield engine
    engine.close()


def assert_step_is_autograd(engine: Engine, count: int, seed: int) -> None:
    x, y, sample_weight, weights = sample.example(count, seed)
    loss, metrics, gradients = engine.train_step(x, y, sample_weight, weights)
    want_loss, want_correct, want = sample.by_autograd(x, y, sample_weight, weights)
    assert loss == pytest.approx(want_loss, rel=1e-5)
    assert metrics == {"correct": pytest.approx(want_correct, rel=1e-5)}
    assert list(gradients) == list(sample.SUBSET)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, want[name], rtol=1e-4, atol=1e-5)
    evaluated, counted = engine.evaluate(x, y, sample_weight, weights)
    assert evaluated == pytest.approx(loss)
    assert counted == {"correct": metrics["correct"]}
    logits = (x * weights["scale"]) @ weights["weight"] + weights["bias"]
    np.testing.assert_allclose(engine.predict(x, weights), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", range(1, sample.BATCH + 1))
def test_batches_up_to_the_micro_batch_give_what_autograd_gives(engine: Engine, count: int) -> None:
    """Short batches are padded with samples that change nothing, after longer ones too."""
    assert_step_is_autograd(engine, sample.BATCH, seed=9)
    assert_step_is_autograd(engine, count, seed=count)


@pytest.mark.parametrize("plan_outputs", [True, False])
@pytest.mark.parametrize("delegate", [True, False])
def test_outputs_are_right_wherever_the_program_puts_them(tmp_path: Path, delegate: bool, plan_outputs: bool) -> None:
    """Outputs planned in the arena are read there; others are written in the engine's buffers. Neither is copied."""
    content = sample.program_bytes(delegate=delegate, plan_outputs=plan_outputs)
    engine = load_engine(sample.write(tmp_path, content, sample.manifest_for(content)))
    program = NativeProgram(tmp_path / "program.pte")
    assert (program.output("train_step", 2) is not None) is plan_outputs
    program.close()
    try:
        assert_step_is_autograd(engine, 3, seed=1)
    finally:
        engine.close()


def test_training_lowers_the_loss(engine: Engine) -> None:
    x, y, sample_weight, weights = sample.example()
    first, _, _ = engine.train_step(x, y, sample_weight, weights)
    for _ in range(50):
        _, _, gradients = engine.train_step(x, y, sample_weight, weights)
        for name, gradient in gradients.items():
            weights[name][sample.SUBSET.selector(name)] -= 0.1 * gradient
    last, _, _ = engine.train_step(x, y, sample_weight, weights)
    assert last < 0.5 * first


def test_arrays_are_read_in_place_and_never_written(engine: Engine) -> None:
    """Weights in a read-only buffer, such as a mapped file, can be used as they are; changes are seen."""
    x, y, sample_weight, weights = sample.example()
    before, _, _ = engine.train_step(x, y, sample_weight, weights)
    views = {}
    for name, array in weights.items():
        views[name] = array.view()
        views[name].flags.writeable = False
    weights["bias"][0] += 1
    assert engine.train_step(x, y, sample_weight, views)[0] != before
    assert engine.train_step(x, y, sample_weight, views)[0] == engine.train_step(x, y, sample_weight, weights)[0]


def test_strided_and_unaligned_arrays_are_copied(engine: Engine) -> None:
    x, _, _, weights = sample.example()
    want = engine.predict(x, weights)
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    odd = {"weight": np.asfortranarray(weights["weight"]), "bias": np.repeat(weights["bias"], 2)[::2]}
    np.testing.assert_array_equal(engine.predict(unaligned, weights | odd), want)


def test_buffers_are_reused_from_call_to_call(engine: Engine) -> None:
    x, y, sample_weight, weights = sample.example()
    _, _, first = engine.train_step(x, y, sample_weight, weights)
    _, _, second = engine.train_step(x, y, sample_weight, weights)
    assert all(first[name] is second[name] for name in first)


def test_predictions_belong_to_the_caller(engine: Engine) -> None:
    x, _, _, weights = sample.example()
    first = engine.predict(x, weights)
    kept = first.copy()
    engine.predict(-x, weights)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((5, 6), np.float32)}, r"x must have 1 to 4 samples, not the shape \(5, 6\)"),
        ({"x": np.zeros((0, 6), np.float32)}, r"x must have 1 to 4 samples"),
        ({"x": np.ones((), np.float32)}, r"x must have 1 to 4 samples"),
        ({"x": np.zeros((4, 7), np.float32)}, r"'x' must be float32 of shape \(4, 6\), not float32 of shape \(4, 7\)"),
        ({"x": np.zeros((4, 6), np.float64)}, r"'x' must be float32 .* not float64"),
        ({"x": np.zeros((4, 6), ">f4")}, r"'x' must be float32 .* not >f4"),
        ({"y": np.zeros(4, np.int32)}, r"'y' must be int64 of shape \(4,\), not int32"),
        ({"y": np.zeros(3, np.int64)}, r"'y' must be int64 of shape \(4,\), not int64 of shape \(3,\)"),
        ({"sample_weight": np.ones((4, 1), np.float32)}, r"'sample_weight' must be float32 of shape \(4,\)"),
        ({"bias": np.zeros(4, np.float32)}, r"'bias' must be float32 of shape \(3,\), not float32 of shape \(4,\)"),
        ({"bias": None}, r"the weights lack the parameter 'bias'"),
    ],
)
def test_arrays_that_do_not_fit_are_named_with_what_was_expected_and_found(
    engine: Engine, change: Any, message: str
) -> None:
    x, y, sample_weight, weights = sample.example()
    batch = {"x": x, "y": y, "sample_weight": sample_weight}
    for name, array in change.items():
        if name in batch:
            batch[name] = array
        elif array is None:
            del weights[name]
        else:
            weights[name] = array
    with pytest.raises(ProgramError, match=message) as caught:
        engine.train_step(**batch, weights=weights)
    assert caught.value.code is None
    assert_step_is_autograd(engine, 2, seed=3)  # and the engine still works


def test_a_program_without_a_method_says_so(tmp_path: Path, step_only: bytes) -> None:
    engine = load_engine(sample.write(tmp_path, step_only, sample.manifest_for(step_only, ("train_step",))))
    x, y, sample_weight, weights = sample.example()
    with pytest.raises(ProgramError, match=r"no method 'predict', only train_step"):
        engine.predict(x, weights)
    with pytest.raises(ProgramError, match=r"no method 'evaluate'"):
        engine.evaluate(x, y, sample_weight, weights)
    engine.close()


def test_a_method_that_the_program_lacks_is_refused_with_executorchs_name(tmp_path: Path, step_only: bytes) -> None:
    with pytest.raises(ProgramError, match=r"'evaluate' failed with InvalidArgument") as caught:
        load_engine(sample.write(tmp_path, step_only, sample.manifest_for(step_only)))
    assert caught.value.code == "InvalidArgument"


def altered(manifest: Manifest, method: str, **fields: Any) -> Manifest:
    return dataclasses.replace(
        manifest, methods={**manifest.methods, method: dataclasses.replace(manifest.methods[method], **fields)}
    )


def test_a_manifest_that_disagrees_with_the_program_is_refused_at_load(tmp_path: Path, content: bytes) -> None:
    manifest = sample.manifest_for(content)
    step: Method = manifest.methods["train_step"]
    wider = dataclasses.replace(manifest, micro_batch=8)
    swapped = (step.outputs[0], step.outputs[1], step.outputs[3], step.outputs[2])
    cases = {
        "contradicts itself: input 'x'": wider,
        "manifest and program disagree: input 'bias'": altered(
            manifest, "train_step", inputs=(*step.inputs[:3], step.inputs[4], step.inputs[3], step.inputs[5])
        ),
        "manifest and program disagree: output": altered(manifest, "train_step", outputs=swapped),
        "has 5 inputs by the manifest, 6 really": altered(manifest, "train_step", inputs=step.inputs[:5]),
        "gives the gradients": altered(manifest, "train_step", outputs=step.outputs[:3]),
        "gives the metrics": dataclasses.replace(manifest, metrics=()),
        "of the role 'loss'": altered(manifest, "train_step", outputs=step.outputs[1:]),
        "of the role 'prediction'": altered(manifest, "predict", outputs=()),
        "by what it trains otherwise": altered(
            manifest, "train_step", outputs=(*step.outputs[:3], dataclasses.replace(step.outputs[3], name="scale"))
        ),
    }
    for number, (message, wrong) in enumerate(cases.items()):
        with pytest.raises(ProgramError) as caught:
            load_engine(sample.write(tmp_path / str(number), content, wrong))
        assert message in str(caught.value)


def test_a_byte_altered_is_rejected(folder: Path, content: bytes) -> None:
    (folder / "program.pte").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ProgramRejected, match=r"'program\.pte' is altered"):
        load_engine(folder)


def test_a_missing_file_is_rejected(folder: Path) -> None:
    (folder / "program.pte").unlink()
    with pytest.raises(ProgramRejected, match=r"lacks the file 'program\.pte'"):
        load_engine(folder)


def test_a_program_of_another_executorch_is_rejected(folder: Path, content: bytes) -> None:
    sample.write(folder, content, dataclasses.replace(sample.manifest_for(content), executorch="1.4.0"))
    with pytest.raises(ProgramRejected, match=r"is for ExecuTorch 1\.4\.0, this SDK runs 1\.5\.1"):
        load_engine(folder)


def test_a_manifest_of_another_format_is_refused(folder: Path) -> None:
    data = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(data | {"format": 99}))
    with pytest.raises(ProgramError, match="format 99"):
        load_engine(folder)


def test_folders_and_engines_that_are_not_there_are_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ProgramError, match=r"no program in .*nowhere"):
        load_engine(tmp_path / "nowhere")
    with pytest.raises(ProgramError, match="unknown engine 'gpu'"):
        load_engine(folder, engine="gpu")


@pytest.mark.parametrize("length", [0, 10, 200, -1])
def test_a_truncated_program_is_an_error_with_executorchs_name(tmp_path: Path, content: bytes, length: int) -> None:
    """The manifest describes the truncated file, so only ExecuTorch can notice."""
    cut = content[:length] if length >= 0 else content[: len(content) // 2]
    with pytest.raises(ProgramError) as caught:
        load_engine(sample.write(tmp_path, cut, sample.manifest_for(cut)))
    assert caught.value.code in ("InvalidProgram", "InvalidExternalData", "AccessFailed", "InvalidArgument")


def test_calls_of_the_wrong_size_are_refused_before_memory_is_touched(folder: Path) -> None:
    """The ABI itself checks counts and bytes: it is the last line before raw pointers."""
    program = NativeProgram(folder / "program.pte")
    inputs, outputs, _ = program.metadata("predict")
    arrays = [np.zeros(meta.shape, meta.dtype) for meta in inputs]
    results = [np.zeros(meta.shape, meta.dtype) for meta in outputs]
    with pytest.raises(ProgramError, match="expected 4 inputs, got 3") as caught:
        program.execute("predict", arrays[:3], results)
    assert caught.value.code == "InvalidArgument"
    with pytest.raises(ProgramError, match="output 0 must have 48 bytes, not 4") as caught:
        program.execute("predict", arrays, [np.zeros(1, np.float32)])
    assert caught.value.code == "InvalidArgument"
    arrays[0][:] = arrays[1][:] = arrays[3][:] = 1
    program.execute("predict", arrays, results)
    assert results[0].tolist() == [[6.0] * 3] * 4
    program.unload("predict")
    program.execute("predict", arrays, [None])
    np.testing.assert_array_equal(program.output("predict", 0), results[0])
    program.close()
    program.close()
    with pytest.raises(ProgramError, match="is closed"):
        program.execute("predict", arrays, results)


def test_a_closed_engine_says_so(folder: Path) -> None:
    engine = load_engine(folder)
    engine.close()
    x, y, sample_weight, weights = sample.example()
    with pytest.raises(ProgramError, match="is closed"):
        engine.train_step(x, y, sample_weight, weights)


def test_gradients_outlive_their_engine(folder: Path) -> None:
    """They may lie in the program's arena, which goes with the last of them; all else is freed at once."""
    engine = load_engine(folder)
    _, _, gradients = engine.train_step(*sample.example())
    kept = {name: gradient.copy() for name, gradient in gradients.items()}
    engine.close()
    del engine
    set_threads(2)  # no program is open
    set_threads(1)
    other = load_engine(folder)
    other.train_step(*sample.example(seed=1))
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, kept[name])
        gradient += 1
    other.close()


def test_the_number_of_threads_changes_only_while_no_program_is_open(folder: Path) -> None:
    """Loaded delegates hold on to the pool: taking it away under them would crash the process."""
    set_threads(1)
    one = load_engine(folder, threads=1)
    with pytest.raises(ProgramError, match="open programs of this process use 1 threads") as caught:
        load_engine(folder, threads=2)
    assert caught.value.code == "InvalidState"
    another = load_engine(folder, threads=1)
    one.close()
    another.close()
    two = load_engine(folder, threads=2)
    assert threads() == 2
    assert_step_is_autograd(two, 4, seed=5)
    two.close()
    set_threads(1)
    with pytest.raises(ProgramError, match="at least 1, not 0"):
        set_threads(0)


@pytest.mark.parametrize("native_first", [True, False])
def test_executorchs_own_bindings_work_in_the_same_process(folder: Path, native_first: bool) -> None:
    """One thread means without the pool, so a program that others loaded keeps the pool that it holds on to."""
    script = """
import sys
import numpy as np, torch
from mobile_sdk import load_engine
def bindings():
    from executorch.extension.pybindings.portable_lib import _load_for_executorch
    return _load_for_executorch(sys.argv[1] + "/program.pte")
if sys.argv[2] == "True":
    engine, module = load_engine(sys.argv[1], threads=1), bindings()
else:
    module, engine = bindings(), load_engine(sys.argv[1], threads=1)
shapes = {p.name: p.shape for p in engine.manifest.layout}
weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
x, y, w = np.ones((4, 6), np.float32), np.arange(4) % 3, np.ones(4, np.float32)
arguments = [torch.from_numpy(a) for a in (x, y, w, weights["weight"], weights["bias"], weights["scale"])]
for _ in range(3):
    assert abs(engine.train_step(x, y, w, weights)[0] - module.run_method("train_step", arguments)[0].item()) < 1e-5
print("agreed")
"""
    command = [sys.executable, "-W", "ignore", "-c", script, str(folder), str(native_first)]
    outcome = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (outcome.returncode, outcome.stdout) == (0, "agreed\n"), outcome.stderr


def test_one_thread_is_one_thread(folder: Path) -> None:
    outcome = run_without_torch(
        """
from pathlib import Path
import numpy as np
from mobile_sdk import load_engine
engine = load_engine(sys.argv[1])
weights = {p.name: np.ones(p.shape, np.float32) for p in engine.manifest.layout}
engine.predict(np.ones((4, 6), np.float32), weights)
print(len(list(Path("/proc/self/task").iterdir())))
""",
        folder,
        OPENBLAS_NUM_THREADS="1",
    )
    assert outcome.stdout == "1\n"


def test_threads_take_turns_on_one_engine(engine: Engine) -> None:
    """Each call's loss is that of its own batch, however many threads ask."""
    cases = {seed: sample.example(seed=seed) for seed in range(4)}
    expected = {seed: engine.evaluate(*case)[0] for seed, case in cases.items()}
    wrong: list[int] = []

    def work(seed: int) -> None:
        for _ in range(200):
            if engine.evaluate(*cases[seed])[0] != expected[seed]:
                wrong.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in cases]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_programs_share_a_process_without_mixing_weights(folder: Path) -> None:
    first, second = load_engine(folder), load_engine(folder)
    one, two = sample.example(seed=1), sample.example(seed=2)
    want_one, want_two = first.evaluate(*one)[0], second.evaluate(*two)[0]
    assert want_one != want_two
    first.train_step(*one)
    assert (second.evaluate(*two)[0], first.evaluate(*one)[0]) == (want_two, want_one)
    first.close()
    assert second.evaluate(*two)[0] == want_two
    second.close()


def test_engines_come_run_and_go_in_several_threads_at_once(folder: Path) -> None:
    """They share ExecuTorch's delegate and its workspace, and nothing of each other's numbers."""
    cases = {seed: sample.example(seed=seed) for seed in range(4)}
    engine = load_engine(folder)
    expected = {seed: engine.evaluate(*case)[0] for seed, case in cases.items()}
    engine.close()
    results: list[tuple[int, float]] = []

    def work(seed: int) -> None:
        for _ in range(20):
            mine = load_engine(folder)
            results.extend((seed, mine.evaluate(*cases[seed])[0]) for _ in range(20))
            mine.train_step(*cases[seed])
            mine.close()

    workers = [threading.Thread(target=work, args=(seed,)) for seed in cases]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 4 * 20 * 20
    assert all(loss == expected[seed] for seed, loss in results)


def run_without_torch(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """``script`` in a fresh process that could not import torch or executorch if it tried."""
    block = "import sys; sys.modules['torch'] = sys.modules['executorch'] = None\n"
    command = [sys.executable, "-c", block + script, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | environment)


def test_users_see_no_log_lines_of_executorch(folder: Path) -> None:
    outcome = run_without_torch(
        "from mobile_sdk import load_engine; load_engine(sys.argv[1], threads=2).close(); print('done')", folder
    )
    assert (outcome.stdout, outcome.stderr) == ("done\n", "")


def test_opening_closing_and_failing_a_thousand_times_keeps_memory(
    folder: Path, tmp_path: Path, content: bytes
) -> None:
    """Anonymous memory stays where it is when programs come and go, and when opening or running them fails."""
    broken = tmp_path / "broken.pte"
    broken.write_bytes(content[: len(content) // 2])
    growth = run_without_torch(
        """
import re
from pathlib import Path
import numpy as np
from mobile_sdk import load_engine
from mobile_sdk.errors import ProgramError
from mobile_sdk.native.library import NativeProgram
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
def refused(function, *arguments):
    try:
        function(*arguments)
    except ProgramError:
        return
    raise AssertionError("not refused")
def once():
    engine = load_engine(sys.argv[1])
    engine.evaluate(x, y, w, weights)
    engine.close()
    refused(NativeProgram, Path(sys.argv[2]))
    program = NativeProgram(Path(sys.argv[1]) / "program.pte")
    refused(program.execute, "predict", [x], [])
    refused(program.load, "nothing")
    program.load("train_step")
x, y, w = np.ones((4, 6), np.float32), np.zeros(4, np.int64), np.ones(4, np.float32)
weights = {"scale": np.ones(6, np.float32), "weight": np.ones((6, 3), np.float32), "bias": np.ones(3, np.float32)}
for _ in range(100): once()
# A leak grows each time; Python's own tables (of names, 1 MB) once, whenever that is.
growths = []
for _ in range(4):
    start = anonymous()
    for _ in range(1000): once()
    growths.append(anonymous() - start)
print(min(growths))
""",
        folder,
        broken,
    ).stdout
    assert int(growth) < 256 * 1024


def test_a_missing_library_says_how_to_build_it(folder: Path) -> None:
    outcome = run_without_torch(
        """
from pathlib import Path
from mobile_sdk import load_engine
from mobile_sdk.errors import ProgramError
from mobile_sdk.native import library
library.LIBRARY = Path("/nonexistent/libftte_runtime.so")
try:
    load_engine(sys.argv[1])
except ProgramError as error:
    print(error)
""",
        folder,
    )
    assert "/nonexistent/libftte_runtime.so is missing; in a checkout run `make native`, or choose" in outcome.stdout


def test_a_program_on_which_executorch_gives_up_is_an_error_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    """It is well-formed, but an operator gets a truth value where it wants a number, which ExecuTorch aborts at."""
    content = deserialize_pte_binary(sample.program_bytes(delegate=False))
    for plan in content.program.execution_plan:
        for value in plan.values:
            if isinstance(value.val, Int):
                value.val = Bool(True)
    altered_bytes = bytes(serialize_pte_binary(content))
    folder = sample.write(tmp_path, altered_bytes, sample.manifest_for(altered_bytes))
    # Alone: of several libraries over one ExecuTorch, which only tests have, the last one is asked when it gives up.
    outcome = run_without_torch(
        """
import numpy as np
from mobile_sdk import load_engine
from mobile_sdk.errors import ProgramError
engine = load_engine(sys.argv[1])
x, y, w = np.ones((4, 6), np.float32), np.zeros(4, np.int64), np.ones(4, np.float32)
weights = {"scale": np.ones(6, np.float32), "weight": np.ones((6, 3), np.float32), "bias": np.ones(3, np.float32)}
for _ in range(2):
    try:
        engine.train_step(x, y, w, weights)
    except ProgramError as error:
        print(error)
engine.close()
print("closed")
""",
        folder,
    )
    first, second, end = outcome.stdout.splitlines()
    assert re.search(r"assert failed .*; the program is broken", first)
    assert "broke off in an earlier call" in second
    assert end == "closed"
