"""Android: a foreground service for the trainer, permissions, intents. Importable there only."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from android import activity, mActivity
from android.permissions import Permission, request_permissions
from android.runnable import run_on_ui_thread
from android.storage import app_storage_path
from jnius import JavaException, autoclass, cast

from ..trainer.joined import load
from ..words import chosen, words
from .versions import versions

__all__ = ["AndroidHost"]

log = logging.getLogger(__name__)

_SERVICE = "org.ftte.demo.ServiceTrainer"
_VISITS = "org.ftte.demo.VisitJob"
_NOTIFICATIONS_SINCE = 33
_EDGE_TO_EDGE_SINCE = 35


class AndroidHost:
    """A phone."""

    def __init__(self) -> None:
        self.folder = Path(app_storage_path())
        self._sdk = int(autoclass("android.os.Build$VERSION").SDK_INT)

    def start_trainer(self) -> None:
        """In front, the app may start a foreground service; left during its start, it may not."""
        texts = words(chosen(self.folder, self.language()))
        try:
            autoclass(_SERVICE).start(mActivity, "", "FTTE", texts["phase_connecting"], str(self.folder))
        except JavaException as error:
            log.warning("the system does not start the trainer now: %s", error)

    def visits(self) -> bool:
        return bool(autoclass(_VISITS).isScheduled(mActivity))

    def language(self) -> str:
        # Java's own: Android's C library knows no locale but C.
        return str(mActivity.getResources().getConfiguration().getLocales().get(0).getLanguage())

    def left(self) -> None:
        """The service goes on; its notification has a button that stops it."""

    def ask_permissions(self, denied: Callable[[], None]) -> None:
        if self._sdk < _NOTIFICATIONS_SINCE:
            return

        def answered(permissions: list[str], granted: list[bool]) -> None:
            # An interrupted request has neither permissions nor answers.
            if not granted or not all(granted):
                denied()

        request_permissions([Permission.POST_NOTIFICATIONS], answered)

    def on_invitation(self, opened: Callable[[str], None]) -> None:
        def look(intent: Any) -> None:
            data = intent.getDataString()
            # From the list of recent apps, Android opens the intent of then again.
            old = intent.getFlags() & autoclass("android.content.Intent").FLAG_ACTIVITY_LAUNCHED_FROM_HISTORY
            if data and str(data).startswith(("ftte:", "https:")) and not old:
                opened(str(data))

        activity.bind(on_new_intent=look)
        first = mActivity.getIntent()
        if first.getDataString() != _joined(self.folder):  # a new process may get the intent that was accepted long ago
            look(first)

    def prefers_dark(self) -> bool:
        configuration = autoclass("android.content.res.Configuration")
        mode = mActivity.getResources().getConfiguration().uiMode & configuration.UI_MODE_NIGHT_MASK
        return bool(mode == configuration.UI_MODE_NIGHT_YES)

    def insets(self) -> list[float]:
        if self._sdk < _EDGE_TO_EDGE_SINCE:
            return [0.0, 0.0, 0.0, 0.0]
        windows = mActivity.getWindow().getDecorView().getRootWindowInsets()
        if windows is None:
            return [0.0, 0.0, 0.0, 0.0]
        types = autoclass("android.view.WindowInsets$Type")
        bars = windows.getInsets(types.systemBars() | types.displayCutout())
        return [float(bars.left), float(bars.top), float(bars.right), float(bars.bottom)]

    def versions(self) -> dict[str, str]:
        return versions() | {"Android": str(autoclass("android.os.Build$VERSION").RELEASE)}

    def share_log(self) -> str:
        path = self.folder / "trainer.log"
        text = path.read_text("utf-8", "replace")[-50_000:] if path.exists() else ""
        self._send(text)
        return str(path)

    @run_on_ui_thread
    def _send(self, text: str) -> None:
        intents = autoclass("android.content.Intent")
        string = autoclass("java.lang.String")
        intent = intents(intents.ACTION_SEND)
        intent.setType("text/plain")
        # As bytes: some pyjnius halve characters beyond U+FFFF of a str.
        shared = string(text.encode("utf-8", "replace"), "UTF-8")
        intent.putExtra(intents.EXTRA_TEXT, cast("java.lang.CharSequence", shared))
        mActivity.startActivity(intents.createChooser(intent, cast("java.lang.CharSequence", string("FTTE"))))


def _joined(folder: Path) -> str | None:
    """The link of the run that this phone takes part in."""
    joined = load(folder / "joined.json")
    return None if joined is None else str(joined.invite)
