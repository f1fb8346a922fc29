"""Whether the admin folder can be used, asked before anything is served."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from ..checks.findings import Finding
from ..config import AdminSection
from ..errors import ConfigError
from .server import claim_admin_folder

__all__ = ["check_admin_folder"]


def check_admin_folder(section: AdminSection) -> Iterator[Finding]:
    """Whether operators' commands can be answered there."""
    existed = section.folder.exists()
    try:
        claim_admin_folder(section).close()
    except ConfigError as error:
        yield Finding("error", str(error))
        return
    if not existed:
        shutil.rmtree(section.folder)
    yield Finding("ok", f"operators' commands are answered in the admin folder {section.folder}")
