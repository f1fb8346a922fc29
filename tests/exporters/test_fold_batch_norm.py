"""Batch normalisation folds into what stands before it, frozen, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from exporters import Task, TaskError, load_task
from exporters.fold_batch_norm import fold_batch_norm
from exporters.zoo import TASKS
from tests.exporters.export_tasks import per_sample


def settled(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """With statistics of ``x``, in eval mode."""
    with torch.no_grad():
        model.train()(x)
    return model.eval()


class Residual(nn.Module):
    """Layers that are named in another order than they run, and share a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.down = nn.Conv1d(4, 2, 3)
        self.norm_down = nn.BatchNorm1d(2)
        self.head = nn.Linear(28, 6)
        self.norm_head = nn.BatchNorm1d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + torch.relu(self.norm(self.conv(x)))
        x = self.norm_down(self.down(x.flatten(2)))
        return self.norm_head(self.head(x.flatten(1)))


def test_folding_keeps_the_function_whatever_the_order_of_modules() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 4, 4, 4)
    model = settled(Residual(), x)
    folded = fold_batch_norm(model, x)
    assert not any("norm" in name and list(m.parameters()) for name, m in folded.named_modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-4)
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())  # the model itself is as it was


def test_a_task_folds_on_request() -> None:
    plain, folded = load_task(TASKS["mobilenet_v2"]), load_task(TASKS["mobilenet_v2_folded"])
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.model.modules())
    assert len(folded.layout.parameters) < len(plain.layout.parameters)
    assert not any("running" in p.name for p in folded.layout)
    with torch.no_grad():
        torch.testing.assert_close(folded.model(plain.example_x), plain.model(plain.example_x), rtol=1e-4, atol=1e-4)


def test_training_mode_cannot_be_folded() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(TaskError, match="batch normalisation '1' is in training mode"):
        Task(model, per_sample, torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.long), fold_batch_norm=True)


def test_a_model_without_anything_to_fold_says_so() -> None:
    with pytest.raises(TaskError, match="leave out the folding"):
        fold_batch_norm(nn.Linear(3, 3), torch.zeros(2, 3))


def test_a_result_that_is_also_used_plain_is_refused() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layer(x)
            return y + self.norm(y)

    torch.manual_seed(0)
    x = torch.randn(16, 4)
    with pytest.raises(TaskError, match="also used without the normalisation"):
        fold_batch_norm(settled(Forked(), x), x)
