"""Doubtful images are neither sources nor targets, and are counted: a better backend is asked, from end to end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from expand_helpers import bright, brightness, contents, expand, pixels, rows_of, write_tree
from safetensors.torch import load_file, save_file
from torch import Tensor

from sgdmix_albu.cli import main
from sgdmix_albu.errors import DataError, InvalidInputError, UnknownNameError
from sgdmix_albu.expand import Settings, mix_folder
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.masks import get_mask, register_mask
from sgdmix_albu.saliency import get_backend, register_backend
from sgdmix_albu.saliency.salient_object import EMBEDDED
from sgdmix_albu.types import BEST_MASK, BEST_SALIENCY, Foreground

LEAST = 0.6


def left(maps: Tensor, images: Tensor) -> Foreground:
    """A preset that sees the left half of an image alone: how much of a disc it holds is a matter of luck."""
    masks, thresholds = bright(maps, images)
    masks = masks.clone()
    masks[:, :, images.shape[3] // 2 :] = False
    return Foreground(masks, thresholds)


@pytest.fixture(autouse=True)
def half_blind() -> None:
    register_backend("worse", brightness)
    register_backend("better", brightness)
    register_mask("left", left)


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("discs"), classes=3, images=6)


def agreements(discs: Path) -> dict[str, float]:
    """Of each image, by the definition: |M and R| / |R|."""
    found = {}
    for path in sorted(discs.rglob("*.png")):
        image = torch.from_numpy(pixels(path).copy()).movedim(2, 0)[None]
        maps = get_backend("better").coarse(image)
        mine, theirs = (
            {*np.flatnonzero(get_mask(preset)(maps, image).masks.numpy())} for preset in ("left", BEST_MASK)
        )
        found[path.relative_to(discs).as_posix()] = len(mine & theirs) / len(theirs)
    return found


SETTINGS = Settings(saliency="worse", mask="left", multiplier=2, min_agreement=LEAST, agreement_with="better")


def mix(discs: Path, out: Path, **settings: Any) -> Any:
    chosen = {"saliency": "worse", "mask": "left", "min_agreement": LEAST, "agreement_with": "better", **settings}
    return mix_folder(discs, out, progress=Progress(quiet=True), **chosen)


def test_mix_leaves_doubtful_images_as_they_are(discs: Path, tmp_path: Path) -> None:
    summary, known = mix(discs, tmp_path / "out"), agreements(discs)
    doubtful = {key for key, agreement in known.items() if agreement < LEAST}
    assert 3 < len(doubtful) < 15
    rows = rows_of(tmp_path / "out")
    empty = {row["source"] for row in rows if row["unmixed_because"] == "empty_mask"}
    assert {row["source"] for row in rows if row["unmixed_because"] == "doubtful"} == doubtful - empty
    assert summary.unmixed["doubtful"] == len(doubtful - empty)
    assert "the mask's agreement is below --min-agreement" in str(summary)
    for row in rows:
        assert row["source_agreement"] == pytest.approx(known[row["source"]], abs=1e-6)
        assert (row["min_agreement"], row["agreement_with"]) == (LEAST, "better")
        if row["mixed"]:
            assert row["target"] not in doubtful
            assert row["target_agreement"] == pytest.approx(known[row["target"]], abs=1e-6)
        else:
            assert np.array_equal(pixels(tmp_path / "out" / row["file_name"]), pixels(discs / row["source"]))


def test_generate_leaves_doubtful_images_out(discs: Path, tmp_path: Path, small_parts: None) -> None:
    done, known = expand(discs, tmp_path / "out", SETTINGS), agreements(discs)
    doubtful = {key for key, agreement in known.items() if agreement < LEAST}
    assert done.left_out["doubtful"] + done.left_out["empty_mask"] == 2 * len(doubtful)
    assert "left out" in str(done)
    assert "agreement is below --min-agreement" in str(done)
    rows = rows_of(tmp_path / "out")
    assert {row["source"] for row in rows} == known.keys() - doubtful
    for row in rows:
        for role in ("source", "target"):
            assert row[f"{role}_agreement"] == pytest.approx(known[row[role]], abs=1e-6)
            assert row[f"{role}_agreement"] >= LEAST
        assert (row["min_agreement"], row["agreement_with"]) == (LEAST, "better")


def test_nobody_is_asked_unless_it_is_wanted(discs: Path, tmp_path: Path) -> None:
    """Not even a backend that could not answer."""
    register_backend("silent", lambda images: 1 / 0)
    settings = dataclasses.replace(SETTINGS, min_agreement=0, agreement_with="silent")
    done = expand(discs, tmp_path / "out", settings)
    assert "doubtful" not in done.left_out
    for row in rows_of(tmp_path / "out"):
        assert (row["source_agreement"], row["target_agreement"]) == (None, None)
        assert (row["min_agreement"], row["agreement_with"]) == (None, None)
    mix(discs, tmp_path / "mixed", min_agreement=0, agreement_with="silent")


def test_workers_and_restarts_change_nothing(discs: Path, tmp_path: Path, small_chunks: None) -> None:
    expand(discs, tmp_path / "one", SETTINGS, workers=1)
    expand(discs, tmp_path / "four", SETTINGS, workers=4)
    assert contents(tmp_path / "one") == contents(tmp_path / "four")
    lost = next((tmp_path / "four").rglob("*.png"))
    lost.unlink()
    assert expand(discs, tmp_path / "four", SETTINGS).written == 4  # its chunk
    assert contents(tmp_path / "one") == contents(tmp_path / "four")


@pytest.mark.parametrize("change", [{"min_agreement": 0.7}, {"agreement_with": "other"}, {"min_agreement": 0}])
def test_another_limit_is_another_run(discs: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    register_backend("other", brightness)
    expand(discs, tmp_path / "out", SETTINGS)
    with pytest.raises(DataError, match=f"started with other settings: .*{next(iter(change))}"):
        expand(discs, tmp_path / "out", dataclasses.replace(SETTINGS, **change))
    again = expand(discs, tmp_path / "out", SETTINGS)
    assert (again.written, again.left_out["doubtful"] > 0) == (0, True)


def test_a_run_that_never_asked_goes_on(discs: Path, tmp_path: Path) -> None:
    """Settings of a finished run from before there was an agreement lack both fields."""
    settings = dataclasses.replace(SETTINGS, min_agreement=0)
    expand(discs, tmp_path / "out", settings)
    from sgdmix_albu.io.sums import sum_of

    path = tmp_path / "out" / ".sgdmix-run.json"
    about = json.loads(path.read_text())
    del about["settings"]["min_agreement"], about["settings"]["agreement_with"], about["sha256"]
    path.write_text(json.dumps({**about, "sha256": sum_of(about)}))
    assert expand(discs, tmp_path / "out", settings).written == 0


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"min_agreement": 1.5}, InvalidInputError, r"min_agreement must lie in \[0, 1\], got 1.5"),
        ({"min_agreement": "most"}, InvalidInputError, r"min_agreement must lie in \[0, 1\], got 'most'"),
        ({"agreement_with": "worse"}, InvalidInputError, "got 'worse' for both: set agreement_with"),
        ({"agreement_with": None}, InvalidInputError, "agreement_with"),
        ({"agreement_with": "bettre"}, UnknownNameError, "did you mean 'better'"),
        ({"agreement_with": "gradcam"}, InvalidInputError, "'gradcam' looks through a classifier"),
    ],
)
def test_what_means_nothing_is_refused_before_any_work(
    discs: Path, tmp_path: Path, settings: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        mix(discs, tmp_path / "mixed", **settings)
    with pytest.raises(error, match=said):
        expand(discs, tmp_path / "out", dataclasses.replace(SETTINGS, **settings))
    assert not list(tmp_path.iterdir())


def test_the_command_asks_the_default_backend(discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["mix", str(discs), str(tmp_path / "out"), "--saliency", "worse", "--mask", "left"]
    assert main([*words, "--min-agreement", "0.6"]) == 0
    assert {row["agreement_with"] for row in rows_of(tmp_path / "out")} == {BEST_SALIENCY}
    assert main(["mix", str(discs), str(tmp_path / "no"), "--min-agreement", "0.6"]) == 2
    assert f"got {BEST_SALIENCY!r} for both" in capsys.readouterr().err


@pytest.mark.parametrize("saliency", ["rembg", "text", "bank:maps", "mine.safetensors"])
def test_the_default_judges_none_that_may_be_better(saliency: str) -> None:
    with pytest.raises(InvalidInputError, match="the default judge .* may be worse than"):
        Settings(saliency=saliency, min_agreement=0.5)
    assert Settings(saliency=saliency, min_agreement=0.5, agreement_with="better").reference == "better"


def test_another_judge_of_the_same_name_is_another_run(discs: Path, tmp_path: Path) -> None:
    judge = tmp_path / "judge.safetensors"
    weights = load_file(EMBEDDED)
    settings = dataclasses.replace(SETTINGS, agreement_with=str(judge))
    for change in (1, 2):
        save_file({**weights, "head.bias": weights["head.bias"] * change}, judge)
        if change == 1:
            expand(discs, tmp_path / "out", settings=settings)
        else:
            with pytest.raises(DataError, match="agreement_options"):
                expand(discs, tmp_path / "out", settings=settings)
