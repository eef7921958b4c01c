"""The built site: nothing is fetched from elsewhere; a browser shows it without a fault, from a folder or a server."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import Watched, chromium

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
# Of text on its ground, by WCAG 2: 4.5 is its level AA.
CONTRAST = """() => {
    const parts = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
    const light = (rgb) => rgb.map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const [a, b] = [getComputedStyle(document.querySelector("article p")).color,
        getComputedStyle(document.body).backgroundColor].map((colour) => light(parts(colour)) + 0.05);
    return Math.max(a, b) / Math.min(a, b);
}"""


@pytest.fixture(scope="module")
def site(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as ``make docs`` does."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    result = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_site_builds_without_a_warning_and_fetches_nothing(site: Path) -> None:
    tags = re.compile(r"<(?:script|img|iframe|link|source)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")
    styles = re.compile(r"(?:url\(|@import\s+)[\"']?(?:https?:)?//[^)]*")
    foreign = [
        f"{path.relative_to(site)}: {match}"
        for suffix, pattern in (("html", tags), ("css", styles))
        for path in site.rglob(f"*.{suffix}")
        for match in pattern.findall(path.read_text())
    ]
    assert foreign == []
    assert (site / "search" / "search_index.js").read_text().startswith("var __index")  # search from file://


def test_the_reference_shows_values_for_defaults(site: Path) -> None:
    """``saliency="salient_object"``, not the name of a constant."""
    pages = {page.name: page.read_text() for page in (site / "reference").glob("*.html")}
    assert [name for name, text in pages.items() if "BEST_" in text] == []
    assert "salient_object" in pages["transforms.html"]


@pytest.mark.parametrize("way", ["file", "http"])
def test_search_finds_grad_cam(site: Path, browser: Any, served: str, way: str) -> None:
    home = site.as_uri() if way == "file" else served
    watched = Watched(browser, home, viewport=DESK)
    page = watched.page
    page.goto(f"{home}/index.html")
    page.get_by_role("textbox", name="Search").fill("Grad-CAM")
    first = page.locator(".md-search-result__item").first
    first.wait_for()
    assert "Grad-CAM" in first.inner_text()
    first.locator("a").first.click()
    page.locator("article mark").first.wait_for()  # the words are marked on the page that was found
    assert watched.wrong == []


@pytest.mark.parametrize(("scheme", "worn"), [("light", "default"), ("dark", "slate")])
def test_every_page_fits_phone_and_desk(site: Path, browser: Any, scheme: str, worn: str) -> None:
    watched = Watched(browser, site.as_uri(), viewport=DESK, color_scheme=scheme)
    page, faults = watched.page, []
    pages = [path for path in site.rglob("*.html") if path.name != "404.html"]
    assert len(pages) >= 25
    for path in pages:
        name = path.relative_to(site).as_posix()
        page.goto(path.as_uri())
        assert page.locator("body").get_attribute("data-md-color-scheme") == worn, name
        if page.locator("article p").count() and page.evaluate(CONTRAST) < 4.5:
            faults.append(f"{name}: text too pale")
        for size in (PHONE, DESK):
            page.set_viewport_size(size)
            if over := watched.overflow():
                faults.append(f"{name}: {over} px too wide at {size['width']} px")
    assert (faults, watched.wrong) == ([], [])
