"""The parts of the demo app that need no window."""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.zoo import digits_data

from .digits import STROKES

DEMO = Path(__file__).resolve().parents[3] / "android_demo"
if str(DEMO) not in sys.path:
    sys.path.insert(0, str(DEMO))

from ftte_demo.rest import REASONS, Rest  # noqa: E402
from ftte_demo.sizes import megabytes, percent  # noqa: E402
from ftte_demo.status import Layer, Phase, Status  # noqa: E402
from ftte_demo.theme import DARK, LIGHT  # noqa: E402
from ftte_demo.trainer import joined  # noqa: E402
from ftte_demo.trainer.limit import DAY_SECONDS, DailyLimit  # noqa: E402
from ftte_demo.trainer.memory import Gauge  # noqa: E402
from ftte_demo.trainer.pixels import picture  # noqa: E402
from ftte_demo.trainer.progress import apply  # noqa: E402
from ftte_demo.trainer.progress import given as given_to  # noqa: E402
from ftte_demo.trainer.samples import Samples, starter  # noqa: E402
from ftte_demo.trainer.when import When  # noqa: E402
from ftte_demo.words import LANGUAGES, chosen, without_code, words  # noqa: E402

from mobile_sdk.events import Announced, Connected, Personal, RunFinished  # noqa: E402
from mobile_sdk.invite import Invite  # noqa: E402
from mobile_sdk.layout import Layout, Parameter, Slice, Subset  # noqa: E402

coordinates = st.floats(-1000, 1000, allow_nan=False).map(lambda v: round(v, 3))
strokes = st.lists(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=20), min_size=1, max_size=4)


@given(strokes, st.floats(0.01, 100), coordinates, coordinates)
def test_a_drawing_is_the_same_picture_wherever_and_however_large_it_is_drawn(
    drawn: Any, scale: Any, dx: Any, dy: Any
) -> None:
    points = np.array([point for stroke in drawn for point in stroke])
    moved = [[(x * scale + dx, y * scale + dy) for x, y in stroke] for stroke in drawn]
    first, second = picture(drawn), picture(moved)
    assert first.shape == (1, 8, 8)
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() <= 1
    if np.ptp(points, axis=0).max() > 1:
        # One pixel in a hundred thousand lies where rounding decides.
        assert np.abs(first - second).sum() <= 1 / 16


@pytest.mark.parametrize("bad", [[], [[]], [[(0.0, float("nan"))]], [[(1.0,)]]])
def test_what_is_no_drawing_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="strokes"):
        picture(bad)


def test_drawn_digits_look_like_those_of_the_task() -> None:
    """Of the 1437 digits of the task, the nearest to each drawing is of its class."""
    x, y = digits_data.load()[0]
    for label, drawn in STROKES.items():
        distances = np.linalg.norm((x - picture(drawn)).reshape(len(x), -1), axis=1)
        nearest = y[np.argsort(distances)[:5]]
        assert np.bincount(nearest, minlength=10).argmax() == label, (label, nearest)


def test_phones_begin_with_different_digits_and_none_of_the_held_out() -> None:
    a, b = starter(1), starter(2)
    assert a[0].shape == b[0].shape == (160, 1, 8, 8)
    assert not np.array_equal(a[0], b[0])
    assert np.bincount(a[1], minlength=10).tolist() != np.bincount(b[1], minlength=10).tolist()
    held_out = {row.tobytes() for row in digits_data.held_out()[0]}
    trained = {row.tobytes() for row in digits_data.load()[0][0]}
    assert all(row.tobytes() in trained for row in a[0])
    assert sum(row.tobytes() in held_out for row in a[0]) == sum(row.tobytes() in held_out & trained for row in a[0])


def test_a_drawing_stays_over_a_restart(tmp_path: Path) -> None:
    samples = Samples(tmp_path / "samples", 3)
    begun = len(samples)
    samples.keep(picture(STROKES[4]), 4)
    samples.close()
    again = Samples(tmp_path / "samples", 3)
    assert (len(again), again.drawn) == (begun + 1, 1)
    again.close()


def test_every_language_has_every_word_with_the_same_gaps() -> None:
    english = words("en")
    for language in LANGUAGES:
        other = words(language)
        assert other.keys() == english.keys()
        for key, text in other.items():
            gaps = {part.split("}")[0] for part in text.split("{")[1:]}
            assert gaps == {part.split("}")[0] for part in english[key].split("{")[1:]}, key


def _luminance(colour: Any) -> Any:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        ("ink", "ground"),
        ("ink", "surface"),
        ("ink", "raised"),
        ("muted", "surface"),
        ("on_accent", "accent"),
        ("on_danger", "danger"),
        ("lit", "surface"),
        ("danger", "surface"),
    ],
)
def test_text_can_be_read_on_its_ground(theme: Any, text: str, ground: Any) -> None:
    """WCAG AA: a contrast of at least 4.5 to 1; 3 to 1 for what is large or coloured."""
    a, b = sorted((_luminance(theme[text]), _luminance(theme[ground])), reverse=True)
    assert (a + 0.05) / (b + 0.05) >= (4.5 if text in ("ink", "muted", "on_accent", "on_danger") else 3.0)


def test_a_status_survives_the_line_to_the_screens() -> None:
    status = Status(
        joined=True, layers=[Layer("0", 10, 5)], accuracies=[(3, 0.5)], download=(1, 2), losses=[0.25], weight=0.5
    )
    again = Status.from_json(json.loads(status.to_json()) | {"of_a_newer_trainer": 1})
    assert again == status
    assert again.trained_share == 0.5


def test_sizes_are_short() -> None:
    assert [megabytes(n) for n in (0, 999, 35_000, 1_700_000)] == ["0.0\xa0KB", "1.0\xa0KB", "35.0\xa0KB", "1.7\xa0MB"]
    assert [percent(p) for p in (0, 0.004, 0.5, 1)] == ["0\xa0%", "0.4\xa0%", "50\xa0%", "100\xa0%"]


def test_an_accepted_invitation_is_kept_for_this_app_alone(tmp_path: Path) -> None:
    path = tmp_path / "joined.json"
    value = joined.Joined(Invite("wss://example.org:8765", "digits", "ab" * 32, token="secret"), budget=2_000_000)
    joined.save(path, value)
    assert joined.load(path) == value
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("{")
    assert joined.load(path) is None


def test_two_phones_with_the_same_app_begin_with_different_digits(tmp_path: Path) -> None:
    """Folders have the same path on all phones: nothing of it may be the seed."""
    labels = []
    for phone in ("a", "b"):
        (tmp_path / phone).mkdir()
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import asyncio\n"
            "from ftte_demo.trainer.trainer import Trainer\n"
            "store = Trainer(Path('data/org.ftte.demo'))._samples.store\n"
            "import numpy; print(store.batch(numpy.arange(len(store)))[1].tolist())"
        )
        (tmp_path / phone / "data" / "org.ftte.demo").mkdir(parents=True)
        done = subprocess.run(
            [sys.executable, "-c", code, str(DEMO)], cwd=tmp_path / phone, capture_output=True, text=True, check=True
        )
        labels.append(json.loads(done.stdout))
    assert len(labels[0]) == len(labels[1]) == 160
    assert labels[0] != labels[1]


def test_a_phone_keeps_the_digits_that_it_began_with(tmp_path: Path) -> None:
    first = Samples(tmp_path / "samples")
    everything = np.arange(len(first))
    began = first.store.batch(everything)[0]
    first.close()
    again = Samples(tmp_path / "samples")
    assert np.array_equal(again.store.batch(everything)[0], began)
    again.close()


def test_service_time_is_counted_over_restarts_and_comes_back_after_a_day(tmp_path: Path) -> None:
    limit = DailyLimit(tmp_path / "time.json", limit=1000)
    limit.note(600, since=0)
    again = DailyLimit(tmp_path / "time.json", limit=1000)
    again.note(1100, since=800)
    assert again.used(1100) == 900
    assert again.left(1100) == 100
    assert again.left(1100 + DAY_SECONDS - 500) == 700
    assert 0 < again.free_again(1100, wanted=600) <= DAY_SECONDS


def test_bringing_the_app_to_the_front_begins_the_days_limit_anew(tmp_path: Path) -> None:
    limit = DailyLimit(tmp_path / "time.json", limit=1000)
    limit.note(900, since=0)
    limit.reset()
    assert limit.left(900) == 1000
    assert DailyLimit(tmp_path / "time.json", limit=1000).left(900) == 1000


def test_a_phones_switches_are_careful_until_something_is_chosen(tmp_path: Path) -> None:
    assert When(tmp_path).on == {"charging": True, "wifi": True, "battery": False}
    policy = When(tmp_path).policy()
    assert (policy.charging, policy.unmetered, policy.battery_above) == (True, True, 0.0)
    assert policy.patience_seconds is not None, "a phone that waits with an open connection keeps its radio awake"


def test_switches_become_the_policy_of_the_sdk_and_stay(tmp_path: Path) -> None:
    when = When(tmp_path, phone=False)
    assert not any(when.on.values())
    for name in when.on:
        when.switch(name, True)
    policy = When(tmp_path).policy()
    assert (policy.charging, policy.unmetered, policy.battery_above) == (True, True, 0.3)
    with pytest.raises(ValueError, match="there is no switch 'moon'"):
        when.switch("moon", True)


def test_a_pause_is_kept_beside_the_switches(tmp_path: Path) -> None:
    when = When(tmp_path)
    assert not when.paused
    when.pause(True)
    when.switch("battery", True)
    again = When(tmp_path)
    assert again.paused
    assert again.on == {"charging": True, "wifi": True, "battery": True}
    again.pause(False)
    assert not When(tmp_path).paused


def test_why_no_trainer_is_at_work_is_said_in_every_language(tmp_path: Path) -> None:
    rest = Rest(tmp_path)
    assert rest.read() == ""
    for why in REASONS:
        rest.write(why)
        assert Rest(tmp_path).read() == why
        for language in LANGUAGES:
            assert words(language)[f"rest_{why}"]
    rest.clear()
    assert rest.read() == ""
    (tmp_path / "rest.json").write_text('{"why": "of a newer app"}')
    assert rest.read() == ""


def test_the_language_is_that_of_the_settings_and_else_the_systems(tmp_path: Path) -> None:
    assert chosen(tmp_path, "es") == "es"
    assert chosen(tmp_path, "de") == "en"
    (tmp_path / "settings.json").write_text(json.dumps({"language": "en"}))
    assert chosen(tmp_path, "es") == "en"
    (tmp_path / "settings.json").write_text("{")
    assert chosen(tmp_path, "es") == "es"


def test_what_a_phone_keeps_to_itself_is_told_apart_from_what_it_shares() -> None:
    layout = Layout([Parameter("0.weight", (2, 3)), Parameter("0.bias", (2,)), Parameter("1.weight", (4,))])
    subset = Subset(layout, {"0.weight": Slice(1, (0, 2))})
    manifest: Any = types.SimpleNamespace(
        layout=layout,
        subset=subset,
        local=("1.weight",),
        memory=types.SimpleNamespace(measured_bytes=7, budget_bytes=9),
    )
    status = Status()
    given_to(manifest, status)
    assert status.layers == [Layer("0", 8, 4), Layer("1", 4, 4, local=True)]
    assert (status.program_needs, status.plan_budget) == (7, 9)
    apply(Personal(10, False, {"accuracy": 0.5}, {"accuracy": 0.75}), status)
    assert (status.global_accuracy, status.personal_accuracy) == (0.5, 0.75)


@pytest.mark.skipif(importlib.util.find_spec("kivy") is None, reason="needs kivy: pip install kivy")
def test_a_layer_is_lit_as_far_as_it_is_trained() -> None:
    from ftte_demo.widgets.model_picture import columns

    drawn = columns([Layer("0", 100, 0), Layer("1", 10_000, 5_000), Layer("2", 100, 100, local=True)])
    assert [lit for _, lit, _ in drawn] == [0, pytest.approx(drawn[1][0] / 2), 0]
    assert drawn[2][2] == drawn[2][0]
    assert drawn[1][0] == 1


@given(st.lists(st.tuples(st.integers(0, 100), st.floats(-5, 5)), min_size=1, max_size=30, unique_by=lambda p: p[0]))
def test_a_curve_stays_in_its_box(points: Any) -> None:
    if importlib.util.find_spec("kivy") is None:
        pytest.skip("needs kivy: pip install kivy")
    from ftte_demo.widgets.plot import scaled

    ordered = sorted(points)
    drawn = scaled(ordered, -1, 1, 200, 100)
    assert all(0 <= x <= 200 and 0 <= y <= 100 for x, y in drawn)
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)


def test_memory_counts_the_program_and_its_steps_alone() -> None:
    """What connecting took before, and what Python takes between two trainings, is no part of a budget."""
    now = 30_000_000
    gauge = Gauge(lambda: now)
    gauge.look()
    assert gauge.peak == 0, "nothing is loaded"
    engine: Any = object()
    assert gauge.load(Path(), lambda _: engine) is engine
    now = 32_000_000
    gauge.ready()
    now = 32_300_000
    gauge.look()
    now = 32_100_000
    gauge.look()
    assert gauge.peak == 2_300_000
    now = 36_000_000  # other things took 4 MB
    gauge.ready()
    now = 36_100_000
    gauge.look()
    gauge.ready()
    assert gauge.peak == 2_100_000
    gauge.load(Path(), lambda _: engine)  # another program
    assert gauge.peak == 0
    now = 37_000_000
    gauge.ready()
    gauge.look()
    assert gauge.peak == 900_000


def test_a_status_tells_of_the_fleet() -> None:
    status = Status()
    apply(Connected("phone", 3), status)
    assert (status.newest, status.devices) == (3, 0)
    apply(Announced(4, {}, 12), status)
    assert (status.newest, status.devices) == (4, 12)
    apply(RunFinished(9, "enough", {}), status)
    assert status.newest == 9


@pytest.mark.parametrize(
    ("phase", "reason", "shown"),
    [
        (Phase.DOWNLOADING, "", "working"),
        (Phase.TRAINING, "", "working"),
        (Phase.UPLOADING, "", "working"),
        (Phase.WAITING, "", "working"),
        (Phase.WAITING, "more devices are needed", Phase.WAITING),
        (Phase.PAUSED, "", Phase.PAUSED),
        (Phase.FAILED, "no", Phase.FAILED),
    ],
)
def test_the_headline_does_not_change_with_every_step_of_an_assignment(phase: str, reason: str, shown: str) -> None:
    status = Status(phase=phase, reason=reason)
    assert status.shown_phase == shown
    assert all(f"phase_{status.shown_phase}" in words(language) for language in LANGUAGES)


def test_codes_for_programs_are_not_shown_to_people() -> None:
    assert without_code("the token is used up [enrolment]") == "the token is used up"
    assert without_code("[a] stays, and [b] too") == "[a] stays, and [b] too"


needs_kivy = pytest.mark.skipif(importlib.util.find_spec("kivy") is None, reason="needs kivy: pip install kivy")


@needs_kivy
def test_a_plot_shows_what_batches_have_in_common() -> None:
    from ftte_demo.widgets.plot import smooth

    assert smooth([], 3) == []
    assert smooth([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]


@needs_kivy
@given(st.integers(0, 10_000), st.integers(200, 800), st.integers(60, 200))
def test_every_phone_of_the_picture_is_inside_it(devices: int, width: int, height: int) -> None:
    from ftte_demo.widgets.fleet_picture import MOST, places

    model, phones = places(devices, width, height)
    assert len(phones) == min(max(devices, 1), MOST)
    for x, y, across, tall in (model, *phones):
        assert x >= 0
        assert y >= 0
        assert x + across <= width
        assert y + tall <= height
    assert all(a[0] + a[2] <= b[0] for a, b in itertools.pairwise(phones)), "two phones overlap"


@needs_kivy
def test_the_memory_bar_is_red_only_where_a_budget_is_exceeded() -> None:
    from ftte_demo.screens.train import MEASURED_WITHIN, TrainPage

    page: Any = TrainPage
    ask = page.over_budget
    assert not ask(page, Status(memory_peak=9_000_000)), "before there is a plan nothing is wrong"
    assert not ask(page, Status(memory_peak=3_000_000, program_needs=2_200_000, plan_budget=4_000_000))
    assert not ask(page, Status(memory_peak=2_400_000, budget=2_000_000, plan_budget=4_000_000))
    assert ask(page, Status(memory_peak=2_000_001 + MEASURED_WITHIN, budget=2_000_000, plan_budget=4_000_000))
    assert page.memory_share(page, Status(memory_peak=1_000_000, plan_budget=4_000_000)) == 0.25
    assert page.memory_share(page, Status(memory_peak=1_000_000)) == 0.0


@needs_kivy
def test_who_is_not_in_is_not_told_to_be() -> None:
    from ftte_demo.screens.join import JoinPage

    page: Any = JoinPage
    spoken = words("en")
    refused = Status(joined=True, phase=Phase.FAILED, reason="the token is wrong [enrolment]")
    assert page.fleet(page, refused, spoken) == spoken["join_lead"]
    assert page.problem(page, refused, "") == "the token is wrong"
    assert page.fleet(page, Status(joined=True, newest=3), spoken) == spoken["fleet_unknown"]
    assert "No other device" in page.fleet(page, Status(joined=True, newest=3, devices=1), spoken)
    assert "4 devices take part now" in page.fleet(page, Status(joined=True, newest=3, devices=4), spoken)
