"""How samples are spread, and what fleets are drawn."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from coordinator.errors import ConfigError
from coordinator.simulation.world.fleet import DAY, Delay, draw_fleet
from coordinator.simulation.world.scenario import DataSection, StragglerSection, parse_scenario
from coordinator.simulation.world.split import split

DIGITS = tomllib.loads((Path(__file__).parents[3] / "scenarios" / "digits.toml").read_text())
LABELS = np.repeat(np.arange(10), 100)
NOBODY = [False] * 20


def dealt(section: DataSection, stragglers: list[bool] = NOBODY, seed: int = 0) -> list[np.ndarray]:
    return split(section, LABELS, None, stragglers, np.random.default_rng(seed))


@pytest.mark.parametrize("how", ["dirichlet", "by-class", "even"])
def test_no_sample_is_in_two_places(how: str) -> None:
    """Every split deals the same number to each device, without overlap, and follows its seed."""
    section = DataSection.model_validate({"source": "a:b", "split": how, "samples": 40})
    hands = dealt(section)
    assert [len(hand) for hand in hands] == [40] * 20
    assert len(np.unique(np.concatenate(hands))) == 800
    assert all((a == b).all() for a, b in zip(hands, dealt(section), strict=True))
    assert any((a != b).any() for a, b in zip(hands, dealt(section, seed=1), strict=True))


def test_a_smaller_alpha_differs_more() -> None:
    """The largest class of a device has more of it."""

    def largest(alpha: float) -> float:
        hands = dealt(DataSection(source="a:b", alpha=alpha, samples=20))
        return float(np.mean([np.bincount(LABELS[hand]).max() / len(hand) for hand in hands]))

    assert largest(0.1) > largest(1.0) > largest(100.0)


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("samples", [10, None])
def test_by_class_gives_no_other_classes(classes: int, samples: int | None) -> None:
    """Not even where all samples are dealt; each class is on as many devices, and no sample is left then."""
    hands = dealt(DataSection(source="a:b", split="by-class", classes=classes, samples=samples))
    held = [set(LABELS[hand]) for hand in hands]
    assert max(map(len, held)) == classes
    holders = [sum(label in own for own in held) for label in range(10)]
    assert set(holders) == {2 * classes} if samples is None else min(holders) >= 1
    if samples is None and classes == 1:
        assert [len(hand) for hand in hands] == [50] * 20


def test_a_device_without_a_sample_of_its_classes_is_refused() -> None:
    """With its number, its classes, and what to change."""
    few = np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
    section = DataSection(source="a:b", split="by-class", classes=1, samples=2)
    with pytest.raises(ConfigError, match=r"nothing is left for device \d, which may have the classes \[1\] alone"):
        split(section, few, None, [False] * 4, np.random.default_rng(0))


@pytest.mark.parametrize("how", ["dirichlet", "by-class", "even"])
@pytest.mark.parametrize("samples", [20, None])
def test_classes_that_only_stragglers_have(how: str, samples: int | None) -> None:
    """Nobody else gets a sample of them, even where every sample is dealt."""
    late = [index < 10 for index in range(20)]
    section = {"source": "a:b", "split": how, "alpha": 1.0, "samples": samples, "straggler_classes": (8, 9)}
    hands = dealt(DataSection.model_validate(section), late)
    held = [set(LABELS[hand]) & {8, 9} for hand in hands]
    assert any(held[:10])
    assert not any(held[10:])


def test_writers_stay_together() -> None:
    """All of a writer's samples are on one device."""
    writers = np.arange(1000) % 40
    hands = split(DataSection(source="a:b", split="by-writer"), LABELS, writers, NOBODY, np.random.default_rng(0))
    owners = [set(writers[hand]) for hand in hands]
    assert sum(len(owner) for owner in owners) == 40
    assert sum(len(hand) for hand in hands) == 1000


def test_more_samples_than_there_are_is_refused() -> None:
    """With the numbers."""
    with pytest.raises(ConfigError, match="20 devices with 51 samples each need more than the 1000"):
        dealt(DataSection(source="a:b", samples=51))


def test_classes_and_stragglers_get_their_shares() -> None:
    """Three phones for each watch, a quarter of all late."""
    fleet = draw_fleet(parse_scenario(DIGITS, Path()), np.random.default_rng(0))
    assert sum(profile.kind == "watch" for profile in fleet) == 4
    assert sum(profile.straggler for profile in fleet) == 4
    assert len({profile.name for profile in fleet}) == 16


@pytest.mark.parametrize(
    ("window", "hour", "inside", "left"),
    [
        ([8, 20], 9, True, 11),
        ([8, 20], 21, False, 11),
        ([22, 6], 23, True, 7),
        ([22, 6], 5, True, 1),
        ([22, 6], 12, False, 10),
    ],
)
def test_apps_run_within_their_hours(window: list[int], hour: int, inside: bool, left: int) -> None:
    """Windows may pass midnight; what comes next is known to the second."""
    data = DIGITS | {"devices": {"phone": {"memory": "5MB", "online": [window]}}}
    profile = draw_fleet(parse_scenario(data, Path()), np.random.default_rng(0))[0]
    assert profile.online(40 * DAY + 3600 * hour) == (inside, 3600 * left)


@pytest.mark.parametrize("law", ["constant", "half-normal", "pareto"])
def test_delays_have_the_mean_that_the_scenario_says(law: str) -> None:
    """Ten times as long, on average, whatever the law."""
    delay = Delay(StragglerSection.model_validate({"law": law, "slowdown": 10, "tail": 3.0}))
    rng = np.random.default_rng(0)
    assert np.mean([delay.factor(rng) for _ in range(20_000)]) == pytest.approx(10, rel=0.03)


def test_delays_of_a_trace(tmp_path: Path) -> None:
    """Its numbers over their mean."""
    (tmp_path / "trace.txt").write_text("1\n3\n")
    delay = Delay(StragglerSection(law="trace", slowdown=10, trace=tmp_path / "trace.txt"))
    rng = np.random.default_rng(0)
    assert {delay.factor(rng) for _ in range(50)} == {5.0, 15.0}
    (tmp_path / "trace.txt").write_text("1\n-3\n")
    with pytest.raises(ConfigError, match="positive numbers"):
        Delay(StragglerSection(law="trace", trace=tmp_path / "trace.txt"))


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("simulation", {"devices": 0}, "simulation.devices"),
        ("stragglers", {"law": "trace"}, "give both or neither"),
        ("devices", {"phone": {"memory": "5MB", "online": [[3, 3]]}}, "which is empty"),
        ("devices", {"phone": {"memory": "5MB", "trip_seconds": float("inf")}}, "devices.phone.trip_seconds"),
        ("merge", {"bufer": 3}, "merge.bufer"),
    ],
)
def test_mistakes_are_named(section: str, values: dict[str, object], words: str) -> None:
    """In the world as in the run file."""
    data = DIGITS | {section: DIGITS.get(section, {}) | values}
    with pytest.raises(ConfigError, match=words):
        parse_scenario(data, Path())
