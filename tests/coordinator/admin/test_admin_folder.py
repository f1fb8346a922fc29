"""The admin folder belongs to one coordinator at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.admin.server import claim_admin_folder
from coordinator.config import AdminSection
from coordinator.errors import ConfigError


def test_a_second_coordinator_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    section = AdminSection(folder=tmp_path / ".ftte")
    first = claim_admin_folder(section)
    with pytest.raises(ConfigError, match=r"another coordinator uses the admin folder .*\.ftte: set admin\.folder"):
        claim_admin_folder(section)
    first.close()
    claim_admin_folder(section).close()


def test_a_path_that_no_socket_can_have_is_refused_with_its_length(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 120)
    with pytest.raises(ConfigError, match=r"at most 107: set admin\.folder to a shorter one"):
        claim_admin_folder(AdminSection(folder=folder))
    assert not folder.exists()
    claim_admin_folder(AdminSection(folder=folder, port=0)).close()
