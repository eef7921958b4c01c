"""``benchmarks/speed``: it runs to its end, and what the page says is what the figures are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.speed.measure import Row, spread, timed
from benchmarks.speed.table import number, page_of, write_between
from benchmarks.where import table as where
from sgdmix_albu.errors import DataError

PEERS = {"torchvision CutMix", "torchvision MixUp", "timm Mixup, in place", "timm CutMix, in place"}


def _between(page: Path, name: str) -> str:
    found = re.search(
        rf"<!-- {name}: begin[^>]*-->\n\n(.*?)\n\n<!-- {name}: end -->", page.read_text("utf-8"), re.DOTALL
    )
    assert found is not None
    return found[1]


def _run(module: str, options: list[str], figures: Path, page: Path, repository: Path) -> Any:
    """The figures of a benchmark that is run as one would run it, into a page."""
    command = [sys.executable, "-m", module, *options, "--results", str(figures), "--write", str(page)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    subprocess.run(command, check=True, capture_output=True, cwd=figures.parent, env=environment)
    return json.loads(figures.read_text())


def test_the_whole_at_toy_size(tmp_path: Path, repository: Path) -> None:
    page, figures = tmp_path / "speed.md", tmp_path / "results.json"
    page.write_text("before\n\n<!-- speed: begin. -->\nold\n<!-- speed: end -->\n\nafter\n")
    toy = ["--batch=4", "--size=48", "--rounds=2", "--seconds=0", "--candidates", "3", "9", "--gradcam-batch=1"]
    results = _run("benchmarks.speed", toy, figures, page, repository)
    tables = {group["name"]: group for group in results["groups"]}
    mixing = {"mixing-float32", "mixing-uint8", "candidates-float32", "candidates-uint8"}
    assert set(tables) == mixing | {"saliency", "albumentations", "gradcam"}
    for group in results["groups"]:
        names = [row["name"] for row in group["rows"]]
        assert len(set(names)) == len(names)
        assert set(group["yardsticks"]) <= set(names)
        for row in group["rows"]:
            assert 0 < row["cpu_ms"]["low"] <= row["cpu_ms"]["median"] <= row["cpu_ms"]["high"]
    assert {row["name"] for row in tables["mixing-float32"]["rows"]} >= {"clone", "`SGDMix()`", *PEERS}
    assert _between(page, "speed") == page_of(results)
    assert page.read_text().startswith("before\n\n<!-- speed: begin. -->\n")
    assert page.read_text().endswith("<!-- speed: end -->\n\nafter\n")


def test_the_page_says_what_the_figures_say(repository: Path) -> None:
    results = json.loads((repository / "benchmarks" / "speed" / "results.json").read_text())
    assert _between(repository / "docs" / "speed.md", "speed") == page_of(results)


def _result(**changed: Any) -> dict[str, Any]:
    def row(name: str, cpu: float, peak: float | None) -> dict[str, Any]:
        spread = {"median": cpu, "low": cpu - 1, "high": cpu + 1}
        return {"name": name, "cpu_ms": spread, "wall_ms": spread, "calls": 3, "peak_mib": peak}

    group = {
        "name": "any", "title": "Any", "images": 4, "output_mib": 2.0, "yardsticks": ["clone"], "missing": {},
        "rows": [row("clone", 10.0, 2.0), row("`SGDMix()`", 50.0, 9.0)], **changed,
    }  # fmt: skip
    about = {"processor": "a", "cores": 2, "date": "d", "commit": "c", "images": "i", "versions": {"torch": "2"}}
    return {**about, "groups": [group]}


def test_ratios_and_memory_by_hand() -> None:
    page = page_of(_result())
    assert "|  | CPU ms | quartiles | wall ms | CPU ms an image | x clone | peak MiB | in outputs |" in page
    assert "| `SGDMix()` | 50.0 | 49.0 to 51.0 | 50.0 | 12.5 | 5.00 | 9.0 | 4.50 |" in page
    assert "Not measured: kornia (not here)." in page_of(_result(missing={"kornia": "not here"}))


def test_in_short_by_hand() -> None:
    found = _result(name="mixing-uint8", yardsticks=[])
    row = found["groups"][0]["rows"][0]
    names = {"torchvision CutMix": 8.0, '`SGDMix("given", mask="otsu", fill="source")`': 20.0, "`SGDMix()`": 400.0}
    rows = [{**row, "name": name, "cpu_ms": {**row["cpu_ms"], "median": ms}} for name, ms in names.items()]
    found["groups"][0]["rows"] = rows
    expected = (
        "In short, on one core: of an image in uint8, CutMix takes 2.00 ms, "
        '`SGDMix("given", mask="otsu", fill="source")` 5.00 ms, `SGDMix()` 100 ms.'
    )
    assert expected in page_of(found)


def test_without_memory_there_is_no_column_of_it() -> None:
    rows = [{**row, "peak_mib": None} for row in _result()["groups"][0]["rows"]]
    assert "MiB" not in page_of(_result(rows=rows))


@pytest.mark.parametrize(("value", "said"), [(1234.5, "1234"), (99.94, "99.9"), (9.994, "9.99"), (0.004, "0.00")])
def test_three_digits(value: float, said: str) -> None:
    assert number(value) == said


def test_a_page_without_the_markers_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing here")
    with pytest.raises(DataError, match=r"expected the markers 'speed' once in .*page.md, found them 0 times"):
        write_between(page, "speed", "text")
    assert page.read_text() == "nothing here"


def test_quartiles_are_numpys() -> None:
    values = [5.0, 1.0, 4.0, 9.0, 2.0, 7.0]
    expected = np.quantile(values, [0.5, 0.25, 0.75])
    assert list(spread(values).values()) == pytest.approx(expected)


def test_every_rival_has_as_many_calls_and_one_to_warm_up() -> None:
    calls = {"a": 0, "b": 0}

    def count(name: str) -> None:
        calls[name] += 1

    times = timed([Row(name, lambda name=name: count(name)) for name in calls], rounds=5, seconds=60)
    assert calls == {"a": 6, "b": 6}
    assert [found["calls"] for found in times] == [5, 5]
    (slept,) = timed([Row("a", lambda: time.sleep(0.02))], rounds=9, seconds=-1)
    assert slept["calls"] == 7
    assert slept["wall_ms"]["low"] >= 20  # milliseconds: a sleep is never shorter


_BLOCKS = """
from benchmarks.speed.measure import peak_mib

mib = 2**20

def one_after_the_other():
    for _ in range(4):
        block = bytearray(8 * mib)
        del block
    return bytearray(16 * mib)

def side_by_side():
    return [bytearray(8 * mib) for _ in range(4)]

def dropped():
    block = bytearray(24 * mib)
    del block
    return bytearray(8 * mib)

print(peak_mib(dropped), peak_mib(one_after_the_other), peak_mib(side_by_side))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the peak of a process's memory")
def test_memory_is_that_of_live_blocks(repository: Path) -> None:
    """In a process of its own, as the benchmark is: another has holes in its heap that hold a block."""
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run([sys.executable, "-c", _BLOCKS], check=True, capture_output=True, text=True, env=environment)
    assert [float(value) for value in done.stdout.split()] == pytest.approx([24, 16, 32], abs=1)


def test_where_it_belongs_at_toy_size(tmp_path: Path, repository: Path) -> None:
    page, figures = tmp_path / "speed.md", tmp_path / "where.json"
    page.write_text("<!-- where: begin. -->\n<!-- where: end -->\n")
    toy = ["--images=16", "--batch=8", "--size=48", "--workers", "1", "--rate=5000", "--device=cpu"]
    results = _run("benchmarks.where", toy, figures, page, repository)
    assert [row["name"] for row in results["rows"]][:2] == ["no mixing", "CutMix in `collate_fn`"]
    for row in results["rows"]:
        assert len(row["runs"]) == 1
        # The sleep alone lasts 1 / 5000 s an image.
        assert all(0 < run["images_per_s"] < 5000 for run in row["runs"])
        assert all(run["worker_ms"] >= 0 and run["main_ms"] > 0 for run in row["runs"])
    assert _between(page, "where") == where.page_of(results)


def test_where_by_hand() -> None:
    def run(rate: float, worker: float, main: float) -> dict[str, float]:
        return {"images_per_s": rate, "worker_ms": worker, "main_ms": main}

    about = {"processor": "a", "cores": 2, "date": "d", "commit": "c", "images": "i", "versions": {"torch": "2"}}
    rows = [
        {"name": "no mixing", "runs": [run(400, 1.0, 0.5), run(700, 3.0, 0.5), run(900, 2.0, 0.6)]},
        {"name": "ours", "runs": [run(90, 9.0, 1.0), run(80, 10.0, 1.0), run(70, 11.0, 2.0)]},
    ]
    page = where.page_of({**about, "batch": 8, "workers": [1, 4, 8], "consumer": "a sleep", "rows": rows})
    assert "| images a second at | 1 worker | 4 workers | 8 workers |" in page
    # Medians of workers, of the main process, and of both together less those of no mixing: 11.0 - 2.6.
    assert "| ours | 90 | 80 | 70 | 10.0 | 1.00 | 8.40 |" in page


def test_where_the_page_says_what_the_figures_say(repository: Path) -> None:
    results = json.loads((repository / "benchmarks" / "where" / "results.json").read_text())
    assert _between(repository / "docs" / "speed.md", "where") == where.page_of(results)


def test_ways_to_run_the_learned_saliency(tmp_path: Path, repository: Path) -> None:
    page, data = tmp_path / "speed.md", tmp_path / "data"
    page.write_text("<!-- saliency: begin. -->\nold\n<!-- saliency: end -->\n")
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
        picture = np.zeros((60, 60, 3), np.uint8)
        picture[20:40, 20:40] = (250, 120, 20) if kind == "images" else 255
        Image.fromarray(picture).save(data / kind / "a.png")
    subprocess.run(
        [sys.executable, "-m", "benchmarks.saliency_speed", data, "--quick", "--rounds=2", "--write", page],
        check=True, capture_output=True, cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)},
    )  # fmt: skip
    _, _, *lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 12
    names, _, ratios, _, overlap = zip(
        *([cell.strip() for cell in line[1:-1].split("|")] for line in lines), strict=True
    )
    assert names[0].startswith("as it is")
    assert ratios[0] == "1.00"
    assert all(float(iou) > 0.7 for iou in overlap[:10])
