"""Short fine-tuning, by which contribution analysis compares layers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# In a process of its own: what went wrong here ended the process.
BIASES_OF_A_NORM = """
import torch
from torch import nn
from exporters import Task
from exporters.importance.finetune import FineTuning, fine_tune
from mobile_sdk.layout import Subset

torch.manual_seed(0)
x, y = torch.randn(32, 3, 16, 16), torch.arange(32) % 4
model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.GroupNorm(2, 16), nn.ReLU(),
                      nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
task = Task(model, nn.CrossEntropyLoss(reduction="none"), x[:16], y[:16])
before = fine_tune(task, None, (x, y), (x, y), FineTuning(1)).loss
after = fine_tune(task, Subset.whole(task.layout, ["1.bias", "5.bias"]), (x, y), (x, y), FineTuning(20)).loss
print(after < before)
"""


def test_the_biases_of_a_group_normalisation_can_be_trained_alone() -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", BIASES_OF_A_NORM], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"
