"""
Packages of Debian for any processor, unpacked in a folder: nothing is installed, and no rights are needed.

apt-get resolves and fetches them with a state of its own; Debian's archive keyring has to be there
(``apt-get install debian-archive-keyring`` on other systems that have apt-get).
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["KEPT", "qemu", "unpack"]

KEPT = Path(__file__).resolve().parents[1] / "build" / "debian"
MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def unpack(architecture: str, suite: str, packages: Sequence[str]) -> Path:
    """
    The root folder of ``packages`` and what they depend on; kept, and made anew when other packages are asked for.

    Args:
        architecture: as Debian calls it, such as ``"armhf"``.
        suite: a release, such as ``"bookworm"``.
        packages: their names.

    Raises:
        SystemExit: with a sentence, if a tool or the keyring is missing, or apt-get fails.

    """
    folder = KEPT / f"{suite}-{architecture}"
    stamp, content = folder / "packages", " ".join(packages)
    if stamp.exists() and stamp.read_text() == content:
        return folder / "root"
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is missing: this needs Debian or a system made from it")
    if not KEYRING.exists():
        raise SystemExit("Debian's keys are missing: apt-get install debian-archive-keyring")
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("etc/apt/apt.conf.d", "etc/apt/preferences.d", "var/lib/apt/lists/partial", "var/lib/dpkg",
                 "var/cache/apt/archives/partial", "root/usr/lib"):  # fmt: skip
        (folder / part).mkdir(parents=True)
    (folder / "etc/apt/sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {suite} main\n")
    (folder / "var/lib/dpkg/status").touch()
    options = {
        "Dir": folder,
        "Dir::State::status": folder / "var/lib/dpkg/status",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "root",  # it fetches as whoever asks
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]
    _run([*apt, "update"])
    _run([*apt, "install", "--yes", "--no-install-recommends", "--download-only", *packages])
    root = folder / "root"
    (root / "lib").symlink_to("usr/lib")  # as Debian's base-files does, where programs look for their loader
    for package in sorted((folder / "var/cache/apt/archives").glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(root)])
    stamp.write_text(content)
    return root


def qemu(machine: str) -> Path:
    """
    The emulator of user programs for ``machine``: the system's, or Debian's package unpacked.

    Raises:
        SystemExit: with a sentence, if it cannot be fetched.

    """
    name = f"qemu-{machine}-static"
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    folder = KEPT / "qemu"
    if not (folder / "usr/bin" / name).exists():
        with tempfile.TemporaryDirectory() as download:
            _run(["apt-get", "-qq", "-oAPT::Sandbox::User=root", "download", "qemu-user-static"], cwd=Path(download))
            (package,) = Path(download).glob("*.deb")
            folder.mkdir(parents=True, exist_ok=True)
            _run(["dpkg-deb", "--extract", str(package), str(folder)])
    return folder / "usr/bin" / name


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command[:2]))} failed:\n{done.stdout}{done.stderr}")
