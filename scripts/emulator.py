"""
The app's APK in an Android emulator, with a coordinator on this machine: what a workflow runs, level by level.

    python -m scripts.emulator FILE.apk

installs the app, lets it join by an invitation that was accepted before (the screens are drawn by Kivy, which no test
of Android's sees into), and expects: an update is merged; training goes on for ten minutes with the screen off; the
notification's button ends the service, and nothing is trained any more. Needs adb with one device, and the project set
up.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mobile_sdk.invite import Invite

__all__ = ["button", "main", "stop_text"]

WORDS = Path(__file__).resolve().parents[1] / "android_demo" / "ftte_demo" / "words.json"

APP = "org.ftte.demo"
PORT = 8765
PATIENCE = 600.0
DARK_SECONDS = 600.0
# Updates within the last two minutes of these show that the processor was not put to sleep.
LAST_SECONDS = 120.0
RUN_FILE = f"""\
[run]
name = "digits"
task = "exporters.zoo.digits:task"
[server]
port = {PORT}
[budgets]
small = "1MB"
[merge]
buffer = 1
[stop]
versions = 1000000
"""


def adb(*words: str, content: bytes | None = None) -> str:
    """What a command of adb prints; raises CalledProcessError if it fails."""
    done = subprocess.run(["adb", *words], input=content, capture_output=True, check=True)
    return done.stdout.decode(errors="replace")


def write(name: str, value: object) -> None:
    """A file in the app's private folder; the debug APK lets us."""
    text = json.dumps(value).encode()
    adb("shell", f"run-as {APP} sh -c 'mkdir -p files && cat > files/{name}'", content=text)


def button(dump: str, text: str) -> tuple[int, int] | None:
    """The middle of what shows ``text`` on the screen, from uiautomator's XML; none if nothing does."""
    for node in re.findall(r"<node [^>]*>", dump):
        fields = dict(re.findall(r'([\w-]+)="([^"]*)"', node))
        place = re.fullmatch(r"\[(\d+),(\d+)\]\[(\d+),(\d+)\]", fields.get("bounds", ""))
        if place is not None and text.lower() in (
            fields.get("text", "").lower(),
            fields.get("content-desc", "").lower(),
        ):
            left, top, right, bottom = map(int, place.groups())
            return (left + right) // 2, (top + bottom) // 2
    return None


def wait(until: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Ask again and again: adb tells of nothing by itself. Raises SystemExit with the app's log."""
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            log = subprocess.run(
                ["adb", "shell", f"run-as {APP} cat files/trainer.log"], capture_output=True, check=False
            )
            raise SystemExit(f"{what} was awaited in vain; the trainer's log:\n{log.stdout.decode(errors='replace')}")
        time.sleep(2)


class Coordinator:
    """``ftte serve`` on this machine; the emulator reaches it at its own loopback address by ``adb reverse``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ftte = str(Path(sys.executable).with_name("ftte"))
        (folder / "run.toml").write_text(RUN_FILE)
        self.process = subprocess.Popen(
            [self._ftte, "serve", "run.toml"], cwd=folder, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found = re.search(r"--key ([0-9a-f]{64})", line)
            if found is not None:
                self.link = str(Invite(f"ws://127.0.0.1:{PORT}", "digits", found[1]))
                return
        raise SystemExit("the coordinator did not start")

    def version(self) -> int:
        """The newest one."""
        command = [self._ftte, "runs", "--json"]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, check=True)
        return int(json.loads(done.stdout)["runs"][0]["version"])


@contextlib.contextmanager
def serving() -> Iterator[Coordinator]:
    """A coordinator, until left."""
    with tempfile.TemporaryDirectory() as folder:
        coordinator = Coordinator(Path(folder))
        try:
            yield coordinator
        finally:
            coordinator.process.terminate()
            coordinator.process.wait()


def press(text: str) -> None:
    """Pull the notifications down and tap the button with this text; a notification may have to be unfolded first."""
    adb("shell", "cmd statusbar expand-notifications")

    def tapped() -> bool:
        dump = adb("exec-out", "uiautomator dump /dev/tty")
        for name in (text, "Expand"):
            if (place := button(dump, name)) is not None:
                adb("shell", f"input tap {place[0]} {place[1]}")
                return name == text
        return False

    wait(tapped, f"the notification's button {text!r}", 120)


def stop_text() -> str:
    """What the notification's button says, in the emulator's language."""
    return str(json.loads(WORDS.read_text("utf-8"))["en"]["about_stop"])


def serving_trainer() -> bool:
    """Whether Android has the trainer's service running."""
    return "ServiceTrainer" in adb("shell", f"dumpsys activity services {APP}")


def main(apk: str) -> None:
    """Install, train, sleep, stop."""
    adb("install", "-g", apk)  # with the permission for notifications
    adb("reverse", f"tcp:{PORT}", f"tcp:{PORT}")
    with serving() as coordinator:
        write("when.json", {"charging": False, "wifi": False, "battery": False})
        write("joined.json", {"link": coordinator.link, "insecure": False, "budget": 0})
        adb("shell", f"am start -n {APP}/org.kivy.android.PythonActivity")
        wait(lambda: coordinator.version() >= 1, "a merged update")
        print(f"merged: version {coordinator.version()}", flush=True)

        adb("shell", "input keyevent KEYCODE_SLEEP")
        time.sleep(DARK_SECONDS - LAST_SECONDS)
        before = coordinator.version()
        time.sleep(LAST_SECONDS)
        after = coordinator.version()
        print(f"with the screen off: version {before} -> {after} within the last {LAST_SECONDS:.0f} s", flush=True)
        if after <= before:
            raise SystemExit("training stopped when the screen was off")

        adb("shell", "input keyevent KEYCODE_WAKEUP")
        adb("shell", "wm dismiss-keyguard")
        press(stop_text())
        wait(lambda: not serving_trainer(), "the end of the service", 60)
        last = coordinator.version()
        time.sleep(30)
        if coordinator.version() != last:
            raise SystemExit("an update came after the service had ended")
        print("stopped", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
