"""Pages for people: links lead somewhere, named files exist, lines are readable in a diff, tables fit the models."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from scripts.docs.fields import PAGES, fill

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
PAGES_OF_TEXT = [name for name in TRACKED if name.endswith(".md") and "licences" not in name]
FOLDERS = (
    "android_demo",
    "benchmarks",
    "coordinator",
    "deploy",
    "docs",
    "examples",
    "exporters",
    "mobile_sdk",
    "scripts",
)


def prose(text: str) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """What a heading is called in a link."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE):
        plain = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
        found.add(re.sub(r"[\s-]+", "-", plain))
    return found


@pytest.mark.parametrize("page", PAGES_OF_TEXT)
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), f"{page} links to {link}"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{page} links to {link}"


@pytest.mark.parametrize("page", PAGES_OF_TEXT)
def test_every_file_of_the_project_that_a_page_names_is_there(page: str) -> None:
    for name in re.findall(r"`([\w./-]+/[\w./-]+)`", (ROOT / page).read_text()):
        if name.split("/")[0] in FOLDERS and not re.search("NAME|/build/", name):
            assert (ROOT / name).exists(), f"{page} names {name}"


@pytest.mark.parametrize("page", PAGES_OF_TEXT)
def test_lines_of_prose_are_short(page: str) -> None:
    lines = prose((ROOT / page).read_text()).splitlines()
    long = [line for line in lines if len(line) > 120 and not line.lstrip().startswith(("|", "![", "<"))]
    assert long == []


@pytest.mark.parametrize("page", [name for name in PAGES_OF_TEXT if name.startswith("docs/")])
def test_a_page_of_the_site_needs_nothing_from_elsewhere(page: str) -> None:
    """No picture of another server, and no diagram that the theme would fetch a script for."""
    text = (ROOT / page).read_text()
    assert (
        re.findall(r"^ *```mermaid|!\[[^\]]*\]\(https?:|<(?:img|script|link|iframe)\b[^>]*https?:", text, re.MULTILINE)
        == []
    )


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_of_keys_are_those_of_the_models(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    filled = fill(text, PAGES[page])
    assert filled.count("| key | type | default | meaning |") == len(PAGES[page])
    assert "| key | meaning |" not in filled


class Section(BaseModel):
    model_config = ConfigDict(frozen=True)
    port: int = Field(8765, ge=1, lt=65536)
    name: str


TABLE = "# `[server]`\n\n| key | meaning |\n|---|---|\n| `port` | where |\n{rows}"


def test_a_table_gets_type_limits_and_default() -> None:
    filled = fill(TABLE.format(rows="| `name` | who |\n"), {"server": Section})
    assert "| `port` | whole number, ≥ 1, < 65,536 | 8765 | where |" in filled
    assert "| `name` | text | **needed** | who |" in filled


@pytest.mark.parametrize(("rows", "named"), [("", "name"), ("| `name` | who |\n| `host` | no |\n", "host")])
def test_a_key_too_few_or_too_many_ends_the_build(rows: str, named: str) -> None:
    with pytest.raises(ValueError, match=rf"\[server\].*{named}"):
        fill(TABLE.format(rows=rows), {"server": Section})


def test_a_section_that_the_page_forgets_ends_the_build() -> None:
    with pytest.raises(ValueError, match="no heading for the sections"):
        fill("# Nothing\n", {"server": Section})


def test_both_licences_are_the_same_text() -> None:
    assert (ROOT / "LICENSE").read_text() == (ROOT / "mobile_sdk" / "LICENSE").read_text()
    assert "mobile_sdk/LICENSE" in TRACKED
