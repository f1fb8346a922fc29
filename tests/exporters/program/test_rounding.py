"""Weights that no plan trains can lie on a coarse grid: nothing else changes, and programs get shorter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from exporters import Plan, Task, export
from exporters.program.rounding import frozen_matrices, round_weights
from mobile_sdk.layout import Subset
from mobile_sdk.payload import pack, unpack
from tests.exporters.export_tasks import task_of


def task() -> Task:
    torch.manual_seed(0)
    return task_of(
        nn.Sequential(
            nn.Conv2d(2, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 3),
        )
    )


def head(of: Task) -> Plan:
    return Plan(Subset.whole(of.layout, ["6.weight", "6.bias"]), of.micro_batch, ("0.weight", "2.weight"))


def test_matrices_that_no_plan_trains_are_rounded_and_nothing_else() -> None:
    plain = task()
    names = frozen_matrices(plain, [head(plain)])
    assert names == ["0.weight", "2.weight"]
    before = plain.initial_weights().copy()
    coarse = round_weights(plain, names, 6)
    assert np.array_equal(plain.initial_weights(), before)
    for name, view in plain.layout.views(coarse.initial_weights()).items():
        original = plain.layout.views(before)[name]
        error = np.abs(view - original).max()
        if name in names:
            # Half a step of the largest weight's power of two, or a whole one at its very end.
            assert 0 < error <= np.abs(original).max() / 2**5
        else:
            assert error == 0


def test_where_every_matrix_is_trained_nothing_is_rounded() -> None:
    given = task()
    names = frozen_matrices(given, [Plan.everything(given)])
    assert names == []
    assert round_weights(given, names, 5).initial_weights().tobytes() == given.initial_weights().tobytes()


@pytest.mark.parametrize("bits", [3, 7])
def test_rounding_again_changes_nothing(bits: int) -> None:
    once = round_weights(task(), ["0.weight", "2.weight"], bits)
    again = round_weights(once, ["0.weight", "2.weight"], bits)
    assert np.array_equal(once.initial_weights(), again.initial_weights())


def test_a_program_with_rounded_weights_inside_is_right_and_packs_into_a_byte_per_weight() -> None:
    plain = task()
    coarse = round_weights(plain, ["0.weight", "2.weight"], 6)
    # Exporting verifies gradients against the rounded task's own.
    sizes = []
    for each in (plain, coarse):
        program = export(each, plan=head(each))
        packed, encoding = pack(program.pte)
        assert unpack(packed, encoding, len(program.pte)) == program.pte
        sizes.append(len(packed))
    inside = 2 * 32 * 9 + 32 * 32 * 9
    assert sizes[0] - sizes[1] > 2.5 * inside
