"""The service's entry on Android: python-for-android runs this file in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The app's files are beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ftte_demo.trainer.__main__ import run
from ftte_demo.trainer.android import Android

system = Android()
try:
    code = run(Path(os.environ["PYTHON_SERVICE_ARGUMENT"]), system)
finally:
    # python-for-android ends the process when this file ends; a service that is still started would begin again.
    system.end()
sys.exit(code)
