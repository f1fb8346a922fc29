"""A real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page

__all__ = ["Watched", "chromium", "needs_browser", "violations"]

CHROMIUM = shutil.which("chromium")
AXE = Path(__file__).with_name("vendor") / "axe.min.js"

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs a browser: apt-get install chromium && pip install playwright",
)


class Watched:
    """A page of a browser; ``wrong`` keeps what it complained of, such as what the security policy has kept out."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda message: self._heard(message.type, message.text))

    def _heard(self, kind: str, text: str) -> None:
        # Whether somebody is logged in is asked, and may be answered by 401.
        if kind == "error" and "401" not in text:
            self.wrong.append(text)


@contextlib.asynccontextmanager
async def chromium(**settings: Any) -> AsyncIterator[BrowserContext]:
    """A browser without a window; ``settings`` are of its context."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        # As root and in a container there is no sandbox; the pages are our own.
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield await browser.new_context(**settings)
        finally:
            await browser.close()


async def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with a page, by WCAG 2.2 AA and its own best practices."""
    # Through the debugger: the page's own policy lets no foreign script in.
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run(document).then(result => result.violations)")
    return [f"{each['id']}: {node['html'][:200]}" for each in found for node in each["nodes"]]
