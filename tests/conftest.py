"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run: what fails once fails again.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
