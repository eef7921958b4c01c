"""How often a run that is given again reads what is there: a plan may have ten million rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from expand_helpers import MINE, Stop, contents, expand

from sgdmix_albu.expand import Settings
from sgdmix_albu.io.storage import Storage

pytestmark = pytest.mark.usefixtures("by_hand", "small_chunks")

FORMS = [MINE, replace(MINE, shards=True)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file is read, and all are listed."""
    counted: Counter[str] = Counter()

    def count(method: str, label: str | None = None) -> None:
        seen = getattr(Storage, method)

        def counts(self: Storage, *args: Any) -> Any:
            if "photographs" not in self.root:
                counted[label or str(args[0])] += 1
            return seen(self, *args)

        monkeypatch.setattr(Storage, method, counts)

    count("read")
    count("opened")
    count("files", "list")
    return counted


@pytest.mark.parametrize("settings", FORMS)
def test_a_finished_run_is_told_by_sums(
    settings: Settings, photographs: Path, tmp_path: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expand(photographs, tmp_path / "out", settings)
    before = contents(tmp_path / "out")
    reads.clear()

    def nobody(*_: Any) -> Iterator[Any]:
        raise AssertionError("a row is read")

    monkeypatch.setattr("sgdmix_albu.expand.store.run.manifest_row", nobody)
    assert expand(photographs, tmp_path / "out", settings).written == 0
    assert reads[".sgdmix-plan.jsonl"] == 0
    assert reads["metadata.jsonl"] == 1  # for its sum
    assert reads["list"] == 1
    assert sum(reads.values()) == 6, reads  # and settings, twice; listing, once for all images; quarantine
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("settings", FORMS)
def test_a_strangers_file_does_not_keep_it_from_being_finished(
    settings: Settings, photographs: Path, tmp_path: Path
) -> None:
    expand(photographs, tmp_path / "out", settings)
    (tmp_path / "out" / "class 0").mkdir(exist_ok=True)
    (tmp_path / "out" / "class 0" / "notes.txt").write_text("mine")
    before = contents(tmp_path / "out")
    assert expand(photographs, tmp_path / "out", settings).written == 0
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("settings", FORMS)
def test_what_is_gone_beside_a_strangers_file_is_made_again(
    settings: Settings, photographs: Path, tmp_path: Path
) -> None:
    """As many files as there were, and one of another name."""
    expand(photographs, tmp_path / "out", settings)
    before = contents(tmp_path / "out")
    victim = sorted(path for path in (tmp_path / "out").rglob("*") if path.suffix in (".png", ".tar"))[0]
    victim.rename(victim.with_name("other" + victim.suffix))
    assert expand(photographs, tmp_path / "out", settings).written > 0
    assert {name: content for name, content in contents(tmp_path / "out").items() if "other" not in name} == before


def test_a_run_that_goes_on_reads_its_plan_and_its_notes_once(
    photographs: Path, tmp_path: Path, reads: Counter[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        expand(photographs, tmp_path / "out", workers=1, progress=Stop(4))
    notes = [f".sgdmix/done/{number:06d}.jsonl" for number in range(9)]
    there = [name for name in notes if (tmp_path / "out" / name).exists()]
    assert 0 < len(there) < 9
    reads.clear()
    expand(photographs, tmp_path / "out", workers=1)
    # The whole plan once, and by its workers those stretches that are left.
    assert reads[".sgdmix-plan.jsonl"] == 1 + 9 - len(there)
    for name in notes:
        # To see what is done, and for the manifest.
        assert reads[name] == (2 if name in there else 1)
