"""What a device says of itself when it asks for work."""

from __future__ import annotations

from typing import Any

from mobile_sdk.protocol.messages import Ready

from ..status import DeviceStatus

__all__ = ["note_ready"]


def note_ready(status: DeviceStatus, message: Ready) -> dict[str, Any]:
    """Show on ``status`` what the device says of itself; gives its profile as the store keeps it."""
    status.samples = message.samples
    status.peak_rss_bytes = message.peak_rss_bytes
    status.torch_loaded = message.torch_loaded
    status.engine = message.engine
    status.model = message.model
    status.self_check = ""  # it says so again if it still is
    return {
        "engine": message.engine,
        "executorch": message.executorch,
        "budget": message.budget,
        "samples": message.samples,
        "peak_rss_bytes": message.peak_rss_bytes,
        "torch_loaded": message.torch_loaded,
        "model": message.model,
    }
