"""The reports in a browser: on a phone and a desk, light and dark, nothing cut off and nothing too small to read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Watched, chromium
from test_drift import photos, sweep  # noqa: F401  the fixture

from sgdmix_albu.audit import run_audit

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
# Of every visible text, its height in pixels as it is shown; charts scale theirs.
SMALLEST = """() => Math.min(...[...document.querySelectorAll("svg text, td, th, p, li, figcaption, small")]
    .filter((one) => one.textContent.trim() && one.getBoundingClientRect().height)
    .map((one) => {
        const svg = one.closest("svg");
        const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
        return scale * parseFloat(getComputedStyle(one).fontSize);
    }))"""
# How far the pictures of a strip reach beyond the window, of those that nothing scrolls.
CUT = """() => Math.max(0, ...[...document.querySelectorAll(".strip figure, .signs figure, table.cards td")]
    .map((one) => one.getBoundingClientRect().right - document.documentElement.clientWidth))"""
LINES = """() => Math.max(...[...document.querySelectorAll("table.figures td")]
    .map((one) => one.getBoundingClientRect().height / parseFloat(getComputedStyle(one).lineHeight)))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def reports(browser: Any, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:  # noqa: F811
    """One of each kind. After the browser: where there is none, nothing is made for it."""
    folder = tmp_path_factory.mktemp("reports")
    saliency = ["spectral_residual", "salient_object"]
    audit = run_audit(dataset="aviary", out=folder / "a", saliency=saliency, pairs=12, samples=3, candidates=6, size=48)
    drift = sweep(photos, folder / "d", strengths=(0.3, 0.5, 0.7, 0.9, 1.0))
    return [audit.report, drift.report]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_reports_fit_a_phone_and_a_desk(reports: list[Path], browser: Any, scheme: str) -> None:
    for report in reports:
        watched = Watched(browser, report.as_uri(), viewport=PHONE, color_scheme=scheme)
        page = watched.page
        page.goto(report.as_uri())
        assert len(page.locator(".answer").inner_text().split()) <= 12
        assert page.evaluate(CUT) == 0
        assert page.evaluate(LINES) <= 4
        for size in (PHONE, DESK):
            page.set_viewport_size(size)
            assert watched.overflow() == 0
            assert page.evaluate(SMALLEST) >= 10
        assert watched.wrong == []
