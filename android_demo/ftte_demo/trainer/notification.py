"""
The notification of the foreground service: what is going on, how far it is, and a button that stops it.

It takes the place of the plain one that python-for-android starts the service with. Importable on Android only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from android.broadcast import BroadcastReceiver
from android.config import JAVA_NAMESPACE
from jnius import autoclass

__all__ = ["AndroidNotification"]

log = logging.getLogger(__name__)

_STOP = "org.ftte.demo.STOP_TRAINER"
_CHANNEL = "org.ftte.demo.training"
# The number that python-for-android gives the first service; its notification is replaced.
_ID = 1


class AndroidNotification:
    """Shows the state of training outside the app."""

    def __init__(self) -> None:
        self._service = autoclass(f"{JAVA_NAMESPACE}.PythonService").mService
        self._manager = self._service.getSystemService("notification")
        channel = autoclass("android.app.NotificationChannel")
        importance = autoclass("android.app.NotificationManager").IMPORTANCE_LOW
        self._manager.createNotificationChannel(channel(_CHANNEL, "FTTE", importance))
        self._builders = autoclass("android.app.Notification$Builder")
        self._pending = autoclass("android.app.PendingIntent")
        self._intents = autoclass("android.content.Intent")
        self._receiver: Any = None
        self._shown: tuple[str, int, int] | None = None

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Call ``stop`` when the button is pressed."""
        receiver = BroadcastReceiver(lambda context, intent: stop(), actions=[_STOP])
        # Since API 34 a receiver of one's own actions must say that nobody else may send them.
        receiver.handlerthread.start()
        handler = autoclass("android.os.Handler")(receiver.handlerthread.getLooper())
        hidden = autoclass("android.content.Context").RECEIVER_NOT_EXPORTED
        self._service.registerReceiver(receiver.receiver, receiver.receiver_filter, None, handler, hidden)
        self._receiver = receiver  # kept: Java holds it weakly

    def show(self, text: str, done: int, of: int, stop_text: str) -> None:
        """Show a line and a bar of ``done`` of ``of``; no bar where ``of`` is 0."""
        if self._shown == (text, done, of):
            return
        self._shown = (text, done, of)
        flags = self._pending.FLAG_IMMUTABLE | self._pending.FLAG_UPDATE_CURRENT
        activity = self._intents(self._service, autoclass(f"{JAVA_NAMESPACE}.PythonActivity"))
        stop = self._intents(_STOP).setPackage(self._service.getPackageName())
        builder = self._builders(self._service, _CHANNEL)
        builder.setContentTitle("FTTE").setContentText(text)
        builder.setSmallIcon(self._service.getApplicationInfo().icon)
        builder.setOngoing(True).setOnlyAlertOnce(True)
        builder.setContentIntent(self._pending.getActivity(self._service, 0, activity, flags))
        builder.setProgress(of, done, False)
        action = autoclass("android.app.Notification$Action$Builder")
        builder.addAction(action(0, stop_text, self._pending.getBroadcast(self._service, 0, stop, flags)).build())
        self._manager.notify(_ID, builder.build())
