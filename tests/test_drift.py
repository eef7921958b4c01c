"""The drift sweep, on a refiner and a teacher whose every verdict is known beforehand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sgdmix_albu.audit import run_drift
from sgdmix_albu.audit.charts import Curve, curves
from sgdmix_albu.audit.drift_result import Cell, DriftResult
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.refine.refiner import Refined

SIDE = 48
LIMITS = {"none": 0.4, "soft": 0.8, "strict": 1.0}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Red and blue discs on grey noise, twelve each."""
    root = tmp_path_factory.mktemp("photos")
    draws = np.random.default_rng(0)
    ys, xs = np.mgrid[:SIDE, :SIDE]
    for name, colour in (("blue", (30, 30, 230)), ("red", (230, 30, 30))):
        (root / name).mkdir()
        for number in range(12):
            image = draws.integers(110, 150, (SIDE, SIDE, 3), dtype=np.uint8)
            y, x = draws.integers(18, 30, 2)
            image[(ys - y) ** 2 + (xs - x) ** 2 < 100] = colour
            Image.fromarray(image).save(root / name / f"{number:02d}.png")
    return root


class Colour(torch.nn.Module):
    """Names the colour that there is more of: blue is class 0, red class 1."""

    def forward(self, images):
        return torch.stack([images[:, 2].mean((1, 2)), images[:, 0].mean((1, 2))], 1)


class Swapper:
    """Exchanges red and blue where the strength is above a limit of the mode: drift is 0 or all."""

    def __init__(self):
        self.calls = []

    def refine(self, images, *, classes, strength, seeds, masks, preserve):
        self.calls.append((images, tuple(seeds.tolist()), preserve, strength))
        assert masks.shape == (len(images), SIDE, SIDE)
        assert set(classes) <= {"blue", "red"}
        done = images.flip(1) if strength > LIMITS[preserve] else images.clone()
        count = len(images)
        return Refined(
            done, (strength,) * count, (int(1000 * strength),) * count, ("",) * count, (), (True,) * count, preserve
        )


class Filler(Swapper):
    """Notes where paint shows, as well."""

    def refine(self, images, *, holes, **options):
        assert holes.dtype == torch.bool
        assert holes.shape == (len(images), SIDE, SIDE)
        assert not (holes & options["masks"]).any()
        assert holes.any()
        return super().refine(images, **options)


def test_a_refiner_of_a_users_own_need_not_know_of_holes(photos, tmp_path):
    result = sweep(photos, tmp_path / "out", refiner=Swapper(), strengths=(0.5,), preserve=("soft",), fill="inpaint")
    assert result.cells


def sweep(photos, out, **options):
    given = {"refiner": Swapper(), "teacher": Colour(), "normalize": "none", "size": SIDE, "sources": 20}
    given["fill"] = "source"
    return run_drift(photos, out=out, **(given | options))


@pytest.fixture(scope="module")
def swept(photos, tmp_path_factory):
    refiner = Swapper()
    result = sweep(photos, tmp_path_factory.mktemp("drift") / "out", refiner=refiner, strengths=(0.9, 0.3, 0.5))
    return result, refiner


def test_drift_is_what_the_refiner_did(swept):
    result, _ = swept
    count = result.before.count
    assert count == result.sources - result.unmixed - result.misnamed > 10
    assert result.before.drifted == 0
    for mode, limit in LIMITS.items():
        for strength in (0.3, 0.5, 0.9):
            cell = result.cell(mode, strength)
            expected = count if strength > limit else 0
            assert (cell.drifted, cell.added, cell.count) == (expected, expected, count)
            assert cell.timestep == int(1000 * strength)


def test_all_cells_see_the_same_images_and_seeds(swept):
    _, refiner = swept
    images, seeds, *_ = refiner.calls[0]
    assert [call[2:] for call in refiner.calls] == [(m, s) for m in ("none", "soft", "strict") for s in (0.3, 0.5, 0.9)]
    assert all(torch.equal(call[0], images) and call[1] == seeds for call in refiner.calls)


def test_the_answer_in_a_sentence(swept):
    result, _ = swept
    n = result.before.count
    assert result.answer == f"Yes, above S = 0.7: none {n}/{n}, soft {n}/{n}."  # strict added none
    assert result.details[0].startswith(f"none: {n} of {n} (100%")
    assert result.details[2].startswith(f"strict: not seen in {n} images (at most")
    assert result.sentence.startswith(f"{result.answer} {result.details[0]}; ")
    assert "intervals are wide" in result.caveat


def test_what_a_notebook_shows(swept):
    result, _ = swept
    assert len(repr(result)) < 300
    page = result._repr_html_()
    assert result.answer in page
    assert page.count("<tr>") == 2 + len(result.strengths)


def test_the_files(swept):
    result, _ = swept
    names = {path.name for path in result.folder.iterdir()}
    assert names == set(result.files)
    content = json.loads((result.folder / "drift.json").read_text())
    assert content["sentence"] == result.sentence
    assert len(content["cells"]) == 10
    page = result.report.read_text()
    assert page.count("<h2>preserve=") == 3
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert (result.folder / "drift.svg").read_text().count("<polyline") == 3
    with Image.open(result.folder / "grid-none.png") as sheet:
        wrong = np.asarray(sheet)[..., :3] == (213, 94, 0)
    with Image.open(result.folder / "grid-strict.png") as sheet:
        right = np.asarray(sheet)[..., :3] == (213, 94, 0)
    assert wrong.all(-1).sum() > 1000  # frames
    assert right.all(-1).sum() == 0


def test_the_table(swept):
    lines = swept[0].table().splitlines()
    assert lines[0].split() == ["S", "none", "soft", "strict"]
    assert [line.split()[0] for line in lines[1:]] == ["0", "0.3", "0.5", "0.9"]
    assert "100%" in lines[3]


def test_sources_that_the_teacher_misnames_are_left_out(photos, tmp_path):
    class Blue(torch.nn.Module):
        def forward(self, images):
            return torch.tensor([[1.0, 0.0]]).expand(len(images), 2)

    result = sweep(photos, tmp_path / "out", teacher=Blue(), strengths=(0.9,), preserve=("none",))
    assert result.misnamed > 5
    assert result.before.count + result.misnamed + result.unmixed >= result.sources
    assert result.cell("none", 0.9).drifted == 0  # whatever it is shown it calls blue

    class Neither(torch.nn.Module):
        def forward(self, images):
            return torch.tensor([[0.0, 0.0, 1.0]]).expand(len(images), 3)

    with pytest.raises(DataError, match="no source can be judged"):
        sweep(photos, tmp_path / "none", teacher=Neither())
    assert not (tmp_path / "none").exists()


def test_a_teacher_is_trained_where_none_is_given(photos, tmp_path):
    result = sweep(photos, tmp_path / "out", teacher=None, strengths=(0.9,), preserve=("none",))
    assert result.teacher_accuracy == 1.0  # red and blue are not hard
    assert result.before.count > 10


def test_a_refiner_is_told_where_paint_shows(photos, tmp_path):
    result = sweep(photos, tmp_path / "out", refiner=Filler(), strengths=(0.5,), preserve=("soft",), fill="inpaint")
    assert result.settings["fill"] == "inpaint"


def test_no_strength_above_the_question(photos, tmp_path):
    result = sweep(photos, tmp_path / "out", strengths=(0.5,), preserve=("strict",))
    assert result.answer == "Not known: no strength above 0.7 was measured."


def test_overwriting(photos, tmp_path):
    sweep(photos, tmp_path / "out", strengths=(0.5, 0.9))
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        sweep(photos, tmp_path / "out")
    result = sweep(photos, tmp_path / "out", strengths=(0.5,), preserve=("none",), overwrite=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*result.files, "mine.txt", ".sgdmix-lock"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strengths": (0.0,)}, "strengths"),
        ({"strengths": 0.5}, "strengths"),
        ({"strengths": ("0.5",)}, "strengths"),
        ({"preserve": 5}, "preserve"),
        ({"fill": "paint"}, "fill must be one of source, inpaint, got 'paint'"),
        ({"preserve": "none"}, "preserve"),
        ({"preserve": ("hard",)}, "preserve"),
        ({"sources": 0}, "sources"),
    ],
)
def test_settings_that_mean_nothing(photos, tmp_path, options, message):
    with pytest.raises(InvalidInputError, match=message):
        sweep(photos, tmp_path / "out", **options)


def test_images_without_classes(tmp_path):
    for number in range(3):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    with pytest.raises(DataError, match="needs classes"):
        sweep(tmp_path, tmp_path.parent / "drift-out")


def test_a_weak_teacher_is_a_doubt():
    cells = (Cell("none", 0.0, None, 0, 100), Cell("none", 0.9, 900, 0, 100))
    result = DriftResult(Path(), cells, 100, 0, 0, 0.5, {}, ())
    assert "classifies 50% of held-out" in result.caveat
    assert result.answer == "No change of class was seen above S = 0.7."


def result_of(*cells, accuracy=None):
    return DriftResult(Path(), cells, 100, 0, 0, accuracy, {}, ())


def test_what_drifted_in_the_mix_is_not_refinements_doing():
    result = result_of(Cell("none", 0.0, None, 5, 100), Cell("strict", 0.9, 841, 5, 100, added=0))
    assert not result.changed
    assert result.details == (
        "strict: not seen in 95 images (at most 4%)",
        "before refinement: 5 of 100 (5%, 95% interval 2% to 11%)",
    )


def test_the_answer_blames_refinement_only_for_what_it_added():
    before = Cell("none", 0.0, None, 53, 100)
    result = result_of(before, Cell("none", 0.9, 841, 56, 100, added=4), Cell("strict", 0.9, 841, 53, 100, added=0))
    assert result.answer == "Yes, above S = 0.7: none 4/100."


def test_the_worst_strength_is_the_one_that_adds_most():
    result = result_of(
        Cell("none", 0.0, None, 5, 100), Cell("soft", 0.9, 841, 6, 100, 1), Cell("soft", 1.0, 961, 5, 100, 5)
    )
    assert "at S = 1, 5 added by refinement" in result.details[0]


def test_every_reason_to_doubt_is_given():
    result = result_of(Cell("none", 0.0, None, 0, 20), Cell("none", 0.9, 841, 0, 20), accuracy=0.3)
    assert "Only 20 images were" in result.caveat
    assert "Only 1 image was judged" in result_of(Cell("none", 0.0, None, 0, 1)).caveat
    assert "classifies 30% of held-out" in result.caveat


def test_curves_are_where_the_numbers_say():
    chart = curves([Curve("a", [(0.0, 0.0, 0.0, 0.1), (1.0, 0.5, 0.25, 1.0)])], "t", across="x", up="y", limit=0.5)
    points = re.search(r'points="([^"]+)"', chart).group(1).split()
    assert points[0] == "67.0,266.0"  # the origin, three to the left to stand beside other curves
    assert points[1] == "427.0,153.0"  # the right end, half way up
    assert "stroke-dasharray" in chart
