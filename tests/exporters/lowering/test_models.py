"""Models as people write them: each trains with autograd's gradients in both engines, or is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from exporters import Plan, Program, Task
from exporters.errors import ExportError
from exporters.program.build import build
from tests.exporters.lowering.model_table import REFUSED, TRAINS, make
from tests.exporters.lowering.models_page import page
from tests.exporters.lowering.outcome import outcome

# One of each way in which something is lowered; the rest takes minutes.
QUICK = {
    "depth multiplier",
    "grouped with stride",
    "transposed with output padding",
    "convolution 3 d strided",
    "reflect padding",
    "average ceil padded not counted",
    "adaptive to 3 by 5",
    "adaptive maximum to 3",
    "bilinear twice",
    "nearest twice",
    "patches by unfold of a tensor",
    "stochastic depth",
    "batch norm with a bias before",
    "old weight norm",
    "standard deviation",
    "slice write",
    "write by index",
    "boolean write",
    "in place on a view",
    "sort",
    "hard gumbel",
    "last valid step",
    "encoder with dropout",
    "padding mask",
    "language model tied",
    "variational autoencoder",
    "label smoothing with weights",
    "segmentation ignoring 255",
    "int32 labels as they are",
    "bytes as images",
    "ids and mask",
    "named inputs",
    "named targets",
    "checkpointed",
    "autocast region",
    "buffer that forward moves",
}
ROWS = {(kind, name): row for kind, rows in TRAINS.items() for name, row in rows.items()}


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=name, marks=() if name in QUICK else pytest.mark.full) for (_, name), row in ROWS.items()],
)
def test_a_model_trains_with_the_gradients_of_autograd(row: Callable[[], Task]) -> None:
    what, said = outcome(row)
    assert what == "right", said


def exported(row: Callable[[], Task]) -> Program:
    task = make(row)
    return build(task, Plan.everything(task), cached=False)


@pytest.mark.parametrize(("row", "sentence", "remedy"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_is_one_sentence_with_a_remedy_that_trains(
    row: Callable[[], Task], sentence: str, remedy: str
) -> None:
    with pytest.raises(ExportError, match=sentence) as raised:
        exported(row)
    said = str(raised.value)
    assert "\n" not in said
    assert "Traceback" not in said
    assert any(remedy in rows for rows in TRAINS.values())


def test_the_page_of_models_is_made_from_the_table() -> None:
    written = Path(__file__).parents[3] / "docs" / "models.md"
    assert written.read_text() == page(), "python -m tests.exporters.lowering.models_page > docs/models.md"
