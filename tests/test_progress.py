"""Progress: a bar where somebody watches, else a line now and then in the log; quiet where nobody wants it."""

from __future__ import annotations

import io
import itertools
import logging
import sys
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from sgdmix_albu.io import progress
from sgdmix_albu.io.console import told
from sgdmix_albu.io.progress import LOGGER, Progress, silent


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds pass between two looks at the clock."""
    ticks = itertools.count(0.0, 10.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(ticks))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_every_half_minute_with_what_is_left(clock: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sgdmix_albu")
    assert list(Progress().over(range(7), "mixing", 14, count=lambda _: 2)) == list(range(7))
    # The clock is read at the start, and then once for each item: after 30 s six images, after 60 s twelve.
    assert caplog.messages == [
        "mixing: 6 of 14 images, 5.0 s each, 40.0 s left",
        "mixing: 12 of 14 images, 5.0 s each, 10.0 s left",
    ]


def test_what_an_earlier_run_did_does_not_count_as_pace(clock: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sgdmix_albu")
    with Progress().meter("fine-tuning", 1000, unit="step", begun=400) as meter:
        for _ in range(3):
            meter(100, loss="0.125")
    assert caplog.messages == ["fine-tuning: 700 of 1000 steps, 10.0 a second, loss 0.125, 30.0 s left"]


def test_a_bar_on_a_terminal_and_no_lines(
    clock: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "sgdmix_albu")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    list(Progress().over(range(9), "mixing", 9))
    assert "mixing:" in terminal.getvalue()
    assert caplog.messages == []


def test_a_notebook_gets_its_own_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    made: list[dict[str, Any]] = []
    monkeypatch.setattr("tqdm.auto.tqdm", lambda **how: made.append(how) or io.StringIO())
    with Progress().meter("mixing", 3):
        pass
    assert [how["total"] for how in made] == [3]


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet(quiet: bool, clock: None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sgdmix_albu")
    with silent():
        list(Progress(quiet=quiet).over(range(9), "mixing", 9))
    Progress(quiet=quiet).tell("prompt  a photo of a bird")
    Progress(quiet=quiet).warn("waiting for workers")
    assert caplog.messages == ([] if quiet else ["prompt  a photo of a bird", "waiting for workers"])


def test_the_log_belongs_to_whoever_uses_the_package(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is shown unasked; a command shows plain lines, without anything that a terminal would act on."""
    Progress().tell("unseen")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    Progress().warn("heard all the same")
    assert capsys.readouterr() == ("", "heard all the same\n")
    handlers, level = list(LOGGER.handlers), LOGGER.level
    with warnings.catch_warnings(action="always"), told():
        LOGGER.info("seen\nowl\x1b[2J")
        warnings.warn("odd weights", UserWarning, stacklevel=1)
    with told(quiet=True):
        LOGGER.info("unseen")
        LOGGER.warning("heard")
    assert capsys.readouterr() == ("", "seen\nowl\\x1b[2J\nsgdmix: warning: odd weights\nheard\n")
    assert (LOGGER.handlers, LOGGER.level) == (handlers, level)
