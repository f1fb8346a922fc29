"""
Small federated tasks whose data anybody can make anew: people's motion, handwritten digits, text.

They are what a newcomer brings: uneven data, few parameters, devices with unequal budgets. Defaults of the run file are
chosen so that these learn (:mod:`benchmarks.defaults`).
"""

from __future__ import annotations

import functools
import pydoc_data.topics
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from exporters import Task
from exporters.zoo.examples import correct, cross_entropy

__all__ = ["motion", "motion_training", "text", "text_training"]

Writers = tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.int64]]
Samples = tuple[npt.NDArray[Any], npt.NDArray[np.int64]]

PEOPLE = 30
HELD_OUT_PEOPLE = 10
ACTIVITIES = ("rest", "walk", "run", "stairs", "cycle", "jump")
INSTANTS = 64
HERTZ = 20.0

CONTEXT = 12
LETTERS = " etaoinsrhldcumfpgwybvkxjqz.,'()_-"


def _person(rng: np.random.Generator, windows: int, mix: npt.NDArray[np.float64]) -> Samples:
    """
    One person's windows: acceleration and rotation along three axes, at 20 Hz.

    A gait is a fundamental and two harmonics. Everybody has a pace, a force, a way to wear the device, and noise.
    """
    pace = np.array([0.0, 1.7, 2.7, 1.4, 1.2, 2.0]) * rng.lognormal(0, 0.12)  # steps a second
    force = np.array([0.0, 0.35, 1.0, 0.45, 0.3, 1.3]) * rng.lognormal(0, 0.25)  # of the acceleration, in g
    swing = np.array([0.0, 0.5, 0.9, 0.4, 0.8, 0.2]) * rng.lognormal(0, 0.25)  # of the rotation
    tilt = np.linalg.qr(rng.normal(size=(3, 3)) * 0.5 + np.eye(3))[0]
    y = rng.choice(len(ACTIVITIES), windows, p=mix)
    t = np.arange(INSTANTS) / HERTZ
    shape = rng.normal(size=(len(ACTIVITIES), 3)) * 0.3 + np.array([1.0, 0.5, 0.25])
    x = np.empty((windows, 6, INSTANTS))
    for n, label in enumerate(y):
        phase = rng.uniform(0, 2 * np.pi)
        turn = 2 * np.pi * pace[label] * rng.normal(1, 0.04) * t
        gait = sum(shape[label, k] * np.sin((k + 1) * turn + (k + 1) * phase) for k in range(3))
        aside = np.sin(turn / 2 + phase)
        up = 1.0 + force[label] * gait
        acceleration = tilt @ np.stack([0.4 * force[label] * aside, 0.2 * force[label] * gait, up])
        rotation = tilt @ np.stack(
            [swing[label] * aside, 0.5 * swing[label] * np.cos(turn + phase), 0.3 * gait * swing[label]]
        )
        x[n] = np.concatenate([acceleration, rotation])
    x += rng.normal(0, 0.15, x.shape)
    return x.astype(np.float32), y.astype(np.int64)


@functools.cache
def _people() -> tuple[Writers, Samples]:
    """What 30 people have, with their numbers; and held-out windows of ten others."""
    rng = np.random.default_rng(7)
    parts = []
    for person in range(PEOPLE):
        windows = int(np.clip(rng.lognormal(4.2, 0.5), 24, 240))
        x, y = _person(rng, windows, rng.dirichlet(np.full(len(ACTIVITIES), 0.6)))
        parts.append((x, y, np.full(windows, person)))
    even = np.full(len(ACTIVITIES), 1 / len(ACTIVITIES))
    others = [_person(rng, 60, even) for _ in range(HELD_OUT_PEOPLE)]
    own = tuple(np.concatenate(each) for each in zip(*parts, strict=True))
    held = tuple(np.concatenate(each) for each in zip(*others, strict=True))
    return (own[0], own[1], own[2]), (held[0], held[1])


def motion_training() -> Writers:
    """All windows of the 30 people: x float32 (n, 6, 64), y int64 (n,), whose int64 (n,)."""
    return _people()[0]


def motion() -> Task:
    """Six activities from motion: three 1-d convolutions and a linear layer, 9,494 parameters."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv1d(6, 24, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv1d(24, 40, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv1d(40, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(32, len(ACTIVITIES)),
        )
    x, y, _ = motion_training()
    return Task(
        model,
        cross_entropy,
        x[:16],
        y[:16],
        name="motion",
        metrics={"accuracy": correct},
        held_out=lambda: _people()[1],
        labels=ACTIVITIES,
    )


@functools.cache
def _pages() -> tuple[Writers, Samples]:
    """
    Windows of letters from the help texts that come with Python, and the letter that follows.

    A device has some topics of its own; every tenth window of each is held out.
    """
    codes = {letter: n for n, letter in enumerate(LETTERS)}
    topics = sorted(pydoc_data.topics.topics)
    rng = np.random.default_rng(3)
    x, y, whose = [], [], []
    for index, topic in enumerate(topics):
        raw = " ".join(pydoc_data.topics.topics[topic].lower().split())
        line = np.array([codes[letter] for letter in raw if letter in codes])
        starts = np.sort(rng.permutation(max(0, len(line) - CONTEXT))[:150])
        for start in starts.tolist():
            x.append(line[start : start + CONTEXT])
            y.append(line[start + CONTEXT])
            whose.append(index % PEOPLE)
    held = np.arange(len(y)) % 10 == 9
    xs, ys, writers = np.array(x, np.int64), np.array(y, np.int64), np.array(whose, np.int64)
    return (xs[~held], ys[~held], writers[~held]), (xs[held], ys[held])


def text_training() -> Writers:
    """All devices' windows: x int64 (n, 12), y int64 (n,), whose int64 (n,)."""
    return _pages()[0]


def text() -> Task:
    """The next letter from twelve: an embedding and two linear layers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Embedding(len(LETTERS), 12),
            nn.Flatten(),
            nn.Linear(12 * CONTEXT, 64),
            nn.ReLU(),
            nn.Linear(64, len(LETTERS)),
        )
    x, y, _ = text_training()
    return Task(
        model,
        cross_entropy,
        x[:16],
        y[:16],
        name="text",
        metrics={"accuracy": correct},
        held_out=lambda: _pages()[1],
        labels=tuple(LETTERS),
    )
