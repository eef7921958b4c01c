"""Outputs lie apart from inputs, for every command; paths are written as shells write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from expand_helpers import write_tree

from sgdmix_albu.audit import run_audit, run_drift
from sgdmix_albu.cli import main
from sgdmix_albu.datasets import get_dataset
from sgdmix_albu.datasets.tree import write_tree as write_dataset
from sgdmix_albu.errors import DataError
from sgdmix_albu.expand import generate, mix_folder
from sgdmix_albu.io.places import check_apart
from sgdmix_albu.recipes import fine_grained
from sgdmix_albu.refine import finetune
from sgdmix_albu.saliency import build_bank

COMMANDS: dict[str, Callable[[Any, Any], object]] = {
    "mix": lambda data, out: mix_folder(data, out),
    "generate": lambda data, out: generate(data, out),
    "audit": lambda data, out: run_audit(data, out=out),
    "drift": lambda data, out: run_drift(data, out=out, refiner="aviary"),
    "finetune": lambda data, out: finetune(data, key="aviary", out=out),
    "bank": lambda data, out: build_bank(data, out, "spectral_residual", progress=False),
}


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


@pytest.mark.parametrize("command", COMMANDS)
def test_outputs_lie_apart_from_inputs(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    write_tree(data)
    (tmp_path / "link").symlink_to(data)
    before = files(tmp_path)
    for out in (data, data / "out", "data/out", "~/data/out", "link/out", "data/../data/out", tmp_path):
        with pytest.raises(DataError, match="must lie apart"):
            COMMANDS[command](data, out)
    for source in ("~/data", "link", f"file://{data}", f"local://{data}"):
        with pytest.raises(DataError, match="must lie apart"):
            COMMANDS[command](source, data / "out")
    assert files(tmp_path) == before


def test_true_masks_and_real_data_are_inputs_too(tmp_path: Path) -> None:
    data, masks = tmp_path / "data", tmp_path / "masks"
    write_tree(data / "train")
    write_tree(data / "test")
    masks.mkdir()
    with pytest.raises(DataError, match="must lie apart"):
        run_audit(data / "train", masks=masks, out=masks / "report")
    for option in ([], ["--write-train"]):
        with pytest.raises(DataError, match="must lie apart"):
            fine_grained.main([str(data), "--layout", "folders", *option, str(data / "new")])
    assert files(masks) == []


def test_a_data_set_is_not_written_into_itself(tmp_path: Path) -> None:
    write_tree(tmp_path / "photos" / "train")
    dataset = get_dataset("folders", root=tmp_path / "photos")
    with pytest.raises(DataError, match="must lie apart"):
        write_dataset(dataset, tmp_path / "photos" / "tree")


def test_urls() -> None:
    check_apart("s3://bucket/out", "s3://bucket/output", "out", None)
    check_apart(None, "out")
    with pytest.raises(DataError, match="must lie apart"):
        check_apart("s3://bucket/data/out/", "s3://bucket/data")


def test_home_folders_of_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_tree(tmp_path / "data")
    common = ["--saliency", "spectral_residual", "--mask", "otsu"]
    assert main(["mix", "~/data", "~/mixed", *common]) == 0
    assert main(["generate", "~/data", "~/made", *common, "--refiner", "none", "--multiplier", "1"]) == 0
    assert main(["verify", "~/made"]) == 0
    assert main(["audit", "~/data", "~/report", *common, "--pairs", "4", "--samples", "1"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"data", "mixed", "made", "report"}
