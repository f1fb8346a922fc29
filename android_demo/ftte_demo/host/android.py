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
from jnius import autoclass, cast

from .versions import versions

__all__ = ["AndroidHost"]

log = logging.getLogger(__name__)

_SERVICE = "org.ftte.demo.ServiceTrainer"
_NOTIFICATIONS_SINCE = 33
_EDGE_TO_EDGE_SINCE = 35


class AndroidHost:
    """A phone."""

    def __init__(self) -> None:
        self.folder = Path(app_storage_path())
        self._sdk = int(autoclass("android.os.Build$VERSION").SDK_INT)

    def start_trainer(self) -> None:
        # The app is in front here, so the system lets it start a foreground service.
        autoclass(_SERVICE).start(mActivity, str(self.folder))

    def left(self) -> None:
        """The service goes on; its notification has a button that stops it."""

    def ask_permissions(self, denied: Callable[[], None]) -> None:
        if self._sdk < _NOTIFICATIONS_SINCE:
            return

        def answered(permissions: list[str], granted: list[bool]) -> None:
            if not all(granted):
                denied()

        request_permissions([Permission.POST_NOTIFICATIONS], answered)

    def on_invitation(self, opened: Callable[[str], None]) -> None:
        def look(intent: Any) -> None:
            data = intent.getDataString()
            if data and data.startswith("ftte:"):
                opened(str(data))

        activity.bind(on_new_intent=look)
        look(mActivity.getIntent())

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
        intent.putExtra(intents.EXTRA_TEXT, cast("java.lang.CharSequence", string(text)))
        mActivity.startActivity(intents.createChooser(intent, cast("java.lang.CharSequence", string("FTTE"))))
