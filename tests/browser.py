"""A headless Chromium for tests of pages; they are skipped where there is none. ``make test-site`` brings Playwright.

Playwright downloads no browser here: it drives the system's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of Playwright's."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make test-site")
    found = os.environ.get("SGDMIX_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no Chromium is installed; SGDMIX_CHROMIUM names one that is not on the path")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-dev-shm-usage"])
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page that remembers what went wrong on it.

    Attributes:
        page: Playwright's.
        wrong: Console errors, exceptions of scripts, and requests that failed or went to another host.
    """

    def __init__(self, browser: Any, home: str, **context: Any) -> None:
        self.page = browser.new_context(**context).new_page()
        self.wrong: list[str] = []
        self._home = urlsplit(home)
        self.page.on("console", lambda said: said.type == "error" and self.wrong.append(f"console: {said.text}"))
        self.page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        self.page.on("request", self._requested)
        self.page.on("response", lambda came: came.status >= 400 and self.wrong.append(f"{came.status} {came.url}"))

    def _requested(self, request: Any) -> None:
        url = urlsplit(request.url)
        if url.scheme not in {"data", "blob", "about"} and (url.scheme, url.netloc) != self._home[:2]:
            self.wrong.append(f"left this host: {request.url}")

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
