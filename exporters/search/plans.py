"""Plans for budgets: evidence gathered, a selector asked, the search run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..batches import Batch, as_batch, names_of, tensors_of
from ..cache.journal import Journal
from ..errors import ExportError
from ..importance import SELECTORS, Scores
from ..importance.evidence import Evidence, EvidenceProgress, silent
from ..importance.finetune import FineTuning
from ..plan import Plan
from ..processes import Workers
from ..space import Space
from ..task import Samples, Task
from ..user_code import call_users
from .all_budgets import Mode, plan_tiers
from .least_budget import check_least

__all__ = ["DEFAULT_SELECTOR", "evidence_of", "plan_for", "plans_for", "select"]

DEFAULT_SELECTOR = "sensitivity"


def plans_for(
    task: Task,
    budgets: Sequence[int],
    *,
    mode: Mode = "nested",
    selector: str | None = None,
    shrink: bool = True,
    samples: Samples | None = None,
    seed: int = 0,
    journal: Journal | None = None,
    processes: int | None = 1,
    progress: Callable[[str], None] | None = None,
) -> list[Plan]:
    """
    The plans of ``budgets``, in their order.

    Args:
        task: what to learn.
        budgets: bytes that a training step may take.
        mode: see :mod:`exporters.search.all_budgets`.
        selector: a name in :data:`~exporters.importance.SELECTORS`; :data:`DEFAULT_SELECTOR` where :obj:`None`.
        shrink: see :func:`plan_tiers`.
        samples: what selectors look at; the task's proxy data where :obj:`None`.
        seed: fixes every draw.
        journal: what earlier searches worked out.
        processes: to work on; as many as there are processors for :obj:`None`.
        progress: called with a line of text as the search goes on.

    Raises:
        BudgetError: if no plan fits one of them; it names the smallest budget that can be met.
        ExportError: if the model cannot be lowered, or the selector needs data that the task does not give.

    """
    say = progress
    report: EvidenceProgress = silent if say is None else lambda stage, done, total: say(f"{stage}: {done} of {total}")
    evidence = evidence_of(task, samples=samples, seed=seed, journal=journal, processes=processes, progress=report)
    check_least(evidence, budgets)
    scores = select(evidence, selector)
    tiers = plan_tiers(evidence, scores, budgets, mode=mode, shrink=shrink)
    by_budget = {tier.budget: tier.plan for tier in tiers.tiers}
    return [by_budget[budget] for budget in budgets]


def plan_for(task: Task, budget: int, *, progress: Callable[[str], None] | None = None) -> Plan:
    """
    The plan of a single budget; see :func:`plans_for`.

    Args:
        task: what to learn.
        budget: bytes that a training step may take.
        progress: called with a line of text as the search goes on.

    Raises:
        BudgetError: if no plan fits it.
        ExportError: if the model cannot be lowered.

    """
    return plans_for(task, [budget], progress=progress)[0]


def evidence_of(
    task: Task,
    *,
    samples: Samples | None = None,
    seed: int = 0,
    fine_tuning: FineTuning | None = None,
    journal: Journal | None = None,
    processes: int | None = None,
    progress: EvidenceProgress = silent,
) -> Evidence:
    """
    What selectors look at: the task's space, and ``samples`` or the task's proxy data.

    Args:
        task: what to learn.
        samples: x of shape ``(n, *x_shape)``, y of shape ``(n, *y_shape)``, in the contract's dtypes; the task's proxy
            data where :obj:`None`.
        seed: fixes every draw.
        fine_tuning: how plans are fine-tuned.
        journal: what earlier searches worked out.
        processes: to work on; as many as there are processors for :obj:`None`.
        progress: called with a stage, and how much of it is done.

    Raises:
        ExportError: if the samples do not fit the task's contract.

    """
    if samples is None and task.proxy is not None:
        samples = call_users(task.proxy, "proxy")
    return Evidence(
        Space(task),
        None if samples is None else _checked(task, samples),
        seed=seed,
        fine_tuning=fine_tuning or FineTuning(),
        workers=Workers(processes),
        journal=Journal() if journal is None else journal,
        progress=progress,
    )


def _checked(task: Task, samples: Samples) -> tuple[Batch, Batch]:
    x, y = (as_batch(part, name, []) for part, name in zip(samples, ("x", "y"), strict=True))
    for array, batch in (("x", x), ("y", y)):
        wanted = task.contract.parts(array)
        if names_of(batch) != [part.name for part in wanted]:
            raise ExportError(f"the proxy data's {array} has other arrays than task {task.name!r} takes")
        for part, tensor in zip(wanted, tensors_of(batch), strict=True):
            found = str(tensor.dtype).removeprefix("torch.")
            if tuple(tensor.shape[1:]) != part.shape or found != part.dtype or len(tensor) != len(x):
                raise ExportError(
                    f"the proxy data's {array} is {found} of shape {tuple(tensor.shape)}; task {task.name!r} takes "
                    f"{part.dtype} of shape (n, {', '.join(map(str, part.shape))})"
                )
    return x, y


def select(evidence: Evidence, selector: str | None) -> Scores:
    """
    The scores of a selector by its name.

    Raises:
        ExportError: if there is none of this name, or it needs data that are not there.

    """
    name = selector or DEFAULT_SELECTOR
    if name not in SELECTORS:
        raise ExportError(f"there is no selector {name!r}; use one of {', '.join(SELECTORS)}")
    return SELECTORS[name](evidence)
