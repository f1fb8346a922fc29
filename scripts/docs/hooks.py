"""What happens to a page before mkdocs renders it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from scripts.docs.fields import PAGES, fill


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Complete the tables of the run file's and the scenario file's reference."""
    sections = PAGES.get(page.file.src_uri)
    return markdown if sections is None else fill(markdown, sections)
