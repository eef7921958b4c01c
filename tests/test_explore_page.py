"""The page of ``sgdmix explore`` in headless Chromium: ``make test-explore``; skipped where gradio is not installed."""

from __future__ import annotations

import base64
import http.client
import io
import shlex
import socket
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Watched, chromium
from expand_helpers import pixels, write_tree
from PIL import Image

from sgdmix_albu.cli import main
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.explore import Given
from sgdmix_albu.explore.page import Page, open_page

# gradio leaves event loops and sockets of its own open.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

CHANGED = "([name, old]) => { const now = document.querySelector(`img[alt=${name}]`)?.src; return now && now != old; }"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_tree(tmp_path_factory.mktemp("photographs"), classes=3, images=3)
    (root / "class 1" / "000.jpg").write_text("no image")
    return root


@pytest.fixture(scope="module")
def page(photographs: Path) -> Iterator[Page]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gradio's, when it is imported
        pytest.importorskip("gradio", reason="gradio is not installed: make test-explore")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sgdmix_albu.explore.page._OFFERED", 1)  # "Next" leads out of the list that the browser has
        opened = open_page(Given(data=str(photographs), size=48))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def browser(page: Page) -> Iterator[Any]:
    with chromium() as found:
        yield found


def test_settings_change_the_picture_and_the_code(
    page: Page, browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(browser, page.url, viewport={"width": 1280, "height": 900})
    tab = watched.page
    tab.goto(page.url)
    tab.locator("img[alt=mixed]").wait_for()
    assert "class 1/000.jpg: cannot read" in tab.locator(".told").inner_text()

    def changed(name: str, act: Any) -> None:
        before = tab.locator(f"img[alt={name}]").get_attribute("src")
        act()
        tab.wait_for_function(CHANGED, arg=[name, before])

    changed("saliency", tab.get_by_role("radio", name="spectral_residual").click)
    changed("mask", tab.get_by_role("radio", name="otsu").click)
    changed("image", tab.get_by_role("button", name="Next").click)
    tab.wait_for_function("document.querySelector('#command').innerText.includes('otsu')")
    command, python = (tab.locator(f"#{name} .cm-content").inner_text() for name in ("command", "python"))
    assert python.splitlines()[-1] == 'mix = SGDMix("spectral_residual", mask="otsu")'

    # The command that the page shows writes the picture that it shows.
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) == 1  # an image cannot be read
    key = tab.locator("#looks figcaption small").first.inner_text()
    assert key == tab.get_by_role("combobox").input_value() == "class 0/001.png"
    assert np.array_equal(pixels(tmp_path / "out" / key), _picture(tab.locator("img[alt=mixed]").get_attribute("src")))

    tab.set_viewport_size({"width": 390, "height": 844})
    assert watched.overflow() == 0
    tab.get_by_role("combobox").fill("no such image")
    tab.keyboard.press("Enter")
    tab.get_by_text("no image is called 'no such image'").wait_for()
    assert watched.wrong == []


def test_it_listens_to_this_machine_alone(page: Page) -> None:
    port = int(page.url.rstrip("/").rpartition(":")[2])
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in (one for one in others if not one.startswith("127.")):
        with socket.socket() as tried:
            tried.settimeout(1)
            assert tried.connect_ex((address, port)) != 0
    # A web site whose name means this machine for a while is not answered: its questions name the site.
    for host, status in {"evil.example": 400, f"evil.example:{port}": 400, f"localhost:{port}": 200}.items():
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as asked:
            asked.request("GET", "/config", headers={"Host": host})
            assert asked.getresponse().status == status, host
    with pytest.raises(InvalidInputError, match=f"cannot listen on port {port} of 127.0.0.1"):
        open_page(Given(dataset="aviary"), port=port)


def _picture(source: str) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
        return np.asarray(picture)
