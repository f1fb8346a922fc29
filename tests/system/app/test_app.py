"""The demo app as a person uses it: its real window, the real SDK with its native engine, a real coordinator."""

from __future__ import annotations

import json
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mobile_sdk.invite import Invite
from tests.system.conftest import Site

from .conftest import Phone
from .digits import STROKES

PATIENCE = 120.0
ENDLESS = "[merge]\nbuffer = 1\n[stop]\nversions = 100000\n"


def link(site: Site) -> str:
    return str(Invite(site.url, "digits", site.key))


@pytest.fixture
def phone(display: Any, tmp_path: Path) -> Iterator[Any]:
    """A phone on which the app was opened for the first time."""
    phone = Phone(display, tmp_path / "phone")
    yield phone
    phone.close()


def join(phone: Any, site: Site) -> None:
    phone.type("ftte://join?...", link(site))
    phone.tap("Join")


def told(phone: Any, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait for a status of the trainer that is ``done``; until it has told one, the app keeps the one before."""
    deadline = time.monotonic() + PATIENCE
    while not done(status := phone.status()):
        assert status["phase"] != "failed", status["reason"]
        assert time.monotonic() < deadline, status
        phone.next_status()
    return status


def trained(phone: Any, updates: int) -> dict[str, Any]:
    """Wait until so many updates are merged; the status then."""
    phone.tap_nav("Train")
    return told(phone, lambda status: status["merged"] >= updates)


def wait_for_versions(site: Site, version: int) -> None:
    """Until the coordinator has it in its database."""
    deadline = time.monotonic() + PATIENCE
    while site.query("SELECT max(version) FROM versions")[0][0] < version:
        assert time.monotonic() < deadline, "the phone's updates stopped"
        time.sleep(0.05)  # another process's database: there is nothing to await


def test_from_an_invitation_to_a_merged_version_and_a_corrected_drawing(phone: Any, site: Site) -> None:
    site.serve(ENDLESS)
    phone.shot("1-join")
    join(phone, site)
    site.device("phone-2", 0)
    site.device("phone-3", 1)
    status = trained(phone, updates=3)
    deadline = time.monotonic() + PATIENCE
    while not status["accuracies"] or status["accuracies"][-1][1] < 0.93:  # it knows a digit when it sees one
        assert time.monotonic() < deadline, "the model does not learn"
        status = trained(phone, updates=status["merged"] + 1)
    assert status["layers"], "the phone was not told what it trains"
    assert 0 < sum(layer["trained"] for layer in status["layers"]) <= sum(layer["size"] for layer in status["layers"])
    assert status["staleness"] >= 0
    assert 0 < status["weight"] <= 1
    assert status["bytes_up"] > 0
    assert status["accuracies"]
    assert 0 < status["memory_peak"] <= status["plan_budget"] + 1_000_000
    phone.wait("MB that its plan may take", part=True)
    phone.wait("Pause")
    phone.shot("2-train")

    phone.tap_nav("Join")
    phone.wait("3 devices take part now", part=True)

    phone.tap_nav("Draw")
    phone.draw(STROKES[1])
    guess = phone.wait("I see a", part=True)
    assert guess[-1] in "0123456789"
    phone.wait("sure", part=True)
    phone.shot("3-draw")
    before = phone.status()["samples"]
    phone.tap("1")
    phone.wait("Drawings kept on this phone: 1")
    assert phone.status()["samples"] == before + 1
    phone.shot("4-corrected")

    phone.tap_nav("About")
    assert "ExecuTorch" in phone.texts()
    phone.shot("5-about")


def test_a_paused_phone_trains_nothing_until_it_goes_on(phone: Any, site: Site) -> None:
    site.serve(ENDLESS)
    join(phone, site)
    trained(phone, updates=1)
    phone.tap("Pause")
    phone.wait("Paused")
    phone.shot("6-paused")
    updates = phone.status()["updates"]
    phone.tap_nav("Draw")  # drawing goes on
    phone.draw(STROKES[7])
    phone.wait("I see a", part=True)
    phone.tap_nav("Train")
    assert phone.status()["updates"] == updates
    assert phone.status()["phase"] == "paused"
    phone.kill_trainer(signal.SIGKILL)  # as the system does, and at the phone's next start
    phone.wait("The training service is not running.")
    phone.tap("Start it")
    phone.wait("The training service is not running.", gone=True)
    phone.wait("Paused")
    told(phone, lambda status: (status["phase"], status["updates"]) == ("paused", 0))
    phone.tap("Resume")
    assert trained(phone, updates=1)["phase"] != "paused"


def test_switches_hold_training_back_for_as_long_as_they_are_on(display: Any, tmp_path: Path, site: Site) -> None:
    conditions = tmp_path / "conditions.json"
    conditions.write_text(json.dumps({"charging": False, "battery": 0.2, "unmetered": False}))
    site.serve(ENDLESS)
    phone = Phone(display, tmp_path / "phone", environment={"FTTE_DEMO_CONDITIONS": str(conditions)})
    try:
        join(phone, site)
        merged = trained(phone, updates=1)["merged"]
        for switch, reason in {
            "while charging": "the device is not charging",
            "on Wi-Fi": "the network is metered, or there is none",
            "above 30 % battery": "the battery is at 20%, not above 30%",
        }.items():
            phone.tap(switch)
            phone.wait(reason)
            assert phone.status()["phase"] == "paused"
            phone.tap(switch)
        trained(phone, updates=merged + 1)
    finally:
        phone.close()


def test_the_network_goes_away_and_comes_back(phone: Any, site: Site) -> None:
    coordinator = site.serve(ENDLESS)
    join(phone, site)
    before = trained(phone, updates=1)
    coordinator.kill()
    phone.wait("Connecting", seconds=60)
    phone.shot("7-disconnected")
    phone.tap_nav("Draw")  # the model is here: it needs no network
    phone.draw(STROKES[0])
    phone.wait("I see a", part=True)
    site.serve(ENDLESS)
    trained(phone, updates=before["merged"] + 1)


def test_a_wrong_token_is_said_in_words(phone: Any, site: Site) -> None:
    site.serve(ENDLESS, server='token = "the-right-one"\n')
    phone.type("ftte://join?...", str(Invite(site.url, "digits", site.key, token="a-wrong-one")))
    phone.tap("Join")
    phone.wait("Stopped")
    text = " ".join(phone.texts())
    assert "token" in text
    assert "[enrolment]" not in text, "codes are for programs"
    assert "a-wrong-one" not in text
    phone.shot("8-wrong-token")
    # It can be put right without leaving the screen.
    phone.tap("Leave this run")
    phone.wait("Join")
    phone.type("ftte://join?...", str(Invite(site.url, "digits", site.key, token="the-right-one")))
    phone.tap("Join")
    trained(phone, updates=1)


@pytest.mark.parametrize("text", ["https://example.org", "ftte://join?url=ws://127.0.0.1:1", "ftte://join"])
def test_what_is_no_invitation_is_refused_in_one_sentence(phone: Any, text: str) -> None:
    phone.type("ftte://join?...", text)
    phone.tap("Join")
    phone.wait("link", part=True)
    assert not phone.status()["joined"]
    assert (phone.folder / "joined.json").exists() is False


def test_the_run_ends_while_the_app_is_open(phone: Any, site: Site) -> None:
    site.serve("[merge]\nbuffer = 1\n[stop]\nversions = 3\n")
    join(phone, site)
    phone.tap_nav("Train")
    phone.wait("The run has ended")
    phone.shot("9-ended")


def test_training_goes_on_when_the_app_is_swiped_away(display: Any, tmp_path: Path, site: Site) -> None:
    site.serve(ENDLESS)
    first = Phone(display, tmp_path / "phone")
    join(first, site)
    merged = trained(first, updates=1)["merged"]
    trainer = first.trainer()
    first.kill()
    wait_for_versions(site, merged + 3)
    again = Phone(display, tmp_path / "phone")
    try:
        assert again.trainer() == trainer, "a second trainer was started"
        status = again.next_status()
        assert status["joined"]
        assert status["merged"] > merged
    finally:
        again.stop_trainer()
        again.close()


def test_a_killed_trainer_joins_again_by_itself(display: Any, tmp_path: Path, site: Site) -> None:
    """As the system kills and restarts a service."""
    site.serve(ENDLESS)
    phone = Phone(display, tmp_path / "phone")
    try:
        join(phone, site)
        trained(phone, updates=1)
        phone.kill_trainer(signal.SIGKILL)
        phone.wait("The training service is not running.")
        phone.tap("Start it")
        phone.wait("The training service is not running.", gone=True)
        trained(phone, updates=1)
    finally:
        phone.close()


@pytest.mark.parametrize(
    ("window", "text"), [("320x568", "A++"), ("568x320", "A"), ("360x720", "A"), ("800x480", "A++")]
)
def test_every_screen_fits_its_window_with_large_targets(display: Any, tmp_path: Path, window: Any, text: str) -> None:
    phone = Phone(display, tmp_path / "phone", window=window)
    try:
        width = int(window.split("x")[0])
        phone.tap_nav("About")
        phone.tap(text)
        for screen in ("Join", "Train", "Draw", "About"):
            phone.tap_nav(screen)
            for name, across, high, right in phone.targets():
                assert across >= 44, (screen, name, across)
                assert high >= 44, (screen, name, high)
                assert right <= width + 0.5, (screen, name, right)
    finally:
        phone.close()


def test_settings_are_kept(display: Any, tmp_path: Path) -> None:
    phone = Phone(display, tmp_path / "phone")
    phone.tap_nav("About")
    phone.tap("Español")
    phone.wait("Qué sale del teléfono")
    phone.tap("Colores oscuros")
    phone.close()
    again = Phone(display, tmp_path / "phone")
    try:
        again.wait("Aprender juntos")
        again.shot("10-spanish-dark")
        assert json.loads((again.folder / "settings.json").read_text())["dark"] is True
    finally:
        again.close()


def test_an_opened_link_fills_the_form_for_the_user_to_confirm(display: Any, tmp_path: Path, site: Site) -> None:
    site.serve(ENDLESS)
    phone = Phone(display, tmp_path / "phone", link(site))
    try:
        phone.wait("Learn together")
        assert not phone.next_status()["joined"]
        phone.tap("Join")
        phone.wait("digits as", part=True)
    finally:
        phone.close()


def test_in_the_demo_it_joins_by_itself(display: Any, tmp_path: Path, site: Site) -> None:
    site.serve(ENDLESS)
    phone = Phone(display, tmp_path / "phone", link(site), environment={"FTTE_DEMO_JOIN": "1"})
    try:
        phone.wait("digits as", part=True)
    finally:
        phone.close()


def test_a_link_that_is_opened_while_the_app_runs_fills_the_form(phone: Any, site: Site) -> None:
    """Android tells of it in its own thread, where Kivy refuses to change what is drawn."""
    site.serve(ENDLESS)
    phone.tap_nav("About")
    phone.open_link(link(site))
    phone.wait("Join")
    assert phone.field("ftte://join?...") == link(site)
    phone.tap("Join")
    trained(phone, updates=1)


@pytest.mark.full
def test_frames_stay_smooth_while_it_trains_and_memory_stays_level(phone: Any, site: Site) -> None:
    """Over 200 versions; the median and the 95th percentile are printed."""
    server = site.serve(ENDLESS)
    for thread in Path(f"/proc/{server.pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), 19)  # a coordinator does not run on the phone
    join(phone, site)
    trained(phone, updates=20)
    phone.frames()
    memory = phone.memory()
    trained(phone, updates=220)
    frames = phone.frames()
    p95 = statistics.quantiles(frames, n=20)[-1]
    print(f"frames {len(frames)}: median {statistics.median(frames) * 1e3:.1f} ms, p95 {p95 * 1e3:.1f} ms")
    growth = phone.memory() / memory - 1
    print(f"memory of the app {memory / 1e6:.1f} MB, grew by {growth:.1%}")
    assert growth <= 0.05


SIZES = [(320, 480), (480, 320), (360, 640), (640, 360), (800, 1280), (1280, 800), (360, 640), (320, 480)]


@pytest.mark.parametrize(
    "dark", [pytest.param(False, id="light"), pytest.param(True, id="dark", marks=pytest.mark.full)]
)
def test_every_rotation_and_size_looks_as_if_the_app_had_started_so(display: Any, tmp_path: Path, dark: Any) -> None:
    """From the smallest window to a tablet's and back, with every text size: the navigation keeps its place."""
    phone = Phone(display, tmp_path / "phone", window="320x480")
    try:
        phone.tap_nav("About")
        if dark:
            phone.tap("Dark colours")
        for text in ("A", "A+", "A++"):
            phone.tap_nav("About")
            phone.tap(text)
            for width, height in SIZES:
                phone.resize(width, height)
                items = [target for target in phone.targets() if target[0] in ("Join", "Train", "Draw", "About")]
                assert len(items) >= 4, items
                across = {round(target[1]) for target in items[-4:]}
                high = {round(target[2]) for target in items[-4:]}
                if width > height:
                    assert across == {84}, (width, height, text, across)
                    assert abs(sum(target[2] for target in items[-4:]) - height) < 4
                else:
                    assert high == {64}, (width, height, text, high)
                    assert abs(sum(target[1] for target in items[-4:]) - width) < 4
                for screen in ("Join", "Train", "Draw", "About"):
                    phone.tap_nav(screen)
                    for name, _, _, right in phone.targets():
                        assert right <= width + 0.5, (width, height, text, screen, name, right)
                if text == "A" and (width, height) in ((360, 640), (640, 360), (800, 1280)):
                    phone.tap_nav("Train")
                    phone.shot(f"rotated-{width}x{height}-{'dark' if dark else 'light'}")
                    phone.tap_nav("About")
    finally:
        phone.close()
