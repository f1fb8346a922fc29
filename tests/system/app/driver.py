"""
Runs the demo app in a real window and does what a person does: read, tap, type, draw, look.

Commands come as JSON lines on stdin, each is answered by one on stdout. Run by the tests as a process of its own, so
that the app can be killed and started like any other.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["KIVY_NO_ARGS"] = "1"
os.environ["KIVY_NO_CONSOLELOG"] = "1"
os.environ["KIVY_NO_FILELOG"] = "1"
# The app may print; answers go out through a descriptor of their own.
ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "android_demo"))

from kivy.config import Config  # noqa: E402

WIDTH, HEIGHT = (int(side) for side in os.environ.get("DRIVER_WINDOW", "360x720").split("x"))
Config.set("graphics", "width", str(WIDTH))
Config.set("graphics", "height", str(HEIGHT))

from ftte_demo.app import DemoApp  # noqa: E402
from ftte_demo.host import this_host  # noqa: E402
from ftte_demo.widgets.pad import Pad  # noqa: E402
from ftte_demo.widgets.parts import NavItem  # noqa: E402
from kivy.base import EventLoop  # noqa: E402
from kivy.clock import Clock  # noqa: E402
from kivy.core.window import Window  # noqa: E402
from kivy.input.motionevent import MotionEvent  # noqa: E402
from kivy.uix.behaviors import ButtonBehavior  # noqa: E402
from kivy.uix.scrollview import ScrollView  # noqa: E402
from kivy.uix.textinput import TextInput  # noqa: E402

Command = dict[str, Any]


class Finger(MotionEvent):
    """A touch at a place of the window, in pixels."""

    def __init__(self, x: float, y: float) -> None:
        place = {"x": x / (Window.width - 1), "y": y / (Window.height - 1)}
        super().__init__("driver", 1, place, is_touch=True, type_id="touch")
        self.profile = ["pos"]

    def depack(self, args: Any) -> None:
        self.sx, self.sy = args["x"], args["y"]
        super().depack(args)

    def down(self) -> None:
        """Touch."""
        EventLoop.post_dispatch_input("begin", self)

    def move(self, x: float, y: float) -> None:
        """Move to another place."""
        super().move({"x": x / (Window.width - 1), "y": y / (Window.height - 1)})
        EventLoop.post_dispatch_input("update", self)

    def up(self) -> None:
        """Lift."""
        EventLoop.post_dispatch_input("end", self)


def shown(root: Any) -> Iterator[Any]:
    """Every widget of the window that is not hidden, in drawing order."""
    if root.opacity <= 0 or not root.width or not root.height:
        return
    yield root
    for child in reversed(root.children):
        yield from shown(child)


def texts() -> list[str]:
    """What can be read."""
    found = []
    for widget in shown(app.root):
        text = getattr(widget, "text", "")
        if isinstance(text, str) and text and not isinstance(widget, TextInput):
            found.append(text.replace("\N{NO-BREAK SPACE}", " "))
    return found


def button(text: str, disabled: bool = False) -> Any:
    """The button with this text, or the button around it."""
    for widget in shown(app.root):
        if getattr(widget, "text", None) == text and isinstance(widget, ButtonBehavior):
            if widget.disabled and not disabled:
                raise LookupError(f"the button {text!r} is disabled")
            return widget
    raise LookupError(f"there is no button {text!r}; there are {texts()}")


def reveal(widget: Any) -> tuple[float, float]:
    """Scroll to a widget; its middle, in pixels of the window."""
    parent = widget.parent
    while parent is not None and parent is not parent.parent:
        if isinstance(parent, ScrollView):
            content = parent.children[0]
            if content.height > parent.height:
                parent.scroll_to(widget, padding=20, animate=False)
            break
        parent = parent.parent if parent is not Window else None
    return widget.to_window(widget.center_x, widget.center_y)


class Driver:
    """Carries commands out in the app's own thread."""

    def __init__(self) -> None:
        self._frames: list[float] = []
        self._last: float | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            command = json.loads(line)
            Clock.schedule_once(lambda _, command=command: self._do(command), 0)
        Clock.schedule_once(lambda _: app.stop(), 0)

    def _do(self, command: Command) -> None:
        try:
            getattr(self, "do_" + command["do"])(command, self._answer)
        except Exception as error:
            self._answer({"error": f"{type(error).__name__}: {error}"})

    def _answer(self, answer: Any = None) -> None:
        ANSWERS.write(
            json.dumps({"answer": answer} if not (isinstance(answer, dict) and "error" in answer) else answer) + "\n"
        )

    def do_texts(self, command: Command, answer: Callable[..., None]) -> None:
        answer(texts())

    def do_wait(self, command: Command, answer: Callable[..., None]) -> None:
        """Until a text can be read (``part``: a part of it is enough), or can no more (``gone``)."""
        limit = time.monotonic() + command.get("seconds", 20)

        def look(_: float) -> bool:
            wanted = command["text"]
            found = [text for text in texts() if (wanted in text if command.get("part") else wanted == text)]
            if bool(found) != bool(command.get("gone")):
                # A frame later it is on the screen.
                Clock.schedule_once(lambda _: answer(found[0] if found else ""), 0)
                return False
            if time.monotonic() > limit:
                answer({"error": f"{wanted!r} was awaited in vain; there are {texts()}"})
                return False
            return True

        Clock.schedule_interval(look, 0)

    def do_tap(self, command: Command, answer: Callable[..., None]) -> None:
        """The button with this text, as soon as there is one that can be tapped."""

        def tap(widget: Any) -> None:
            position = reveal(widget)

            def touch(_: float) -> None:
                finger = Finger(*reveal(widget))
                finger.down()
                Clock.schedule_once(lambda _: (finger.up(), Clock.schedule_once(lambda _: answer(position), 0)), 0.02)

            Clock.schedule_once(touch, 0)

        self._when(lambda: button(command["text"]), tap, answer)

    def _when(
        self, find: Callable[[], Any], act: Callable[[Any], None], answer: Callable[..., None], seconds: float = 20
    ) -> None:
        """Act on what is found on the screen: an app is not there the moment that something was tapped."""
        limit = time.monotonic() + seconds

        def look(_: float) -> bool:
            try:
                found = find()
            except LookupError as error:
                if time.monotonic() > limit:
                    answer({"error": f"{type(error).__name__}: {error}"})
                    return False
                return True
            act(found)
            return False

        Clock.schedule_interval(look, 0)

    def do_nav(self, command: Command, answer: Callable[..., None]) -> None:
        """To a screen, by the navigation's item."""
        item = next(w for w in shown(app.root) if isinstance(w, NavItem) and w.text == command["text"])
        finger = Finger(*item.to_window(item.center_x, item.center_y))
        finger.down()
        finger.up()
        Clock.schedule_once(lambda _: Clock.schedule_once(lambda _: answer(), 0), 0.05)

    def do_next_status(self, command: Command, answer: Callable[..., None]) -> None:
        """After the next one from the trainer, or a second."""
        done: list[Any] = []

        def finish(*_: object) -> None:
            if not done:
                done.append(True)
                app.unbind(status=finish)
                answer(json.loads(app.status.to_json()))

        app.bind(status=finish)
        Clock.schedule_once(finish, 1.0)

    def do_trainer(self, command: Command, answer: Callable[..., None]) -> None:
        """The process that holds the lock of the app's folder."""
        lock = Path(app.host.folder) / "trainer.lock"
        limit = time.monotonic() + 10

        def look(_: float) -> bool:
            for line in Path("/proc/locks").read_text().splitlines():
                fields = line.split()
                if "->" not in line and fields[1] == "FLOCK" and int(fields[5].split(":")[2]) == lock.stat().st_ino:
                    answer(int(fields[4]))
                    return False
            if time.monotonic() > limit:
                answer({"error": "no trainer runs"})
                return False
            return True

        Clock.schedule_interval(look, 0.05)

    def do_type(self, command: Command, answer: Callable[..., None]) -> None:
        """Into the field with this hint, as soon as there is one."""

        def field() -> Any:
            for widget in shown(app.root):
                if isinstance(widget, TextInput) and widget.hint_text == command["hint"]:
                    return widget
            raise LookupError(f"there is no field {command['hint']!r}")

        def write(widget: Any) -> None:
            widget.text = ""
            widget.insert_text(command["text"])
            answer()

        self._when(field, write, answer)

    def do_draw(self, command: Command, answer: Callable[..., None]) -> None:
        """Strokes of points (x, y) between 0 and 1, y upward."""
        pad = next(widget for widget in shown(app.root) if isinstance(widget, Pad))
        reveal(pad)

        def place(point: list[float]) -> tuple[float, float]:
            return pad.to_window(pad.x + point[0] * pad.width, pad.y + point[1] * pad.height)

        def draw(_: float) -> None:
            for stroke in command["strokes"]:
                finger = Finger(*place(stroke[0]))
                finger.down()
                for point in stroke[1:]:
                    finger.move(*place(point))
                finger.up()
            Clock.schedule_once(lambda _: answer(len(pad.strokes)), 0)

        Clock.schedule_once(draw, 0)

    def do_shot(self, command: Command, answer: Callable[..., None]) -> None:
        path = Path(command["path"])

        def take(_: float) -> None:
            written = Window.screenshot(name=str(path))
            Path(written).replace(path)
            answer(str(path))

        Clock.schedule_once(take, 0.1)

    def do_open(self, command: Command, answer: Callable[..., None]) -> None:
        """A link that is opened while the app runs, as Android tells it: in a thread that is not Kivy's."""

        def tell() -> None:
            try:
                opened[0](command["link"])
                answer()
            except Exception as error:
                answer({"error": f"{type(error).__name__}: {error}"})

        threading.Thread(target=tell, name="Android's main thread").start()

    def do_field(self, command: Command, answer: Callable[..., None]) -> None:
        """The text of the field with this hint."""
        fields = [w for w in shown(app.root) if isinstance(w, TextInput) and w.hint_text == command["hint"]]
        answer(fields[0].text)

    def do_resize(self, command: Command, answer: Callable[..., None]) -> None:
        Window.size = command["size"]
        Clock.schedule_once(lambda _: answer(list(Window.size)), 0.2)

    def do_targets(self, command: Command, answer: Callable[..., None]) -> None:
        """Width and height of everything that can be tapped, in density-independent pixels, and where it ends."""
        from kivy.metrics import Metrics

        answer(
            [
                [
                    getattr(w, "text", ""),
                    w.width / Metrics.density,
                    w.height / Metrics.density,
                    w.to_window(w.right, 0)[0],
                ]
                for w in shown(app.root)
                if isinstance(w, ButtonBehavior)
            ]
        )

    def do_frames(self, command: Command, answer: Callable[..., None]) -> None:
        """Seconds from frame to frame since the last call: the loop makes 60 a second unless something holds it up."""
        taken, self._frames = self._frames, []
        if self._last is None:
            self._last = time.perf_counter()
            Clock.schedule_interval(self._frame, 0)
        answer(taken)

    def _frame(self, _: float) -> None:
        now = time.perf_counter()
        self._frames.append(now - (self._last or now))
        self._last = now

    def do_memory(self, command: Command, answer: Callable[..., None]) -> None:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                answer(int(line.split()[1]) * 1024)

    def do_status(self, command: Command, answer: Callable[..., None]) -> None:
        answer(json.loads(app.status.to_json()))


host: Any = this_host(sys.argv[1:])
opened: list[Callable[[str], None]] = []
on_invitation = host.on_invitation


def note(callback: Callable[[str], None]) -> None:
    """What the app wants to be told of links, kept: a desktop tells it at its start only."""
    opened.append(callback)
    on_invitation(callback)


host.on_invitation = note
app = DemoApp(host)
Clock.schedule_once(lambda _: (Driver(), ANSWERS.write('{"answer": "ready"}\n')), 0.3)
app.run()
