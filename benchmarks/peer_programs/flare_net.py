"""The convnet of FLARE's edge example, of as many parameters; the job takes this file along."""

from __future__ import annotations

import torch
from nvflare.edge.models.model import DeviceModel
from torch import nn


class ConvNet(nn.Module):
    """Two convolutions and three linear layers on 3x32x32: 62,006 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5, stride=2)
        self.conv2 = nn.Conv2d(6, 16, 5, stride=2)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        x = torch.relu(self.fc1(torch.flatten(x, 1)))
        logits: torch.Tensor = self.fc3(torch.relu(self.fc2(x)))
        return logits


class TrainingNet(DeviceModel):
    """With its loss, as FLARE exports it."""

    def __init__(self) -> None:
        DeviceModel.__init__(self, ConvNet())
