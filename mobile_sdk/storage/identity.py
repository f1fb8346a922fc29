"""Who a device is in its run: what it is called, what it proves itself with, and what it has learnt to trust."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from ..errors import StorageError
from ..protocol.auth import SECRET_BYTES
from ..protocol.texts import NAME_RULE, is_name, shortened
from ..system.secret_files import replace_secret

__all__ = ["Identity"]


class Identity:
    """
    The file ``device.json`` of a device's folder, readable by its owner alone.

    Args:
        path: the file; made if missing.
        run: the run that the device takes part in.
        name: what to call a new device; made up at random if empty. An existing file keeps its name.

    Raises:
        StorageError: if the file is damaged or of another run, or a name is none that the protocol allows.

    """

    def __init__(self, path: Path, run: str, name: str = "") -> None:
        self._path = path
        if path.exists():
            self._data = _read(path, run)
        else:
            self._data = {}
            self._change(_new(run, name))

    def _change(self, values: dict[str, Any]) -> None:
        """On the disk first: what a full one does not take is tried again, and not believed to be there."""
        data = {**self._data, **values}
        replace_secret(self._path, json.dumps(data, indent=1).encode())
        self._data = data

    @property
    def device(self) -> str:
        """The device's name; fixed when the folder was created."""
        return str(self._data["device"])

    @property
    def secret(self) -> bytes:
        """What this device answers challenges with."""
        return bytes.fromhex(self._data["secret"])

    @property
    def enrolled(self) -> bool:
        """Whether a coordinator has let this device in before."""
        return bool(self._data.get("enrolled"))

    def remember_enrolment(self) -> None:
        """The coordinator knows the secret: it is never sent again."""
        if not self.enrolled:
            self._change({"enrolled": True})

    def forget_enrolment(self) -> None:
        """The coordinator does not know the device any more: it enrols again, with the same name and secret."""
        if self.enrolled:
            self._change({"enrolled": False})

    def trusted_key(self, pinned: str) -> str:
        """The key (hex) that has followed ``pinned``, or ``pinned`` itself."""
        follower = self._data.get("followers", {}).get(pinned, pinned)
        return str(follower)

    def trust_key(self, pinned: str, key: str) -> None:
        """Remember that ``key`` follows ``pinned``: the older one is not trusted any more."""
        if key != self.trusted_key(pinned):
            self._change({"followers": {**self._data.get("followers", {}), pinned: key}})

    @property
    def serial(self) -> int:
        """The highest serial of programs that this device has accepted."""
        return int(self._data["serial"])

    def raise_serial(self, serial: int) -> None:
        """Remember ``serial``: programs with a lower one are refused from now on."""
        if serial > self.serial:
            self._change({"serial": serial})


def _new(run: str, name: str) -> dict[str, Any]:
    for what, text in (("run", run), ("device", name)):
        if text and not is_name(text):
            raise StorageError(f"{shortened(text)} cannot name a {what}: a name has {NAME_RULE}")
    return {
        "run": run,
        "device": name or f"device-{secrets.token_hex(6)}",
        "secret": secrets.token_hex(SECRET_BYTES),
        "serial": 0,
        "enrolled": False,
    }


def _read(path: Path, run: str) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
        str(data["run"]), str(data["device"]), bytes.fromhex(data["secret"]), int(data["serial"])
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} is damaged ({error}): remove it to enrol again as a new device") from error
    if data["run"] != run:
        raise StorageError(f"the folder {path.parent} belongs to the run {data['run']!r}, not {run!r}")
    return dict(data)
