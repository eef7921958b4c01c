"""Distilling a saliency network: the loss against its equations, views, training, files and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy.ndimage import uniform_filter

from sgdmix_albu.cli import main
from sgdmix_albu.datasets import get_dataset
from sgdmix_albu.distillation import distil
from sgdmix_albu.distillation.run import agreement_of
from sgdmix_albu.distillation.training import Examples, Schedule, batches_of, draw_views, saliency_loss, train
from sgdmix_albu.errors import DataError, InvalidInputError, UnknownNameError
from sgdmix_albu.io.progress import Progress
from sgdmix_albu.saliency import get_backend
from sgdmix_albu.saliency.network import SaliencyNetwork

QUIET: dict[str, Any] = {"progress": Progress(quiet=True)}
SHORT: dict[str, Any] = {"steps": 2, "batch": 2, "limit": 20, **QUIET}


def test_the_loss_follows_its_equations() -> None:
    rng = np.random.default_rng(0)
    logits, maps = rng.normal(size=(2, 40, 40)), rng.random((2, 40, 40))
    found = 1 / (1 + np.exp(-logits))
    losses = []
    for g, p in zip(maps, found, strict=True):
        inside = uniform_filter(np.ones_like(g), 15, mode="constant")  # windows are cut at the border
        weight = 1 + 4 * np.abs(uniform_filter(g, 15, mode="constant") / inside - g)
        entropy = -(g * np.log(p) + (1 - g) * np.log(1 - p))
        both, either = (weight * np.minimum(p, g)).sum(), (weight * np.maximum(p, g)).sum()
        losses.append((weight * entropy).sum() / weight.sum() + 1 - (both + 1) / (either + 1))
    loss = saliency_loss(torch.from_numpy(logits), torch.from_numpy(maps))
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-6)


def test_views_and_their_maps_fit() -> None:
    maps = torch.zeros(6, 64, 64, dtype=torch.uint8)
    for i in range(6):
        maps[i, 8 + 4 * i : 40 + 4 * i, 20:50] = 255
    examples = Examples(maps[:, None].expand(-1, 3, -1, -1), maps, torch.ones(6))
    images, found = draw_views(examples, 32, 96, torch.Generator().manual_seed(0))
    assert images.shape == (32, 3, 96, 96)
    assert found.shape == (32, 96, 96)
    for each in (images, found):
        assert each.min() >= 0
        assert each.max() <= 1
    bright = images.mean(1)
    middle = (bright.amax((1, 2)) + bright.amin((1, 2))) / 2
    assert ((bright > middle[:, None, None]) == (found > 0.5)).float().mean() > 0.97
    again, _ = draw_views(examples, 32, 96, torch.Generator().manual_seed(0))
    assert torch.equal(again, images)


def test_weights_say_how_often_an_example_is_drawn() -> None:
    maps = torch.stack([torch.zeros(32, 32), torch.full((32, 32), 255)]).to(torch.uint8)
    examples = Examples(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), maps, torch.tensor([0.0, 1.0]))
    _, found = draw_views(examples, 16, 32, torch.Generator().manual_seed(0))
    assert found.min() > 0.99


def test_a_network_learns_and_frozen_parts_stay() -> None:
    birds = get_dataset("aviary", species=2, per_species=6, size=64)
    samples = [birds.render(i) for i in range(len(birds))]
    images = torch.stack([torch.from_numpy(np.array(sample.image)).movedim(-1, 0) for sample in samples])
    maps = torch.stack([torch.from_numpy(sample.mask * np.uint8(255)) for sample in samples])
    torch.manual_seed(0)
    network = SaliencyNetwork()
    network.stem.requires_grad_(False)
    before = network.stem[0].weight.clone()
    schedule = Schedule(steps=24, batch=4, side=64, rate=2e-3, encoder_rate=1.0)

    def loss() -> float:
        with torch.no_grad():
            logits = network(images / 255)
        return float(saliency_loss(logits, torch.nn.functional.avg_pool2d(maps / 255, 2)))

    untrained = loss()
    steps: list[int] = []
    mean = train(
        network,
        batches_of(Examples(images, maps, torch.ones(len(images))), schedule),
        schedule,
        device=torch.device("cpu"),
        said=lambda step, loss, mean: steps.append(step),
    )
    assert steps == list(range(24))
    assert loss() < 0.75 * untrained
    assert torch.equal(network.stem[0].weight, before)
    assert not any(parameter.requires_grad for parameter in mean.parameters())


def test_distil_from_true_masks(tmp_path: Path) -> None:
    first = distil(None, tmp_path / "a.safetensors", dataset="aviary", **SHORT)
    assert (first.trained, first.held_out, first.teacher_ms) == (18, 2, None)
    assert 0.5 < first.before <= 1
    assert f"use it as --saliency {first.out}" in str(first)
    distil(None, tmp_path / "b.safetensors", dataset="aviary", **SHORT)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    trained, embedded = load_file(first.out), get_backend("salient_object").network.state_dict()
    assert any(not torch.equal(trained[name].float(), value) for name, value in embedded.items())
    assert get_backend(first.out)(torch.rand(1, 3, 32, 32)).shape == (1, 32, 32)


def test_distil_from_a_teacher(tmp_path: Path) -> None:
    done = distil(None, tmp_path / "a.safetensors", dataset="aviary", teacher="spectral_residual", **SHORT)
    assert done.teacher_ms is not None
    assert done.teacher_ms > 0
    assert "the teacher" in str(done)
    assert 0 <= done.agreement <= 1


def test_agreement_is_the_iou_of_otsu_masks() -> None:
    class Fixed(SaliencyNetwork):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = torch.full((len(images), 80, 80), -9.0)
            logits[:, :40] = 9.0  # the upper half
            return logits

    maps = torch.zeros(2, 80, 80, dtype=torch.uint8)
    maps[:, :, :40] = 255  # the left half: a quarter in common of three
    images = torch.randint(0, 255, (2, 3, 80, 80), dtype=torch.uint8)
    agreement, milliseconds = agreement_of(Fixed(), images, maps)
    assert agreement == pytest.approx(1 / 3, abs=0.01)
    assert milliseconds > 0


def photographs(folder: Path, count: int) -> Path:
    for name in ("images", "masks"):
        (folder / name / "owl").mkdir(parents=True)
    for i in range(count):
        Image.effect_noise((40, 30), 60).save(folder / "images" / "owl" / f"{i:02}.png")
        mask = Image.new("L", (40, 30))
        mask.paste(255, (10, 10, 30, 25))
        mask.save(folder / "masks" / "owl" / f"{i:02}.png")
    return folder


def test_distil_from_a_folder_of_masks(tmp_path: Path) -> None:
    data = photographs(tmp_path, 21)
    (data / "images" / "owl" / "00.png").write_bytes(b"no image")
    done = distil(data / "images", tmp_path / "a.safetensors", masks=data / "masks", **{**SHORT, "limit": 21})
    assert done.skipped[0][0] == "owl/00.png"
    assert "skipped  owl/00.png" in str(done)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"out": "a.bin"}, InvalidInputError, "expected the name of a .safetensors file"),
        ({"teacher": None}, InvalidInputError, "expected a teacher, or a folder of masks"),
        ({"masks": "masks"}, InvalidInputError, "either a teacher or masks"),
        (
            {"teacher": None, "masks": "masks", "options": {"session": "u2net"}},
            InvalidInputError,
            "belong to a teacher",
        ),
        ({"teacher": "manifold"}, UnknownNameError, "unknown saliency backend 'manifold'"),
        ({"steps": 0}, InvalidInputError, "steps must be a positive integer"),
        ({"limit": 19}, InvalidInputError, "limit must be an integer of 20 or more"),
        ({"device": "abacus"}, InvalidInputError, "expected a device such as .*, got .abacus."),
        ({}, DataError, "expected 20 readable photographs or more, found 3"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    data = photographs(tmp_path, 3)
    given = {"out": "a.safetensors", "teacher": "spectral_residual", **arguments}
    out = tmp_path / given.pop("out")
    with pytest.raises(error, match=message):
        distil(data / "images", out, **{**QUIET, **given})
    assert not out.exists()


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "a.safetensors"
    out.write_bytes(b"mine")
    with pytest.raises(DataError, match="exists; replace it"):
        distil(None, out, dataset="aviary", **SHORT)
    assert out.read_bytes() == b"mine"
    distil(None, out, dataset="aviary", overwrite=True, **SHORT)
    assert load_file(out)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.safetensors"
    words = ["distil", "--dataset", "aviary", str(out), "--steps", "1", "--batch", "2", "--limit", "20"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "agrees   IoU" in said
    assert main(words) == 2
    assert "exists; replace it" in capsys.readouterr().err


def test_a_teacher_that_sees_nothing(tmp_path: Path) -> None:
    data = photographs(tmp_path, 20)
    for mask in (data / "masks").rglob("*.png"):
        Image.new("L", (40, 30)).save(mask)
    with pytest.raises(DataError, match="the teacher sees no object in any of 20 photographs"):
        distil(data / "images", tmp_path / "a.safetensors", masks=data / "masks", **SHORT)


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder.safetensors").mkdir()
    for out, message in (("file/a.safetensors", "file"), ("folder.safetensors", "is a folder")):
        with pytest.raises(DataError, match=message):
            distil(None, tmp_path / out, dataset="aviary", overwrite=True, **{**SHORT, "steps": 10**9})


def test_agreement_where_neither_sees_a_thing() -> None:
    images, maps = torch.full((2, 3, 64, 64), 90, dtype=torch.uint8), torch.zeros(2, 64, 64, dtype=torch.uint8)
    agreement, _ = agreement_of(get_backend("salient_object").network, images, maps)
    assert agreement == 1
