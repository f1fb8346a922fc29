"""The service's entry on Android: python-for-android runs this file in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The app's files are beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from android.storage import app_storage_path
from ftte_demo.trainer.__main__ import run
from ftte_demo.trainer.notification import AndroidNotification

# Empty where the system restarted the service by itself.
folder = Path(os.environ.get("PYTHON_SERVICE_ARGUMENT") or app_storage_path())
run(folder, AndroidNotification())
