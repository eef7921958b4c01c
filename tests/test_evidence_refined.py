"""The refiner's table: its groups, its commands, and that what is there is not made again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from benchmarks.accuracy import refined
from benchmarks.accuracy.grid import read_grid
from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.recipes import background

GRIDS = Path(refined.__file__).parent / "grids"
ROWS = [row.spec for name in ("04-refiner", "04-seams") for row in read_grid(GRIDS / f"{name}.toml").rows]


def test_birds_and_groups_are_the_recipe_s() -> None:
    """One bird in eight is at home by chance; in training all but a few are."""
    test, train = refined._birds("test"), refined._birds("train", correlation=0.95)
    assert sum(test.groups or ()) / len(test) == pytest.approx(7 / 8, abs=0.03)
    assert sum(train.groups or ()) / len(train) == pytest.approx(0.05 * 7 / 8, abs=0.02)
    recipe = background._habitats("test", 64)
    assert test.groups == recipe.groups
    assert test[47][0].tobytes() == recipe[47][0].tobytes()


def test_each_row_asks_for_its_images_by_the_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Strengths and protection of the row, the refiner of the tree; once for all seeds."""
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(refined, "_sgdmix", lambda *arguments: asked.append(arguments))
    (tmp_path / "tree").mkdir()
    (tmp_path / "teacher.pt").touch()
    rows = [spec for spec in ROWS if spec["mix"] == "expanded"]
    folders = {refined.expansion(spec, tmp_path) for spec in rows for _ in range(2)}
    made = [line for line in asked if line[0] == "generate"]
    assert len(folders) == len(made) == len(rows)
    assert {line[1] for line in asked} == {str(tmp_path / "tree")}
    said = {" ".join(line[line.index("--refiner") + 2 :]) for line in made}
    assert "" in said
    assert sum("--saliency spectral_residual --mask otsu --fill source" in " ".join(line) for line in made) == 3
    assert "--dtype bfloat16 --preserve strict --strengths 0.3 0.5 0.7 0.9" in said
    assert "--dtype bfloat16 --preserve none --strengths 0.7" in said
    assert f"--dtype bfloat16 --preserve strict --strengths adaptive --teacher {tmp_path / 'teacher.pt'}" in said


def test_rows_train_alike_and_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refined, "_EPOCHS", 1)
    (first, steps, images), (second, *_) = (refined.trained(None, 3, "small_cnn") for _ in range(2))
    assert (steps, images) == (7, 480)
    assert all(torch.equal(*pair) for pair in zip(first.parameters(), second.parameters(), strict=True))
    assert refined._new("resnet18", ["owl", "tit"])(torch.rand(2, 3, 64, 64)).shape == (2, 2)
    assert isinstance(refined._online({"mix": "cutmix"}), v2.RandomApply)
    with pytest.raises(InvalidInputError, match="mix must be none, cutmix or expanded, got 'mixup'"):
        refined._online({"mix": "mixup"})


def test_what_is_there_is_not_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[tuple[str, int]] = []

    def run(spec: dict[str, Any], seed: int, network: str, work: Path, test: object) -> dict[str, Any]:
        made.append((spec["mix"], seed))
        if len(made) == 5:
            raise KeyboardInterrupt
        return {"task": "aviary-64", "network": network, "row": spec, "seed": seed, "figures": {}}

    monkeypatch.setattr(refined, "run", run)
    monkeypatch.setattr(refined, "_birds", lambda *_, **__: None)
    results = tmp_path / "results.jsonl"
    results.write_text(json.dumps({"task": "shots-5", "network": "vgg", "row": {"mix": "none"}, "seed": 0}) + "\n")
    monkeypatch.setattr(
        sys, "argv", ["refined", "--results", str(results), "--work", str(tmp_path / "work"), "--seeds", "2"]
    )
    with pytest.raises(KeyboardInterrupt):
        refined.main()
    refined.main()
    refined.main()
    assert len(made) == 2 * len(ROWS) + 1  # the interrupted one twice
    assert len(results.read_text().splitlines()) == 2 * len(ROWS) + 1
    assert [seed for _, seed in made[-6:]] == [0] * 3 + [1] * 3
