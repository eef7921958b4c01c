"""fastai around SGDMix: what its page (docs/how-to/fastai.md) says. Run by ``make test-ecosystem``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sgdmix_albu import SGDMix, SyntheticMix
from sgdmix_albu.datasets.aviary import Aviary, export
from sgdmix_albu.expand import Settings, generate
from sgdmix_albu.io.progress import Progress

pytestmark = pytest.mark.filterwarnings("default")  # the package's own
vision = pytest.importorskip("fastai.vision.all", reason="fastai is not installed; see make test-ecosystem")


class SGDMixCallback(vision.Callback):
    order, run_valid = -1, False

    def __init__(self, mix: SGDMix) -> None:
        self.mix = mix

    def before_batch(self) -> None:
        images, labels = self.mix(self.x, self.y)
        self.learn.xb, self.learn.yb = (images,), (labels,)


class Watch(vision.Callback):
    """Keeps the batches as they are before (-2) or after (5) the others have had them."""

    def __init__(self, order: int) -> None:
        self.order, self.seen = order, []

    def before_batch(self) -> None:
        self.seen.append((self.learn.training, self.x.clone(), self.y.clone()))


@pytest.fixture
def loaders(tmp_path: Path) -> Any:
    export(Aviary("train", species=4, per_species=6, size=32), tmp_path / "birds")
    settings = {"valid_pct": 0.25, "seed": 0, "bs": 9, "num_workers": 0, "device": torch.device("cpu")}
    return vision.ImageDataLoaders.from_folder(tmp_path / "birds" / "images", **settings)


def fit(loaders: Any, *callbacks: Any) -> tuple[list[Any], list[Any]]:
    learn = vision.Learner(loaders, vision.xresnet18(n_out=4), vision.CrossEntropyLossFlat())
    before, after = Watch(-2), Watch(5)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, cbs=[before, *callbacks, after])
    return before.seen, after.seen


def test_training_batches_are_mixed_and_those_of_validation_are_not(loaders: Any) -> None:
    before, after = fit(loaders, SGDMixCallback(SGDMix()))
    assert [training for training, _, _ in before] == [True, True, False]
    for (training, images, labels), (_, seen, same) in zip(before, after, strict=True):
        changed = int((torch.as_tensor(images) != torch.as_tensor(seen)).flatten(1).any(1).sum())
        assert changed >= 7 if training else changed == 0
        assert type(seen) is type(images) is vision.TensorImage
        assert type(same) is vision.TensorCategory
        assert torch.equal(labels, same)


def test_its_cutmix_comes_after_ours_and_takes_the_labels(loaders: Any) -> None:
    class Recorded(vision.CutMix):
        def before_batch(self) -> None:
            given.append(self.x.clone())
            super().before_batch()

    given: list[Any] = []
    before, after = fit(loaders, Recorded(), SGDMixCallback(SGDMix()))
    assert len(given) == 2
    for images, (_, plain, labels), (_, _, same) in zip(given, before, after, strict=False):
        assert int((torch.as_tensor(images) != torch.as_tensor(plain)).flatten(1).any(1).sum()) >= 7
        assert torch.equal(labels, same)


def test_batches_can_be_shown(loaders: Any) -> None:
    vision.plt.switch_backend("agg")
    loaders.show_batch(SGDMix()(*loaders.one_batch()))
    assert len(vision.plt.gcf().axes) == 9
    vision.plt.close("all")


def test_an_expanded_set_goes_into_its_loaders(tmp_path: Path) -> None:
    from torchvision.transforms import v2

    real = Aviary(species=12, per_species=1, size=32, transform=v2.ToImage())
    settings = Settings(size=32, multiplier=1, saliency="spectral_residual", mask="otsu")
    generate(None, tmp_path / "out", dataset="aviary", limit=12, settings=settings, progress=Progress(quiet=True))
    mixed = SyntheticMix(real, tmp_path / "out", p=1.0, mode="class")
    loaders = vision.DataLoaders.from_dsets(mixed, real, bs=6, device=torch.device("cpu"), num_workers=0)
    images, labels = loaders.train.one_batch()
    assert images.shape == (6, 3, 32, 32)
    drawn = {real[index][0].numpy().tobytes() for index in range(12)}
    assert all(image.as_subclass(torch.Tensor).numpy().tobytes() not in drawn for image in images)
    assert labels.shape == (6,)
