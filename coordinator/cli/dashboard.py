"""``ftte dashboard``: an address that lets one into the dashboard once."""

from __future__ import annotations

import argparse
import json
import os
import sys
import webbrowser
from typing import Any

from rich.console import Console

from mobile_sdk.system.support import has_desktop

from ..admin.client import AdminClient
from .operate import add_client_command

__all__ = ["add_dashboard_command"]


def add_dashboard_command(commands: Any) -> None:
    """Register it."""
    command = add_client_command(commands, "dashboard", "an address of the dashboard that lets you in once", _dashboard)
    command.add_argument("--read-only", action="store_true", help="for somebody who may look and change nothing")
    command.add_argument("--no-browser", action="store_true", help="print the address alone")


def _dashboard(options: argparse.Namespace, console: Console, client: AdminClient) -> int:
    made = client.post("dashboard", role="viewer" if options.read_only else "operator")
    if options.json:
        print(json.dumps(made, indent=2))
        return 0
    print(made["address"])
    if not options.no_browser and has_display():
        webbrowser.open(made["address"])
    return 0


def has_display() -> bool:
    """Whether a browser that is opened here is seen by whoever runs the command."""
    if not sys.stdout.isatty() or "SSH_CONNECTION" in os.environ:
        return False
    return has_desktop() or any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY"))
