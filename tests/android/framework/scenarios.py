"""
What is tried on Android's real framework, each a function of the level; the app's own Python and Java take part.

They run on Android's main thread, which works only while a scenario waits. What the system server decides (background
starts, time-outs, restarts) is played by the doubles of ``tests/android/doubles`` instead.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import runpy
import shutil
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .build import DEMO

__all__ = ["SCENARIOS", "python_service"]

PATIENCE = 120.0
SCENARIOS: dict[str, Callable[[int], None]] = {}
# The invitation of a coordinator that runs beside; its run takes one update a version.
INVITATION = os.environ.get("FTTE_FRAMEWORK_INVITATION", "")

_ended = threading.Event()
_outcome: list[str] = []
_instead: list[Callable[[], None]] = []


def scenario(function: Callable[[int], None]) -> Callable[[int], None]:
    """Register it by its name."""
    SCENARIOS[function.__name__] = function
    return function


def python_service(entry: str, argument: str, app: str, private: str) -> None:
    """In the place of python-for-android's ``nativeStart``: run the service's file; it never returns, as there."""
    os.environ.update(PYTHON_SERVICE_ARGUMENT=argument, **phone_environment(app, private))
    try:
        if _instead:
            _instead.pop()()
        else:
            runpy.run_path(str(DEMO / entry), run_name="__main__")
        _outcome.append("returned")
    except SystemExit as end:
        _outcome.append(f"exit {end.code}")
    except BaseException:
        _outcome.append(traceback.format_exc())
    _ended.set()
    threading.Event().wait()  # the real one exits, and Java's code behind it never runs


def phone_environment(app: str, private: str) -> dict[str, str]:
    """As python-for-android's start sets it."""
    names = ("ANDROID_ARGUMENT", "ANDROID_APP_PATH")
    return dict.fromkeys(names, app) | {"ANDROID_PRIVATE": private, "P4A_BOOTSTRAP": "SDL2"}


def java(name: str) -> Any:
    """A class."""
    from jnius import autoclass

    return autoclass(name)


def kit() -> Any:
    """Robolectric's side."""
    return java("org.ftte.robo.Kit")


def wait(until: Callable[[], Any], what: str) -> Any:
    """Let the main thread work until something holds."""
    limit = time.monotonic() + PATIENCE
    while not (found := until()):
        kit().idle()
        if time.monotonic() > limit:
            raise AssertionError(f"{what} was awaited in vain; Python: {_outcome}; log: {log_text()[-3000:]}")
        time.sleep(0.02)  # Java's and Python's other threads: there is nothing to await
    return found


def folder() -> Path:
    """The app's private folder."""
    return Path(str(kit().app().getFilesDir().getAbsolutePath()))


def log_text() -> str:
    """What the trainer wrote."""
    path = folder() / "trainer.log"
    return path.read_text() if path.exists() else ""


def fresh(phone_ready: bool = True) -> Path:
    """A phone on which the app was just installed; charging and on Wi-Fi."""
    _ended.clear()
    _outcome.clear()
    for handler in list(logging.getLogger().handlers):
        logging.getLogger().removeHandler(handler)
    path = folder()
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    os.environ["FTTE_DEMO_ENGINE"] = "interpreted"
    kit().language("en")
    kit().battery(80, phone_ready)
    kit().metered(not phone_ready)
    return path


def joined(path: Path) -> None:
    """As after the user has joined the run of the coordinator that is beside."""
    from ftte_demo.trainer import joined as kept

    from mobile_sdk.invite import Invite

    kept.save(path / "joined.json", kept.Joined(Invite.parse(INVITATION)))


def intent() -> Any:
    """What the app starts the service with."""
    return java("org.ftte.demo.ServiceTrainer").getDefaultIntent(kit().app(), "", "FTTE", "Connecting", str(folder()))


def started() -> Any:
    """The service, started by the app."""
    made = kit().createService("org.ftte.demo.ServiceTrainer", intent())
    assert kit().command(made, intent()) == 2, "it must not be sticky"
    return made


class Screen:
    """The app's end of the line to the trainer."""

    def __init__(self, path: Path) -> None:
        self._path = str(path / "trainer.sock")
        self._socket = socket.socket(socket.AF_UNIX)
        wait(self._connected, "the trainer's socket")
        self._socket.settimeout(0.05)
        self._unread = b""
        self.status: dict[str, Any] = {}

    def _connected(self) -> bool:
        """False while the file is missing, and between the moment it is there and the trainer's listening."""
        try:
            self._socket.connect(self._path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        return True

    def say(self, message: dict[str, Any]) -> None:
        """A line."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def until(self, what: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Read statuses until one is right."""
        wait(lambda: self._read() and holds(self.status), f"a status with {what} (last: {self.status})")
        return self.status

    def _read(self) -> bool:
        with contextlib.suppress(TimeoutError):
            self._unread += self._socket.recv(1 << 16)
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message.get("is") == "status":
                self.status = message["status"]
        return bool(self.status)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


@contextlib.contextmanager
def screen(path: Path) -> Iterator[Screen]:
    """A screen that looks."""
    made = Screen(path)
    try:
        yield made
    finally:
        made.close()


def press_stop(service: Any) -> None:
    """As the user does, and as the system then does."""
    kit().command(service, kit().pressed(kit().notification(1), 0))


def ended_well(service: Any, why: str) -> None:
    """Python ended by itself, and so did the service."""
    wait(_ended.is_set, "the end of Python")
    assert _outcome == ["exit 0"], _outcome
    wait(lambda: kit().stopped(service), "stopSelf")
    assert json.loads((folder() / "rest.json").read_text())["why"] == why
    assert "Traceback" not in log_text(), log_text()
    kit().destroyService(service)


@scenario
def the_notification_has_its_button_and_the_button_ends_the_service(level: int) -> None:
    path = fresh()
    service = started()
    first = kit().describe(kit().foreground(service))
    assert "title=FTTE text=Connecting" in first, first
    assert kit().foregroundType(service) == (-1 if level < 29 else 1)
    shown = wait(
        lambda: text if "action[" in (text := kit().describe(kit().notification(1))) else "",
        "the trainer's notification",
    )
    assert "text=Not joined" in shown, shown
    assert "channel=org.ftte.demo.training" in shown
    assert "ongoing=true icon=true open=activity immutable org.kivy.android.PythonActivity" in shown
    assert "action[Stop the background service service immutable org.ftte.demo.ServiceTrainer]" in shown
    assert kit().channels() == "org.ftte.demo.training=2", kit().channels()
    assert kit().receivers() == 0
    with screen(path) as looking:
        looking.until("no run", lambda status: status["phase"] == "idle")
        press_stop(service)
        ended_well(service, "stopped")
    assert kit().foregroundStopped(service)


@scenario
def screens_are_told_what_changes(level: int) -> None:
    """A trainer whose telling task has died keeps its socket open and says nothing more."""
    path = fresh()
    service = started()
    with screen(path) as looking:
        looking.until("the greeting", lambda status: status["policies"]["wifi"])
        looking.say({"do": "policy", "name": "wifi", "on": False})
        looking.until("the switch off", lambda status: not status["policies"]["wifi"])
        looking.say({"do": "stop"})
        ended_well(service, "stopped")


@scenario
def the_trainer_speaks_the_phones_language_and_the_settings(level: int) -> None:
    path = fresh()
    kit().language("es-rES")
    service = started()
    wait(lambda: "text=Fuera" in (text := kit().describe(kit().notification(1))) or "Sin" in text, "Spanish")
    (path / "settings.json").write_text(json.dumps({"language": "en"}))
    with screen(path) as looking:
        looking.say({"do": "language"})
        wait(lambda: "text=Not joined" in kit().describe(kit().notification(1)), "English, the setting")
        looking.say({"do": "stop"})
        ended_well(service, "stopped")


@scenario
def the_days_limit_of_the_system_ends_it(level: int) -> None:
    if level < 35:
        return
    fresh()
    service = started()
    wait(lambda: "action[" in kit().describe(kit().notification(1)), "the trainer")
    service.onTimeout(1, 1)
    ended_well(service, "limit")


@scenario
def an_error_of_the_trainer_is_logged_and_ends_the_service(level: int) -> None:
    path = fresh()
    (path / "samples").write_text("in the way of a folder")
    service = started()
    wait(_ended.is_set, "the end of Python")
    assert _outcome == ["exit 1"], _outcome
    assert "Traceback" in log_text()
    wait(lambda: kit().stopped(service), "stopSelf")
    assert json.loads((path / "rest.json").read_text())["why"] == "failed"
    kit().destroyService(service)


@scenario
def locks_are_held_for_an_assignment_alone(level: int) -> None:
    path = fresh()
    _instead.append(lambda: None)
    service = started()
    wait(_ended.is_set, "the service's Python")
    trainer = java("org.ftte.demo.TrainingService").current
    assert not kit().awake()
    trainer.work(True, 60_000)
    assert kit().awake()
    assert kit().wifiLocks() == 1
    trainer.rest()
    assert not kit().awake()
    assert kit().wifiLocks() == 0
    trainer.work(False, 60_000)
    assert kit().wifiLocks() == 0
    kit().elapse(60_001)
    assert not kit().awake(), "a trainer that hangs must not keep the phone awake"
    assert path.exists()
    kit().destroyService(service)


@scenario
def the_phones_state_is_told_in_every_thread(level: int) -> None:
    fresh()
    from mobile_sdk.conditions import system_conditions

    _instead.append(lambda: None)
    service = started()
    wait(_ended.is_set, "the service's Python")
    look = system_conditions()
    kit().thermal(3)
    kit().interactive(False)
    found = []
    thread = threading.Thread(target=lambda: found.append(look()))
    thread.start()
    thread.join()
    now = found[0]
    assert (now.charging, now.battery, now.unmetered, now.idle) == (True, 0.8, True, True), now
    assert now.thermal == (None if level < 29 else 3)
    kit().battery(-2147483648, False)
    kit().metered(True)
    kit().interactive(True)
    now = look()
    assert (now.charging, now.battery, now.unmetered, now.idle) == (False, None, False, False), now
    kit().thermal(0)
    kit().destroyService(service)


@scenario
def the_engines_class_is_found_by_the_client_and_then_everywhere(level: int) -> None:
    path = fresh()
    import numpy as np

    from mobile_sdk import Client
    from mobile_sdk.engines.android import bridge_class
    from mobile_sdk.errors import ProgramError

    said: list[Any] = []

    def in_thread() -> None:
        try:
            said.append(bridge_class())
        except ProgramError as error:
            said.append(str(error))

    def elsewhere() -> Any:
        said.clear()
        thread = threading.Thread(target=in_thread, name="thread of Python")
        thread.start()
        thread.join()
        return said[0]

    def service() -> None:
        first.append(elsewhere())
        data = (np.zeros((4, 1, 8, 8), np.float32), np.zeros(4, np.int64))
        Client(
            "ws://127.0.0.1:1", run="digits", key="0" * 64, dataset=data, storage=path / "client", engine="android"
        ).close()
        first.append(elsewhere())

    first: list[Any] = []
    _instead.append(service)
    running = started()
    wait(_ended.is_set, "the service's Python")
    assert _outcome == ["returned"], _outcome
    assert "is not found in the thread 'thread of Python'" in first[0], first
    assert "make the Client" in first[0]
    assert not isinstance(first[1], str), first
    kit().destroyService(running)


@scenario
def a_visit_is_scheduled_as_the_switches_say(level: int) -> None:
    path = fresh()
    joined(path)
    service = started()
    job = wait(lambda: text if (text := kit().job()) != "none" else "", "the job")
    assert job == (
        "org.ftte.demo.VisitJob charging=true network=2 battery=false idle=false persisted=true minutes=15"
    ), job
    with screen(path) as looking:
        looking.say({"do": "policy", "name": "wifi", "on": False})
        wait(lambda: "network=1" in kit().job(), "the job for any network")
        looking.say({"do": "pause"})
        wait(lambda: kit().job() == "none", "no job while paused")
        looking.say({"do": "resume"})
        wait(lambda: kit().job() != "none", "the job again")
        press_stop(service)
        ended_well(service, "stopped")
    assert kit().job() == "none", "who stops it does not want it to begin by itself"


@scenario
def the_whole_trainer_trains_until_an_update_is_merged_and_again_after_a_restart(level: int) -> None:
    path = fresh()
    service = started()
    with screen(path) as looking:
        looking.say({"do": "join", "link": INVITATION})
        status = looking.until("a merged update", lambda status: status["merged"] >= 1)
        assert status["engine"] == "interpreted"
        assert not status["visit"]
        device = status["device"]
        press_stop(service)
        ended_well(service, "stopped")
    assert not kit().awake()
    _ended.clear()
    _outcome.clear()
    service = started()
    with screen(path) as looking:
        again = looking.until("a merged update", lambda status: status["merged"] >= 1)
        assert again["device"] == device
        looking.say({"do": "stop"})
        ended_well(service, "stopped")


def job_for(service: Any) -> tuple[Any, Any]:
    """VisitJob, its parameters; binding binds this service."""
    kit().bindTo(service, intent())
    return kit().createJob("org.ftte.demo.VisitJob"), kit().parameters()


@scenario
def a_job_makes_one_visit_and_tells_its_end(level: int) -> None:
    path = fresh()
    joined(path)
    service = kit().createService("org.ftte.demo.ServiceTrainer", intent())
    job, parameters = job_for(service)
    assert kit().startJob(job, parameters)
    wait(_ended.is_set, "the end of the visit")
    assert _outcome == ["exit 0"], _outcome
    wait(lambda: kit().jobFinished(job), "jobFinished")
    assert kit().unbound() >= 1
    assert kit().foreground(service) is None, "a job needs no notification"
    assert json.loads((path / "rest.json").read_text())["why"] == "visited"
    assert "Traceback" not in log_text(), log_text()
    assert kit().job() != "none", "the next visit follows"
    kit().destroyService(service)


@scenario
def a_visit_that_may_not_train_ends_at_once(level: int) -> None:
    path = fresh(phone_ready=False)
    joined(path)
    service = kit().createService("org.ftte.demo.ServiceTrainer", intent())
    job, parameters = job_for(service)
    assert kit().startJob(job, parameters)
    wait(lambda: kit().jobFinished(job), "jobFinished")
    wait(_ended.is_set, "the end of the visit's Python, which would be taken for that of the next scenario")
    assert json.loads((path / "rest.json").read_text())["why"] == "visited"
    kit().destroyService(service)


@scenario
def a_job_that_the_system_stops_ends_in_good_order(level: int) -> None:
    path = fresh()
    (path / "joined.json").write_text("")
    hold = threading.Event()
    stopped: list[str] = []

    def service_python() -> None:
        from ftte_demo.trainer.android import Android

        system = Android()

        def stop() -> None:
            stopped.append(system.stop_reason())
            hold.set()

        system.on_stop(stop)
        hold.wait(PATIENCE)
        system.end()

    _instead.append(service_python)
    service = kit().createService("org.ftte.demo.ServiceTrainer", intent())
    job, parameters = job_for(service)
    assert kit().startJob(job, parameters)
    wait(java("org.ftte.demo.TrainingService").current.isVisit, "the visit")
    assert kit().stopJob(job, parameters), "it is to be made again"
    wait(_ended.is_set, "the end of Python")
    assert stopped == ["job"], stopped
    wait(lambda: kit().stopped(service), "stopSelf")
    kit().destroyService(service)


@scenario
def a_job_leaves_a_service_alone_that_trains_already(level: int) -> None:
    path = fresh()
    service = started()
    job, parameters = job_for(service)
    kit().startJob(job, parameters)
    wait(lambda: kit().jobFinished(job), "jobFinished")
    assert not kit().jobAgain(job)
    assert not _ended.is_set()
    with screen(path) as looking:
        looking.say({"do": "stop"})
        ended_well(service, "stopped")


@scenario
def a_visit_becomes_lasting_when_the_app_is_opened(level: int) -> None:
    path = fresh()
    joined(path)
    service = kit().createService("org.ftte.demo.ServiceTrainer", intent())
    job, parameters = job_for(service)
    kit().startJob(job, parameters)
    wait(java("org.ftte.demo.TrainingService").current.isVisit, "the visit")
    kit().command(service, intent())  # the app starts it
    wait(lambda: kit().jobFinished(job), "jobFinished")
    with screen(path) as looking:
        looking.until("lasting training", lambda status: not status["visit"])
        merged = looking.until("an update", lambda status: status["updates"] >= 1)["updates"]
        looking.until("more than a visit's update", lambda status: status["updates"] > merged)
        looking.say({"do": "stop"})
        ended_well(service, "stopped")


@scenario
def the_app_on_a_phone(level: int) -> None:
    """Links, permissions, colours, language, start of the trainer, sharing the log."""
    path = fresh()
    import importlib
    import sys

    intents, uri = java("android.content.Intent"), java("android.net.Uri")

    def view(link: str, flags: int = 0) -> Any:
        made = intents("android.intent.action.VIEW")
        made.setData(uri.parse(link))
        made.setFlags(flags)
        return made

    activity = kit().startActivity("org.kivy.android.PythonActivity", view("ftte://join?run=first"))
    for name in [name for name in sys.modules if name == "android" or name.startswith(("android.", "ftte_demo.host"))]:
        del sys.modules[name]
    os.environ.update(phone_environment(str(path / "app"), str(path)), KIVY_NO_ARGS="1", KIVY_HOME=str(path / "kivy"))
    AndroidHost = importlib.import_module("ftte_demo.host.android").AndroidHost
    host = AndroidHost()
    assert host.folder == path, (host.folder, path)
    opened: list[str] = []
    host.on_invitation(opened.append)
    assert opened == ["ftte://join?run=first"], opened
    kit().newIntent(view("ftte://join?run=second"))
    kit().newIntent(view("ftte://join?run=old", intents.FLAG_ACTIVITY_LAUNCHED_FROM_HISTORY))
    assert opened[1:] == ["ftte://join?run=second"], opened
    for yes, interrupted, expected in ((False, False, 1), (True, True, 1), (True, False, 0)):
        denied: list[int] = []
        host.ask_permissions(lambda denied=denied: denied.append(1))
        kit().idle()
        if level < 33:
            assert kit().requested(activity) == "none"
            continue
        assert "POST_NOTIFICATIONS" in kit().requested(activity)
        kit().answerPermission(activity, yes, interrupted)
        assert len(denied) == expected, (yes, interrupted, denied)
    kit().language("es-rES")
    assert host.language() == "es"
    kit().language("night")
    assert host.prefers_dark()
    kit().language("notnight")
    assert not host.prefers_dark()
    assert host.insets() == [0.0, 0.0, 0.0, 0.0]
    while kit().startedService() != "none":
        pass  # of scenarios before
    host.start_trainer()
    sent = kit().startedService()
    assert sent.startswith("org.ftte.demo.ServiceTrainer "), sent
    assert f"pythonServiceArgument={path}" in sent
    assert "contentText=Conectando" in sent, sent
    assert host.visits() is False
    (path / "trainer.log").write_text("x" * 60_000 + "é😀")
    host.share_log()
    kit().idle()
    shared = chr(kit().shared())
    assert shared == "😀", ascii(shared)
    kit().language("en")
