"""A device trains when its owner would not mind, and stops when that changes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mobile_sdk.clock import offload
from mobile_sdk.conditions import Conditions, fixed
from mobile_sdk.conditions.linux import LinuxConditions
from mobile_sdk.events import Paused
from mobile_sdk.policy.guard import Guard, Stopped
from mobile_sdk.policy.rules import Policy
from mobile_sdk.storage.device_storage import DeviceStorage
from mobile_sdk.system.locks import hold_lock

GOOD = Conditions(charging=True, battery=0.9, unmetered=True, idle=True, thermal=0)
NOON = time.mktime((2026, 5, 4, 12, 0, 0, 0, 0, -1))


@pytest.mark.parametrize(
    ("policy", "conditions", "reason"),
    [
        (Policy(charging=True), Conditions(charging=False), "not charging"),
        (Policy(battery_above=0.3), Conditions(battery=0.3), "battery is at 30%, not above 30%"),
        (Policy(unmetered=True), Conditions(unmetered=False), "metered"),
        (Policy(unmetered=True), Conditions(), "metered"),
        (Policy(idle=True), Conditions(idle=False), "in use"),
        (Policy(), Conditions(thermal=2), "too hot"),
        (Policy(hours=("22:00", "06:00")), GOOD, "not between 22:00 and 06:00"),
        (Policy(hours=("13:00", "14:00")), GOOD, "not between"),
        (Policy(bytes_per_day=1000), GOOD, "1.00 KB are allowed"),
    ],
)
def test_an_obstacle_is_named(policy: Policy, conditions: Conditions, reason: str) -> None:
    assert reason in (policy.obstacle(conditions, NOON, 1000) or "")


@pytest.mark.parametrize(
    "policy",
    [
        Policy(charging=True, battery_above=0.5, unmetered=True, idle=True, bytes_per_day=1001),
        Policy(hours=("11:00", "13:00")),
        Policy(hours=("11:00", "06:00")),
        Policy(cool=False),
    ],
)
def test_nothing_is_in_the_way_of_a_good_moment(policy: Policy) -> None:
    assert policy.obstacle(GOOD, NOON, 1000) is None
    assert Policy(charging=True, battery_above=0.5, idle=True).obstacle(Conditions(), NOON, 0) is None


@pytest.mark.parametrize("wrong", [{"battery_above": 1}, {"bytes_per_day": 0}, {"hours": ("25:00", "1:00")}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Policy(**wrong)


# The state of a Linux machine.


def files(root: Path, **content: str) -> Path:
    for name, text in content.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


ROUTE = "Iface\tDestination\tGateway\n{}\t00000000\t0101A8C0\n"


def laptop(root: Path, **changed: str) -> Conditions:
    usual = {
        "sys__class__power_supply__BAT0__type": "Battery\n",
        "sys__class__power_supply__BAT0__status": "Discharging\n",
        "sys__class__power_supply__BAT0__capacity": "42\n",
        "sys__class__power_supply__AC__type": "Mains\n",
        "sys__class__power_supply__AC__online": "0\n",
        "sys__class__power_supply__mouse__type": "Battery\n",
        "sys__class__power_supply__mouse__scope": "Device\n",
        "sys__class__power_supply__mouse__capacity": "3\n",
        "sys__class__thermal__thermal_zone0__temp": "50000\n",
        "sys__class__thermal__thermal_zone0__trip_point_0_type": "passive\n",
        "sys__class__thermal__thermal_zone0__trip_point_0_temp": "85000\n",
        "proc__net__route": ROUTE.format("wlan0"),
        "proc__loadavg": "0.01 0.02 0.05 1/100 1234\n",
    }
    return LinuxConditions(files(root, **usual | changed))()


def test_the_kernel_tells_the_state_of_a_machine(tmp_path: Path) -> None:
    assert laptop(tmp_path) == Conditions(charging=False, battery=0.42, unmetered=True, idle=True, thermal=0)


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"sys__class__power_supply__AC__online": "1\n"}, "charging", True),
        ({"sys__class__power_supply__BAT0__status": "Charging\n"}, "charging", True),
        ({"proc__net__route": ROUTE.format("wwan0")}, "unmetered", False),
        ({"proc__net__route": ROUTE.format("u"), "sys__class__net__u__uevent": "DEVTYPE=wwan\n"}, "unmetered", False),
        ({"proc__net__route": "Iface\tDestination\n"}, "unmetered", False),
        ({"proc__loadavg": "99.0 2 1 1/1 1\n"}, "idle", False),
        ({"sys__class__thermal__thermal_zone0__temp": "86000\n"}, "thermal", 2),
    ],
)  # fmt: skip
def test_each_of_them_changes_with_its_file(change: dict[str, str], field: str, value: object, tmp_path: Path) -> None:
    assert getattr(laptop(tmp_path, **change), field) == value


def test_a_machine_without_battery_is_plugged_in_and_this_one_can_be_looked_at(tmp_path: Path) -> None:
    assert LinuxConditions(tmp_path)() == Conditions(charging=True, unmetered=False)
    assert isinstance(LinuxConditions()(), Conditions)


# At work.


class HandClock:
    """A clock that is set by hand."""

    def __init__(self, wall: float = NOON) -> None:
        self.time = wall

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return self.time


class Counter:
    """A link with nothing on it."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0


@pytest.fixture
def storage(tmp_path: Path) -> Any:
    storage = DeviceStorage(tmp_path / "device", "run")
    yield storage
    storage.close()


def test_bytes_of_the_day_are_counted_over_links_restarts_and_jumps_of_the_clock(storage: DeviceStorage) -> None:
    clock = HandClock()

    def guard() -> Guard:
        return Guard(Policy(bytes_per_day=1000), fixed(GOOD), storage, clock, offload)

    first = guard()
    link = Counter()
    first.link_opened(link)
    link.sent = 300
    assert first.count() == 300
    link.received = 100
    assert first.count() == 400
    first.link_opened(Counter())
    assert first.count() == 400
    again = guard()
    assert again.count() == 400, "another process goes on counting"
    clock.time -= 86400 * 3
    assert again.count() == 400, "a clock that jumps back makes no room"
    clock.time += 86400 * 4
    assert again.count() == 0, "a new day does"


def test_work_is_stopped_when_the_policy_does_not_hold_any_more(
    storage: DeviceStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobile_sdk.policy.guard.LOOK_AGAIN_SECONDS", 0.01)
    now = {"conditions": GOOD}
    guard = Guard(Policy(charging=True), lambda: now["conditions"], storage, HandClock(), offload)

    async def main() -> list[str]:
        done = []
        told: list[Paused] = []
        await guard.wait(told.append)

        async def work() -> None:
            now["conditions"] = Conditions(charging=False)
            try:
                await asyncio.Event().wait()
            finally:
                done.append("stopped")

        with pytest.raises(Stopped, match="not charging"):
            await guard.watch(work())
        waiting = asyncio.create_task(guard.wait(told.append))
        while not told:
            await asyncio.sleep(0)
        now["conditions"] = GOOD
        await waiting
        assert [event.reason for event in told] == ["the device is not charging"]
        return done

    assert asyncio.run(main()) == ["stopped"]


HOLDER = """
import sys, time
from pathlib import Path
from mobile_sdk.system.locks import hold_lock
with hold_lock(Path(sys.argv[1])) as free:
    print(free, flush=True)
    time.sleep(60)
"""


def test_one_training_at_a_time_across_processes_and_a_killed_one_lets_go(
    tmp_path: Path, storage: DeviceStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobile_sdk.policy.guard.TURN_SECONDS", 0.01)
    lock = tmp_path / "lock"
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    with hold_lock(lock) as free:
        assert not free
    guard = Guard(Policy(lock=lock), fixed(GOOD), storage, HandClock(), offload)

    async def main() -> None:
        told: list[Paused] = []

        def tell(event: Paused) -> None:
            told.append(event)
            other.kill()
            other.wait()

        async with guard.turn(tell):
            with hold_lock(lock) as free:
                assert not free
        assert told[0].reason == "another training is under way on this device"

    asyncio.run(main())
    assert os.path.exists(lock)  # noqa: PTH110


ANDROID = {
    "android.content.Context": {"BATTERY_SERVICE": "battery", "CONNECTIVITY_SERVICE": "net", "POWER_SERVICE": "power"},
}


@pytest.mark.parametrize(("api", "thermal"), [(28, None), (29, 1), (30, 1)])
def test_android_is_asked_through_pyjnius_which_is_imported_nowhere_else(
    api: int, thermal: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Java side is a double here: no Android runs on this machine."""
    from types import ModuleType, SimpleNamespace

    services = {
        "battery": SimpleNamespace(getIntProperty=lambda what: {4: 55}[what], isCharging=lambda: True),
        "net": SimpleNamespace(isActiveNetworkMetered=lambda: True),
        "power": SimpleNamespace(isInteractive=lambda: False, getCurrentThermalStatus=lambda: 1),
    }
    context = SimpleNamespace(getSystemService=services.__getitem__)
    classes = {
        "android.content.Context": SimpleNamespace(**ANDROID["android.content.Context"]),
        "android.os.Build$VERSION": SimpleNamespace(SDK_INT=api),
        "org.kivy.android.PythonService": SimpleNamespace(mService=context),
    }
    code = "import sys, mobile_sdk.conditions.linux, mobile_sdk.client; assert 'jnius' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)  # other tests of this process may have imported it
    jnius = ModuleType("jnius")
    jnius.autoclass = classes.__getitem__  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jnius", jnius)
    from mobile_sdk.conditions.android import AndroidConditions

    assert AndroidConditions()() == Conditions(charging=True, battery=0.55, unmetered=False, idle=True, thermal=thermal)
