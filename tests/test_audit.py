"""The audit end to end, on drawn pictures whose masks are known."""

from __future__ import annotations

import html
import json
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sgdmix_albu.audit import run_audit
from sgdmix_albu.audit.output import write_together
from sgdmix_albu.audit.result import AuditResult
from sgdmix_albu.cli import parser
from sgdmix_albu.datasets.sample import draw_sample, resized_mask
from sgdmix_albu.datasets.source import open_source
from sgdmix_albu.errors import DataError, InvalidInputError, UnknownNameError
from sgdmix_albu.io.lock import locked
from sgdmix_albu.types import BEST_SALIENCY, Foreground

SIDE = 48
HOSTILE = ["<script>alert('class')<!--", "\"onerror=alert(1) & 'x"]


def red_disc(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A red disc near the middle of green noise, and where it is."""
    y, x = np.mgrid[:SIDE, :SIDE]
    cy, cx = generator.uniform(20, 28, 2)
    mask = (y - cy) ** 2 + (x - cx) ** 2 < generator.uniform(10, 14) ** 2
    image = generator.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
    image[..., 1] += 100
    image[mask] = (230, 20, 20)
    return image, mask


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    """A class-per-folder tree ``images`` and its true masks ``masks``; the classes' names are hostile."""
    generator = np.random.default_rng(0)
    for name in HOSTILE:
        for kind in ("images", "masks"):
            (tmp_path / kind / name).mkdir(parents=True)
        for number in range(8):
            image, mask = red_disc(generator)
            Image.fromarray(image).save(tmp_path / "images" / name / f"{number} <b>.png")
            Image.fromarray(mask).save(tmp_path / "masks" / name / f"{number} <b>.png")
    return tmp_path


def redness(images: Tensor) -> Tensor:
    """A saliency backend that is right about red discs."""
    return (images[:, 0] - images[:, 1]).clamp_min(0)


def whiteness(images: Tensor) -> Tensor:
    """As right, by another name."""
    return images[:, 0]


def greenness(images: Tensor) -> Tensor:
    """A saliency backend that keeps the background."""
    return images[:, 1]


def upper_half(maps: Tensor, images: Tensor) -> Foreground:
    """A mask preset that cuts every object."""
    masks = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
    masks[:, : images.shape[2] // 2 - 2] = True
    return Foreground(masks, maps.new_zeros(len(maps)))


def nearly_all(maps: Tensor, images: Tensor) -> Foreground:
    """A mask preset that keeps all but a thin edge."""
    masks = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
    masks[:, 2:-2, 2:-2] = True
    return Foreground(masks, maps.new_zeros(len(maps)))


def thin_or_thick(maps: Tensor, images: Tensor) -> Foreground:
    """A mask preset of three columns, or of thirty, by turns."""
    masks = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
    masks[::2, :, :3], masks[1::2, :, 10:40] = True, True
    return Foreground(masks, maps.new_zeros(len(maps)))


def nothing(maps: Tensor, images: Tensor) -> Foreground:
    """A mask preset that finds nothing."""
    return Foreground(torch.zeros(len(images), *images.shape[2:], dtype=torch.bool), maps.new_zeros(len(maps)))


def audit(discs: Path, *, truth: bool = True, out: str = "out", **settings: object) -> AuditResult:
    defaults: dict[str, object] = {"saliency": [redness], "mask": ["otsu"], "pairs": 12, "samples": 3, "size": SIDE}
    defaults["fill"] = "source"
    masks = discs / "masks" if truth else None
    return run_audit(discs / "images", masks=masks, out=discs / out, **{**defaults, **settings})  # type: ignore[arg-type]


def test_a_backend_that_is_right_is_trusted(discs: Path) -> None:
    result = audit(discs)
    (found,) = result.variants
    assert (result.level, found.name, result.measured) == ("trusted", "redness + otsu", 12)
    assert found.means["coverage"] == pytest.approx(1, abs=0.02)
    assert found.means["spill"] == pytest.approx(0, abs=0.01)
    assert found.means["leak"] == pytest.approx(0, abs=0.02)
    assert (found.incomplete, found.leaking, found.unmixed) == (0, 0, 0)


def test_masks_that_cut_their_objects_are_not_trusted(discs: Path) -> None:
    result = audit(discs, mask=[upper_half])
    assert result.level == "untrusted"
    assert result.verdict.startswith("100% (95% interval 76% to 100%) of the masks hold less than 75% of their object")
    assert result.answer == "Do not trust these masks: 100% miss part of their object."
    assert result.variants[0].incomplete == 1
    assert result.variants[0].advice


def test_painted_targets_leak_what_their_holes_leave(discs: Path) -> None:
    """A mask of the upper 22 of 48 rows; its hole has a rim of one more."""
    shown = {"source": 22, "inpaint": 23}
    for fill, first in shown.items():
        (found,) = audit(discs, mask=[upper_half], fill=fill, out=fill).variants
        for row in found.samples:
            truth = np.asarray(Image.open(discs / "masks" / row["target"]).convert("L")) > 0
            assert row["leak"] == pytest.approx(truth[first:].sum() / truth.sum(), abs=1e-4)
            assert row["kept"] == pytest.approx(22 / 48, abs=1e-4)


def test_what_is_said_of_painted_targets(discs: Path) -> None:
    result = audit(discs, fill="inpaint", mask=["otsu", upper_half])
    right, halved = result.variants
    assert right.level == "trusted"
    assert right.means["kept"] == pytest.approx(right.means["mask area"])
    assert right.means["leak"] == pytest.approx(0, abs=0.01)
    assert {"void", "overlap", "relative distance"}.isdisjoint(right.means)
    # Of all but the upper 22 rows the hole takes one.
    assert halved.means["painted"] == pytest.approx(1 / 26)
    assert [sign.name for sign in right.signs] == [
        "saliency failure",
        "mask too greedy",
        "geometry mismatch",
        "mostly paint",
    ]
    page = (discs / "out" / "report.html").read_text()
    assert 'alt="plate of ' in page
    assert 'alt="union of ' not in page
    command = html.unescape(re.search(r"<pre>(.*?)</pre>", page, re.DOTALL)[1])  # type: ignore[index]
    assert "fill='inpaint'" in command


def test_moved_objects_are_shown_and_noted(discs: Path) -> None:
    still, moving = (audit(discs, fill="inpaint", place=place, out=place) for place in ("source", "random"))
    assert moving.settings["place"] == "random"
    kept, moved = (one.variants[0].means for one in (still, moving))
    assert moved["mask area"] == kept["mask area"]
    assert moved["kept"] != kept["kept"]
    assert moved["leak"] == pytest.approx(0, abs=0.01)


def test_paint_that_fills_the_background_is_a_sign(discs: Path) -> None:
    found = audit(discs, truth=False, fill="inpaint", mask=[thin_or_thick]).variants[0]
    (sign,) = (sign for sign in found.signs if sign.name == "mostly paint")
    onto_thick = [row for row in found.samples if row["painted"] is not None and row["painted"] > 0.4]
    assert sign.count == len(onto_thick) > 0
    assert {row["key"] for row in onto_thick} >= set(sign.worst)


def test_the_twenty_per_cent_rule_counts_images(discs: Path) -> None:
    """Ten of twelve masks are right: 17% incomplete passes; nine of twelve, 25%, does not; eight of ten, 20%, does."""
    from sgdmix_albu.audit.signs import SIGNS
    from sgdmix_albu.audit.verdict import judge

    coverage = torch.ones(12)
    measures = {"spill": torch.zeros(12), "leak": torch.zeros(12), "coverage": coverage}
    quiet = {sign.name: [] for sign in SIGNS}
    coverage[:2] = 0.74
    assert judge(measures, quiet, torch.ones(12, dtype=torch.bool), ("a", "b")).level == "trusted"
    coverage[2] = 0.74
    assert judge(measures, quiet, torch.ones(12, dtype=torch.bool), ("a", "b")).level == "untrusted"
    exactly = {name: torch.tensor([0.74] * 2 + [1.0] * 8) for name in ("coverage", "spill")} | {"leak": torch.zeros(10)}
    assert judge(exactly, quiet, torch.ones(10, dtype=torch.bool), ("a", "b")).level == "trusted"
    assert judge({}, quiet, torch.tensor([False] * 2 + [True] * 8), ("a", "b")).level == "unproven"
    leaking = {**measures, "coverage": torch.ones(12), "leak": torch.linspace(0, 1, 12)}
    verdict = judge(leaking, quiet, torch.ones(12, dtype=torch.bool), ("a", "b"))
    assert verdict.level == "untrusted"
    assert "target's object shows" in verdict.sentence


@pytest.mark.parametrize(("preset", "sign"), [(nearly_all, "mask too greedy"), (nothing, "saliency failure")])
def test_signs_without_true_masks(discs: Path, preset: object, sign: str) -> None:
    found = audit(discs, truth=False, mask=[preset]).variants[0]
    assert {row.name: row.share for row in found.signs if row.count} == {sign: 1.0}
    assert found.incomplete is None
    assert "coverage" not in found.means


def test_a_notebook_shows_the_answer_and_a_few_samples(discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the twenty thousand characters of all figures; and the whole report where it is asked for."""
    result = audit(discs)
    assert len(repr(result)) < 300
    assert result.answer in repr(result)
    page = result._repr_html_()
    assert (page.count("<tr>"), page.count("<img ")) == (1 + len(result.variants), 1)
    assert len(page) < 60_000
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    result.show()
    assert opened == [result.report.resolve().as_uri()]
    shown: list[str] = []
    kernel = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: kernel))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=shown.append))
    result.show()
    assert html.unescape(re.findall('srcdoc="([^"]*)"', shown[0])[0]) == result.report.read_text()
    for file in result.files:
        (result.folder / file).unlink()
    assert "<img " not in result._repr_html_()


def test_no_sign_is_no_proof(discs: Path) -> None:
    """Discs of one kind under right masks: nothing to warn of, and still not called trusted."""
    result = audit(discs, truth=False)
    assert result.level == "unproven"
    assert "Without true masks this proves nothing" in result.verdict


def test_a_watermark_is_a_saliency_failure(discs: Path) -> None:
    for path in sorted((discs / "images").rglob("*.png")):
        image = np.asarray(Image.open(path)).copy()
        image[-9:, -9:] = (255, 0, 0)
        Image.fromarray(image).save(path)

    def watermark(images: Tensor) -> Tensor:
        return (images[:, 0] > 0.99).float()

    found = audit(discs, truth=False, saliency=[watermark]).variants[0]
    assert {row.name: row.share for row in found.signs}["saliency failure"] == 1
    page = (discs / "out" / "report.html").read_text()
    assert "100% of the saliency sits in one corner" in page


def test_a_word_in_the_same_place_is_a_saliency_failure(discs: Path) -> None:
    """It takes a small part of the saliency of each image, so only the mean of all maps shows it."""
    for path in sorted((discs / "images").rglob("*.png")):
        with Image.open(path) as opened:
            image = np.asarray(opened).copy()
        image[-6:-2, -14:-2] = (180, 20, 20)
        Image.fromarray(image).save(path)
    found = audit(discs, truth=False, saliency=[redness]).variants[0]
    assert {row.name: row.share for row in found.signs}["saliency failure"] > 0.5
    assert "on a small spot that many images share" in (discs / "out" / "report.html").read_text()


def test_the_report_says_how_to_repeat_it(discs: Path) -> None:
    settings = {"pairs": 4, "samples": 2, "candidates": 50, "seed": 3, "agreement_with": "none"}
    named = run_audit(discs / "images", out=discs / "a b", saliency=["spectral_residual"], mask=["otsu"], **settings)
    page = named.report.read_text()
    command = page.partition("<pre>")[2].partition("</pre>")[0]
    words = shlex.split(html.unescape(command))
    arguments = vars(parser().parse_args(words[1:]))
    assert arguments["data"] == str(discs / "images")
    assert {name: arguments[name] for name in ("pairs", "samples", "seed")} == {"pairs": 4, "samples": 2, "seed": 3}
    assert arguments["agreement_with"] == "none"
    objects = audit(discs, mask=["otsu", upper_half])
    call = html.unescape(objects.report.read_text().partition("<pre>")[2].partition("</pre>")[0])
    assert call.startswith("run_audit(data=")
    assert "saliency=[redness], mask=['otsu', upper_half]" in call


def test_a_better_backend_sees_what_a_mask_lacks(discs: Path) -> None:
    """The figures are those that the true masks give, since the better backend is right about every disc."""
    found = audit(discs, mask=[upper_half], saliency=[whiteness], agreement_with=redness).variants[0]
    assert found.better == "redness"
    for row in found.samples:
        assert row["agreement"] == pytest.approx(row["coverage"], abs=0.02)
        assert row["seen of target"] == pytest.approx(row["leak"], abs=0.05)  # less the thinnest tips of a half disc
    signs = {sign.name: sign for sign in found.signs}
    assert (signs["doubtful mask"].share, signs["target shows"].share) == (1, 1)
    worst = sorted(found.samples, key=lambda row: row["agreement"])
    assert signs["doubtful mask"].worst == tuple(row["key"] for row in worst)
    page = (discs / "out" / "report.html").read_text()
    assert "Compared with the masks of redness." in page
    assert re.search(r"mask holds only \d+% of the object that redness sees", page)
    assert (discs / "out" / "doubtful-whiteness-upper_half.png").is_file()


def test_masks_that_agree_raise_no_doubt(discs: Path) -> None:
    found = audit(discs, truth=False, saliency=[whiteness], agreement_with=redness).variants[0]
    assert found.level == "unproven"
    assert {sign.name: sign.count for sign in found.signs} == dict.fromkeys(
        (
            "saliency failure",
            "mask too greedy",
            "geometry mismatch",
            "occlusion or void",
            "doubtful mask",
            "target shows",
        ),
        0,
    )
    assert not list((discs / "out").glob("doubtful-*"))


def test_frequent_doubts_are_said_first(discs: Path) -> None:
    result = audit(discs, truth=False, mask=[upper_half], saliency=[whiteness], agreement_with=redness)
    assert result.level == "doubtful"
    assert "doubtful mask on 100% (95% interval" in result.verdict
    assert "target shows on 100% (95% interval" in result.verdict


def test_nobody_judges_a_backend_that_may_be_better(discs: Path) -> None:
    """The default judges what is known to measure worse; a named one all but itself; and "none" is nobody."""

    def judges(**settings: object) -> list[str | None]:
        result = audit(discs, saliency=[redness, "spectral_residual"], pairs=3, overwrite=True, **settings)
        return [found.better for found in result.variants]

    assert judges() == [None, BEST_SALIENCY]
    assert judges(agreement_with="spectral_residual") == ["spectral_residual", None]
    assert judges(agreement_with="none") == [None, None]
    assert judges(agreement_with=redness) == [None, "redness"]
    best = audit(discs, saliency=[BEST_SALIENCY], pairs=3, out="best").variants[0]
    assert best.better is None
    assert "No better backend was asked" in (discs / "best" / "report.html").read_text()


def test_a_classifier_that_looks_elsewhere_is_a_witness(discs: Path) -> None:
    """It sees redness alone, and the masks keep everything but what is red."""
    pytest.importorskip("captum")
    looks = nn.Conv2d(3, 8, 1, bias=False)
    model = nn.Sequential(looks, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2, bias=False))
    with torch.no_grad():
        looks.weight[:] = torch.tensor([1.0, -1.0, 0.0])[:, None, None]
        model[4].weight.fill_(1)
    found = audit(discs, saliency=[greenness], model=model, normalize="none", agreement_with="none").variants[0]
    signs = {sign.name: sign.share for sign in found.signs}
    assert signs["doubtful mask"] == 1
    assert "target shows" not in signs
    assert found.means["evidence outside"] > 0.9
    assert "Compared with where the classifier looks." in (discs / "out" / "report.html").read_text()


def test_nothing_mixed_is_not_trusted(discs: Path) -> None:
    result = audit(discs, mask=[nothing])
    assert result.level == "untrusted"
    assert result.answer == "Do not use this: 100% of the sources stayed unmixed."
    assert result.variants[0].guards["empty_mask"] == 12


def test_comparison_ranks_the_variants(discs: Path) -> None:
    result = audit(discs, saliency=[redness, "spectral_residual"], mask=["otsu", upper_half])
    assert [found.name for found in result.variants] == [
        "redness + otsu",
        "redness + upper_half",
        "spectral_residual + otsu",
        "spectral_residual + upper_half",
    ]
    assert result.best == "redness + otsu"
    assert (discs / "out" / "comparison.png").is_file()
    # The pairs may differ, the sources may not.
    keys = [[row["key"] for row in found.samples] for found in result.variants]
    assert all(row == keys[0] for row in keys)


def test_the_same_seed_gives_the_same_audit(discs: Path) -> None:
    def figures(result: AuditResult) -> object:
        return [(found.samples, found.signs, found.means) for found in result.variants]

    first, again = audit(discs, out="a"), audit(discs, out="b")
    assert figures(first) == figures(again)
    other = audit(discs, out="c", seed=1)
    assert figures(other) != figures(first)
    name = first.files[2]
    assert (discs / "a" / name).read_bytes() == (discs / "b" / name).read_bytes()


def test_hostile_names_stay_text(discs: Path) -> None:
    audit(discs, samples=12)
    page = (discs / "out" / "report.html").read_text()
    assert "<script" not in page
    assert "<b>.png" not in page
    assert "&lt;script&gt;alert(" in page
    # Quotes would end an attribute: every alt text that holds one is escaped.
    assert 'alt="source of "' not in page
    assert not re.search(r"<[^>]*\son\w+=", page)


def test_the_page_needs_nothing_else(discs: Path) -> None:
    audit(discs)
    page = (discs / "out" / "report.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="(?!data:image/)', page)
    assert "url(" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_json_holds_what_was_returned(discs: Path) -> None:
    result = audit(discs)
    stored = json.loads((discs / "out" / "audit.json").read_text())
    assert stored == json.loads(json.dumps(result.to_json()))
    assert stored["settings"]["seed"] == 0
    assert stored["versions"]["torch"]
    assert sorted(path.name for path in (discs / "out").iterdir()) == sorted(stored["files"])


def test_a_full_folder_is_refused_then_replaced(discs: Path) -> None:
    audit(discs, mask=["otsu", upper_half])
    mine = discs / "out" / "notes.txt"
    mine.write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        audit(discs)
    result = audit(discs, overwrite=True)
    left = sorted(path.name for path in (discs / "out").iterdir())
    assert left == sorted([*result.files, "notes.txt", ".sgdmix-lock"])
    assert mine.read_text() == "mine"


def test_two_audits_at_once_do_not_mix_their_files(tmp_path: Path) -> None:
    """The folder was empty when the second began, or it waits for nobody and says whom it met."""
    out, files = tmp_path / "out", {"report.html": "mine", "audit.json": '{"files": ["report.html"]}'}
    write_together(out, "audit.json", files, overwrite=False)
    with pytest.raises(DataError, match="out was filled by another process during the run"):
        write_together(out, "audit.json", {"report.html": "theirs"}, overwrite=False)
    with locked(out, "sgdmix audit"), pytest.raises(DataError, match=r"another sgdmix process .* sgdmix audit"):
        write_together(out, "audit.json", {"report.html": "theirs"}, overwrite=True)
    assert (out / "report.html").read_text() == "mine"
    assert not list(tmp_path.glob(".sgdmix-*"))


def test_an_index_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "audit.json").symlink_to("/dev/zero")
    write_together(tmp_path, "audit.json", {"audit.json": "{}"}, overwrite=True)
    assert (tmp_path / "audit.json").read_text() == "{}"
    assert not (tmp_path / "audit.json").is_symlink()


def test_an_earlier_list_cannot_delete_elsewhere(discs: Path) -> None:
    out = discs / "out"
    out.mkdir()
    (out / "audit.json").write_text(json.dumps({"files": ["../images", "../keep.txt", ".."]}))
    (discs / "keep.txt").write_text("keep")
    audit(discs, overwrite=True)
    assert (discs / "keep.txt").read_text() == "keep"


def test_a_failure_leaves_nothing_behind(discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("disk full")

    before = sorted(discs.iterdir())
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="disk full"):
        audit(discs)
    assert sorted(discs.iterdir()) == before


def test_broken_files_are_listed(discs: Path) -> None:
    broken = discs / "images" / HOSTILE[0] / "broken.jpg"
    broken.write_bytes(b"no image")
    result = audit(discs, truth=False)
    ((key, reason),) = result.skipped
    assert key.endswith("broken.jpg")
    assert "not an image" in reason


def test_a_flat_folder_has_no_classes(discs: Path) -> None:
    flat = discs / "images" / HOSTILE[0]
    result = run_audit(flat, out=discs / "out", saliency=[redness], mask=["otsu"], pairs=4, samples=2, size=SIDE)
    assert result.measured == 4
    assert not list((discs / "out").glob("classes-*"))


def test_every_class_is_shown_though_few_are_measured(discs: Path) -> None:
    source = open_source(discs / "images")
    sample = draw_sample(source, measured=1, candidates=3, shown_classes=24, size=SIDE, seed=0)
    assert (sample.measured, sample.sources, len(sample.keys)) == (1, 2, 5)
    assert set(sample.classes[:2]) == set(HOSTILE)
    assert len(set(sample.keys)) == 5


def test_masks_are_matched_by_name(discs: Path) -> None:
    first = next((discs / "masks").rglob("*.png"))
    first.unlink()
    source = open_source(discs / "images", masks=discs / "masks")
    assert len(source.items) == 15
    Image.new("L", (SIDE, SIDE // 2)).save(first)
    sample = draw_sample(
        open_source(discs / "images", masks=discs / "masks"),
        measured=16,
        candidates=1,
        shown_classes=0,
        size=SIDE,
        seed=0,
    )
    assert len(sample.keys) == 15
    assert "expected the same shape" in sample.skipped[0][1]


def test_a_mask_of_ones_is_a_mask() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 1
    assert np.array_equal(resized_mask(Image.fromarray(mask), 8), mask.astype(bool))


def test_what_cannot_work_is_refused_before_any_work(discs: Path, tmp_path: Path) -> None:
    images = discs / "images"
    with pytest.raises(InvalidInputError, match="either data or dataset"):
        run_audit(out=tmp_path / "x")
    with pytest.raises(InvalidInputError, match="has its own true masks"):
        run_audit(dataset="aviary", masks=images, out=tmp_path / "x")
    with pytest.raises(UnknownNameError, match="did you mean 'aviary'"):
        run_audit(dataset="aviari", out=tmp_path / "x")
    with pytest.raises(DataError, match="found no true mask for any of 16 images; for .* expected"):
        run_audit(images, masks=discs / "masks" / HOSTILE[0], out=tmp_path / "x")
    with pytest.raises(InvalidInputError, match="must be a list"):
        run_audit(images, out=tmp_path / "x", saliency="spectral_residual")
    with pytest.raises(InvalidInputError, match="more than once"):
        run_audit(images, out=tmp_path / "x", mask=["otsu", "otsu"])
    with pytest.raises(InvalidInputError, match="pairs must be a positive integer, got 0"):
        run_audit(images, out=tmp_path / "x", pairs=0)
    with pytest.raises(UnknownNameError, match="spectral_residual"):
        run_audit(images, out=tmp_path / "x", saliency=["spectral_residul"])
    with pytest.raises(InvalidInputError, match="must be another backend than the one audited, got 'spectral_residual"):
        run_audit(
            images, out=tmp_path / "x", saliency=["spectral_residual"], agreement_with="spectral_residual", pairs=1
        )
    (tmp_path / "one/owl").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "one/owl/1.png")
    with pytest.raises(InvalidInputError, match="target_class='different' needs two classes, and .*one has one"):
        run_audit(tmp_path / "one", out=tmp_path / "x", target_class="different")
    (tmp_path / "alone" / "class").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "alone" / "class" / "1.png")
    with pytest.raises(DataError, match="at least two readable images, found 1"):
        run_audit(tmp_path / "alone", out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_real_photographs(shared_data: Path, tmp_path: Path) -> None:
    result = run_audit(
        shared_data / "objects" / "images",
        masks=shared_data / "objects" / "masks",
        out=tmp_path / "out",
        saliency=["spectral_residual"],
        mask=["otsu"],
        pairs=20,
        candidates=20,
        samples=2,
        size=96,
    )
    # Raw spectral residual is known to cover about half of an object.
    assert result.level == "untrusted"
    assert 0.25 < (result.variants[0].means["coverage"] or 0) < 0.65
