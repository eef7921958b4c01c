"""What a dry run expects: work is multiplied, starting is not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from expand_helpers import write_tree

from sgdmix_albu.datasets.source import open_source
from sgdmix_albu.expand.forecast import forecast
from sgdmix_albu.expand.summary import Expansion
from sgdmix_albu.io.storage import Storage


@dataclass
class Cluster:
    """Three workers; what they are given does not matter here."""

    def run(self, make: Any, items: Any) -> Any:
        raise NotImplementedError

    def concurrency(self) -> int:
        return 3

    def close(self) -> None: ...


def done(out: Storage) -> Expansion:
    """Of a trial with 4 sources and 8 outputs: 20 s to start, 1.5 s a source for two, 3 s an output for three."""
    return Expansion(
        out=out.root,
        sources=4,
        planned=8,
        written=8,
        lost=0,
        left_out=Counter(),
        unmixed=Counter(),
        skipped=[],
        came=[],
        ignored=Counter(),
        seconds={"saliency and masks": 20 + 4 * 1.5 / 2, "plan": 0.4, "mixing": 20 + 8 * 3 / 3, "manifest": 0.8},
        described=4,
        describing=4 * 1.5,
        describers=2,
        stages={"mix": 8 * 1.0, "write": 8 * 2.0},
        size=8000,
    )


@pytest.mark.parametrize("shared", [True, False])
def test_work_is_multiplied_and_starting_is_not(tmp_path: Path, shared: bool) -> None:
    source = open_source(write_tree(tmp_path / "data", classes=3, images=4))
    seen: list[Storage] = []

    def trial(out: Storage) -> Expansion:
        seen.append(out)
        out.write("class 0/1.png", b"x")
        return done(out)

    out = Storage(tmp_path / "out")
    expected = forecast(source, source.thinned(4), 5, Cluster(), trial, out if shared else None)
    assert (expected.sources, expected.classes, expected.outputs, expected.tried) == (12, 3, 60, 8)
    assert expected.seconds == pytest.approx(
        {
            "saliency and masks": 20 + 12 * 1.5 / 2,
            "plan": 0.4 * 3,
            "mixing": 20 + 60 * 3 / 3,
            "manifest": 0.8 * 60 / 8,
        }
    )
    assert expected.size == 60 * 1000
    assert seen[0].root.startswith(out.root) == shared  # workers elsewhere see no temporary folder of this machine
    assert out.sizes() == {}
    assert not Path(seen[0].root).exists()
