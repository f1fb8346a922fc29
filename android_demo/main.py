"""The app's entry: python-for-android runs this file, and so does a desktop."""

from __future__ import annotations

import os
import signal
import sys

# Kivy reads these when it is imported.
os.environ.setdefault("KIVY_NO_ARGS", "1")
os.environ.setdefault("KIVY_LOG_MODE", "MIXED")

from kivy.config import Config
from kivy.logger import Logger
from kivy.utils import platform

if platform != "android":
    # A phone's window; a right click is no second finger.
    Config.set("graphics", "width", "360")
    Config.set("graphics", "height", "720")
    Config.set("input", "mouse", "mouse,disable_multitouch")
    # X11's second clipboard: without xclip or xsel there is none, which Kivy calls critical.
    Logger.addFilter(lambda record: not record.getMessage().startswith("Cutbuffer"))

from ftte_demo.app import DemoApp
from ftte_demo.host import this_host

if __name__ == "__main__":
    if platform in ("linux", "macosx"):
        # A terminal that closes, or its Ctrl-C, tells all that was started in it. The window closes as by a click then,
        # so that the trainer ends, too.
        for signum in (signal.SIGHUP, signal.SIGINT):
            signal.signal(signum, lambda *_: DemoApp.get_running_app().stop())
    DemoApp(this_host(sys.argv[1:])).run()
