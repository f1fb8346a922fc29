"""Whose samples are where: the training samples of a task, spread over a fleet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError
from .scenario import DataSection

__all__ = ["split"]

Indices = npt.NDArray[np.int64]


def split(
    section: DataSection,
    labels: npt.NDArray[np.int64],
    writers: npt.NDArray[np.int64] | None,
    stragglers: Sequence[bool],
    rng: np.random.Generator,
) -> list[Indices]:
    """
    Which samples each device has; no sample is in two places.

    Args:
        section: how to split.
        labels: the class of each sample, shape ``(n,)``.
        writers: who wrote each sample, shape ``(n,)``; for ``by-writer``.
        stragglers: per device, whether it is one.
        rng: fixes the draw.

    Returns:
        Sorted indices of samples, one array per device, none empty. A device whose classes have too few samples has
        fewer than the others.

    Raises:
        ConfigError: if there are too few samples, or the labels do not fit the split.

    """
    devices = len(stragglers)
    if section.split == "by-writer":
        return _by_writer(section, writers, devices, rng)
    if labels.ndim != 1:
        raise ConfigError(f"data.split = {section.split!r} needs one class per sample, not labels of {labels.shape}")
    each = section.samples or len(labels) // devices
    if each < 1 or each * devices > len(labels):
        raise ConfigError(
            f"{devices} devices with {each or 1} samples each need more than the {len(labels)} samples of data.source"
        )
    shares = _proportions(section, labels, stragglers, rng)
    hands = _by_proportions(shares, labels, each, rng)
    for device, hand in enumerate(hands):
        if not len(hand):
            raise ConfigError(
                f"nothing is left for device {device}, which may have the classes "
                f"{np.flatnonzero(shares[device]).tolist()} alone; give devices fewer samples (data.samples) or "
                "let there be fewer of them (simulation.devices)"
            )
    return hands


def _proportions(
    section: DataSection, labels: npt.NDArray[np.int64], stragglers: Sequence[bool], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """What fraction of a device's samples is of which class, shape (devices, classes); 0: it must have none of that."""
    devices, classes = len(stragglers), int(labels.max()) + 1
    allowed = np.ones((devices, classes), bool)
    for label in section.straggler_classes:
        if not 0 <= label < classes:
            raise ConfigError(f"data.straggler_classes has {label}; classes are 0 to {classes - 1}")
        allowed[~np.array(stragglers, bool), label] = False
    match section.split:
        case "dirichlet":
            shares = rng.dirichlet(np.full(classes, section.alpha), devices)
        case "by-class":
            if section.classes > classes:
                raise ConfigError(f"data.classes is {section.classes}, but there are {classes} classes")
            shares = _few_classes(allowed, section.classes, rng)
            allowed &= shares > 0
        case _:
            shares = np.tile(np.bincount(labels, minlength=classes) / len(labels), (devices, 1))
    shares = np.where(allowed, shares + 1e-9, 0.0)  # whose favourites are used up has others that it may have
    normalised: npt.NDArray[np.float64] = shares / shares.sum(axis=1, keepdims=True)
    return normalised


def _few_classes(allowed: npt.NDArray[np.bool_], count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Ones for ``count`` allowed classes of each device, shape (devices, classes); each class has about as many."""
    shares = np.zeros(allowed.shape)
    holders = np.zeros(allowed.shape[1])
    for own, may_have in zip(shares, allowed, strict=True):
        labels = rng.permutation(np.flatnonzero(may_have))
        rarest = labels[np.argsort(holders[labels], kind="stable")][:count]
        own[rarest] = 1.0
        holders[rarest] += 1
    return shares


def _by_proportions(
    shares: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], each: int, rng: np.random.Generator
) -> list[Indices]:
    """Deal samples out, one to each device in turn, of a class drawn by its shares among those that are left."""
    classes = shares.shape[1]
    piles = [list(rng.permutation(np.flatnonzero(labels == label))) for label in range(classes)]
    left = np.array([len(pile) for pile in piles])
    hands: list[list[int]] = [[] for _ in shares]
    for _ in range(each):
        for device in rng.permutation(len(shares)):
            chances = shares[device] * (left > 0)
            if not chances.any():
                continue
            label = int(np.searchsorted(np.cumsum(chances), rng.random() * chances.sum(), side="right"))
            label = min(label, classes - 1)
            if chances[label] == 0:  # rounding at the upper end
                label = int(np.flatnonzero(chances)[-1])
            hands[device].append(int(piles[label].pop()))
            left[label] -= 1
    return [np.sort(np.array(hand, np.int64)) for hand in hands]


def _by_writer(
    section: DataSection, writers: npt.NDArray[np.int64] | None, devices: int, rng: np.random.Generator
) -> list[Indices]:
    if writers is None:
        raise ConfigError('data.split = "by-writer" needs a data.source that gives (x, y, writer)')
    names = rng.permutation(np.unique(writers))
    if len(names) < devices:
        raise ConfigError(f"{devices} devices need as many writers; data.source has {len(names)}")
    owner = {int(name): index % devices for index, name in enumerate(names)}
    owners = np.array([owner[int(writer)] for writer in writers])
    hands = [np.flatnonzero(owners == device) for device in range(devices)]
    if section.samples is not None:
        hands = [np.sort(rng.permutation(hand)[: section.samples]) for hand in hands]
    return hands
