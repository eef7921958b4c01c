"""The demo, made small: everything it does, on few birds."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from sgdmix_albu.classifiers import Judge
from sgdmix_albu.classifiers.small import small_cnn, train
from sgdmix_albu.demo import run_demo
from sgdmix_albu.errors import DataError, InvalidInputError


def test_the_demo_runs_twice_and_says_where_to_look(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time without the diffusion packages, which takes half as long."""
    few = {"per_species": 8, "epochs": 2, "sources": 24}
    caplog.set_level(logging.INFO, "sgdmix_albu")
    first = run_demo(tmp_path, **few, steps=1)
    printed = "".join(f"{message}\n" for message in caplog.messages)
    assert "96 to train on, 24 held out: 12 species" in printed
    assert "of the held-out birds classified correctly (by chance: 8%)" in printed
    assert "12 new tokens, 1 steps, loss" in printed
    assert len(re.findall(r"^      [0-9.]+ s$", printed, re.MULTILINE)) == 7
    named = first.pages
    assert named[0] == first.audit.report
    assert first.drift is not None
    assert named[1] == first.drift.report
    assert all(path.is_dir() or path.stat().st_size > 1000 for path in named)
    pictures = [path for path in named if path.suffix == ".png"]
    assert len(pictures) == 4
    for picture in pictures:
        with Image.open(picture) as opened:
            assert opened.width > 800
    assert {found.saliency for found in first.audit.variants} >= {"spectral_residual", "gradcam"}
    assert all(found.incomplete is not None for found in first.audit.variants)

    content = {path: path.read_bytes() for path in pictures}
    (tmp_path / "mine.txt").write_text("mine")
    monkeypatch.setitem(sys.modules, "diffusers", None)
    again = run_demo(tmp_path, **few)
    assert again.drift is None
    assert "Left out, like steps 5 and 7: diffusers is needed" in caplog.text
    assert {path: path.read_bytes() for path in pictures} == content
    assert [found.samples for found in again.audit.variants] == [found.samples for found in first.audit.variants]
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_training_learns_and_leaves_random_numbers_alone() -> None:
    """Two classes that differ in colour: chance is a half."""
    images = torch.randint(0, 100, (256, 3, 64, 64), dtype=torch.uint8)
    labels = torch.arange(256) % 2
    images[labels == 1, 0] += 60
    state = torch.random.get_rng_state()
    model = train(images[:192], labels[:192], epochs=10)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not model.training
    assert Judge(model, None, "none").names(images[192:], labels[192:]).float().mean() > 0.9


def test_the_model_has_a_map_for_gradcam() -> None:
    model = small_cnn(3, width=4)
    features = model[:-3](torch.rand(1, 3, 64, 64))
    assert features.shape == (1, 16, 8, 8)


def test_nonsense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="must be positive, got 0 and 12"):
        run_demo(tmp_path / "out", per_species=0)
    assert not (tmp_path / "out").exists()
    (tmp_path / "owl").mkdir()
    with pytest.raises(DataError, match="to be empty or to hold an earlier demo, found 'owl' in it"):
        run_demo(tmp_path)
