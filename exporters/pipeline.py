"""From a task and a budget to a program that is known to be right: choose, build, verify, keep."""

from __future__ import annotations

import dataclasses
import json
import logging
import tempfile
import time

from mobile_sdk.engines import load_engine
from mobile_sdk.errors import ProgramError
from mobile_sdk.manifest import Manifest, Memory
from mobile_sdk.sizes import format_bytes, parse_bytes

from .batches import tensors_of
from .cache import store as cache
from .errors import BudgetError, ExportError
from .memory.footprint import Footprint
from .memory.measure import measure
from .plan import Plan
from .program.build import Program, Progress, _silent, build
from .program.self_check import make_self_check
from .program.step import Step
from .program.verify import verify_gradients
from .search import plan_for
from .task import Task

__all__ = ["export"]

# How often a program that seems to take too much is measured again.
_AGAIN = 2

_log = logging.getLogger(__name__)


def export(
    task: Task,
    *,
    budget: str | int | None = None,
    plan: Plan | None = None,
    progress: Progress | None = None,
    cached: bool = True,
) -> Program:
    """
    Make the program of a task.

    Args:
        task: what to learn.
        budget: the memory that a training step may take on a device, as ``"2MB"`` or in bytes.
        plan: what to train. Without it, the search picks the largest that fits the budget; without either,
            everything is trained.
        progress: called with a line of text at every stage; a search takes many seconds.
        cached: whether what was exported, verified and measured before may be used; see :mod:`exporters.cache.store`.

    Raises:
        ExportError: if the task cannot be lowered, or the result is not right.
        BudgetError: if no plan fits the budget, or the given one does not.
        ValueError: if ``budget`` is not an amount of memory.

    """
    say = progress or _silent
    start = time.perf_counter()
    limit = 0 if budget is None else parse_bytes(budget)
    _say_notes(task, say if progress else None)
    if plan is None:
        plan = plan_for(task, limit, progress=say) if limit else Plan.everything(task)
    program = build(task, plan, cached=cached, progress=say)
    known = cache.key("checked", program.pte, program.graph, program.manifest.to_bytes(), *_example(task, program))
    checked = cache.load(known) if cached else None
    if checked is None:
        say("verifying gradients")
        error = _verified(program, Step(task, plan))
        say("measuring memory")
        footprint = _measured(program, limit)
        measured, idle = footprint.total_bytes, footprint.idle_bytes
        say("making the self-check")
        program = program.with_check(make_self_check(task, program))
        cache.store(known, json.dumps([error, measured, idle]).encode() + b"\n" + program.manifest.to_bytes())
    else:
        facts, _, content = checked.partition(b"\n")
        error, measured, idle = json.loads(facts)
        program = dataclasses.replace(program, manifest=Manifest.from_bytes(content))
    if 0 < limit < measured:
        raise BudgetError(
            f"the plan takes {format_bytes(measured)}, more than {format_bytes(limit)}: give a larger budget, or a "
            "plan that trains less",
            measured,
        )
    memory = Memory(limit, program.manifest.memory.planned_bytes, measured, idle)
    manifest = dataclasses.replace(program.manifest, memory=memory)
    return dataclasses.replace(program, manifest=manifest, gradient_error=error, seconds=time.perf_counter() - start)


def _measured(program: Program, limit: int) -> Footprint:
    """
    What a program takes; measured again where that is more than ``limit`` (0: none).

    What else goes on in a machine only adds to what is measured, so the least of a few is right.
    """
    found = measure(program)
    for _ in range(_AGAIN):
        if not 0 < limit < found.total_bytes:
            break
        found = min(found, measure(program), key=lambda footprint: footprint.total_bytes)
    return found


def _say_notes(task: Task, say: Progress | None) -> None:
    """What is frozen, left out or converted, to whoever exports."""
    for note in task.notes:
        if say is None:
            _log.warning("%s: %s", task.name, note)
        else:
            say(note)


def _example(task: Task, program: Program) -> list[bytes]:
    """What verification starts from."""
    tensors = [*tensors_of(task.example_x), *tensors_of(task.example_y)]
    return [program.weights.tobytes(), *(t.numpy().tobytes() for t in tensors)]


def _verified(program: Program, step: Step) -> float:
    with tempfile.TemporaryDirectory() as folder:
        program.save(folder)
        engine = load_engine(folder)
        try:
            return verify_gradients(engine, step)
        except ProgramError as error:
            raise ExportError(f"the program does not run: {error}") from error
        finally:
            engine.close()
