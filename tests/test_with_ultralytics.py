"""Ultralytics around SGDMix: what its page (docs/how-to/ultralytics.md) says. Run by ``make test-ecosystem``."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from sgdmix_albu import SGDMix
from sgdmix_albu.datasets.aviary import Aviary, export

pytestmark = pytest.mark.filterwarnings("default")  # the package's own
pytest.importorskip("ultralytics", reason="ultralytics is not installed; see make test-ecosystem")


def test_training_batches_are_mixed_and_those_of_validation_are_not(tmp_path: Path) -> None:
    from ultralytics import YOLO
    from ultralytics.models.yolo.classify import ClassificationTrainer, ClassificationValidator

    mix, trained, validated = SGDMix(target_class="different", labels_getter=lambda batch: batch["cls"]), [], []

    class MixingTrainer(ClassificationTrainer):
        def preprocess_batch(self, batch: dict[str, Any]) -> Any:
            plain = super().preprocess_batch(batch)
            trained.append((plain, mix(plain)))
            return trained[-1][1]

        def get_validator(self) -> Any:
            validator = super().get_validator()
            validator.preprocess = lambda batch: kept(ClassificationValidator.preprocess(validator, batch))
            return validator

    def kept(batch: dict[str, Any]) -> Any:
        validated.append(batch["img"].clone())
        return batch

    (tmp_path / "birds").mkdir()
    for split in ("train", "val"):
        export(Aviary(split, species=4, per_species=4, size=64), tmp_path / split)
        (tmp_path / split / "images").rename(tmp_path / "birds" / split)
    settings = {"epochs": 1, "imgsz": 64, "batch": 8, "workers": 0, "erasing": 0.0, "device": "cpu", "plots": False}
    model = YOLO("yolo11n-cls.yaml", verbose=False)
    model.train(trainer=MixingTrainer, data=tmp_path / "birds", project=tmp_path / "runs", verbose=False, **settings)

    assert len(trained) == 2
    for plain, mixed in trained:
        assert (plain["img"] != mixed["img"]).flatten(1).any(1).sum() >= 6
        assert 0 <= mixed["img"].min() < mixed["img"].max() <= 1
        assert mixed["cls"] is plain["cls"]
        assert mixed["cls"].shape == (8,)
    birds = [torch.as_tensor(Aviary("val", species=4, per_species=4, size=64).render(i).image) for i in range(16)]
    shown = torch.cat(validated[:1])
    assert shown.shape[0] >= 8
    for image in shown:
        nearest = min(float((image.permute(1, 2, 0) - bird / 255).abs().max()) for bird in birds)
        assert nearest < 0.01


def test_what_several_gpus_need_can_be_pickled_by_value() -> None:
    """Ultralytics sends the trainer's class to its processes by cloudpickle, with what it mentions."""
    cloudpickle = pytest.importorskip("cloudpickle")
    mix = SGDMix(p=0.5)
    copy = pickle.loads(cloudpickle.dumps(lambda batch: mix(batch)))
    batch = {"img": torch.rand(4, 3, 32, 32), "cls": torch.arange(4)}
    torch.manual_seed(1)
    expected = mix(batch)["img"]
    torch.manual_seed(1)
    assert torch.equal(copy(batch)["img"], expected)
