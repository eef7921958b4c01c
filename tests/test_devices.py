"""Images, models and labels on devices of their own: every path of mixing, on a GPU that is pretended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fake_gpu import fake_gpu, on_gpu
from torch import nn

from sgdmix_albu import SGDMix, mix_batch
from sgdmix_albu.masks import get_mask, list_masks
from sgdmix_albu.mixing.composition import compose
from sgdmix_albu.refine.strength import vouched
from sgdmix_albu.saliency import get_backend, list_backends
from sgdmix_albu.saliency.judged import looks_through_a_model

DEVICE = "cuda:0"

IMAGES = torch.rand(6, 3, 40, 48, generator=torch.Generator().manual_seed(0)) * 0.3
for _row in range(6):
    IMAGES[_row, :, 8 : 24 + _row, 6 + 2 * _row : 26] += 0.5
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.fixture(autouse=True)
def pretended() -> Iterator[None]:
    """A GPU, or two; where there is a real one, the tests of the faces and backends use that."""
    if torch.cuda.is_available():
        pytest.skip("there is a real GPU")
    with fake_gpu():
        yield


def on(device: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, there."""
    return tensor if device == "cpu" else on_gpu(tensor, device)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
        )


def test_the_pretended_gpu_refuses_what_a_gpu_refuses() -> None:
    here, there = torch.ones(3), on(DEVICE, torch.ones(3))
    assert str(there.device) == str((there + 1).device) == str(here.to(DEVICE).device) == DEVICE
    assert (there + torch.tensor(2.0)).cpu().tolist() == [3.0] * 3
    for wrong in (
        lambda: here + there,
        lambda: torch.where(here > 0, there, there),
        lambda: here[there.long()],
        lambda: torch.cat([here, there]),
        lambda: there.numpy(),
        lambda: here * there.sum(),
    ):
        with pytest.raises((RuntimeError, TypeError)):
            wrong()


@pytest.mark.parametrize(
    ("fill", "place", "feather"), [("source", "source", 2), ("inpaint", "source", None), ("inpaint", "random", None)]
)
@pytest.mark.parametrize("mask", list_masks())
@pytest.mark.parametrize("backend", ["spectral_residual", "manifold_ranking"])
def test_training_free_saliency_masks_and_mixing(
    backend: str, mask: str, fill: str, place: str, feather: int | None
) -> None:
    draws = torch.Generator().manual_seed(1)
    options: dict[str, Any] = {"mask": mask, "candidates": 3, "fill": fill, "place": place, "feather": feather}
    options["generator"] = draws
    expected = mix_batch(IMAGES, get_backend(backend).coarse(IMAGES), **options)
    assert expected.plan.applied.any()
    images = on(DEVICE, IMAGES)
    maps = get_backend(backend).coarse(images)
    assert maps.is_cuda
    masks = get_mask(mask)(maps, images).masks
    assert masks.device == images.device
    draws.manual_seed(1)
    labels = LABELS if mask == "otsu" else on(DEVICE, LABELS)
    found = mix_batch(images, maps, labels=labels, target_class="any", **options)
    assert found.images.device == images.device
    torch.testing.assert_close(found.images.cpu(), expected.images)
    classes = (10 * IMAGES[:, 0]).long()
    composed = compose(found.plan, on(DEVICE, classes), on(DEVICE, classes), hard=True)
    assert torch.equal(composed.cpu(), compose(expected.plan, classes, classes, hard=True))
    for constraint in ("same", "different"):
        mix_batch(images, maps, labels=labels, target_class=constraint, **options)


# Gradients need a real GPU's threads: only what looks at the model from outside is tried with the model there.
FORWARD = ("feature_ablation", "layer_activation", "occlusion")
# The learned networks follow the images to their device, which needs a real one: see the contract tests.
MODELLED = [name for name in list_backends() if looks_through_a_model(name) and name != "deep_lift_shap"]


@pytest.mark.parametrize(
    ("name", "of_model", "of_images"),
    [
        *((name, "cpu", DEVICE) for name in MODELLED),
        *((name, device, images) for name in FORWARD for device, images in ((DEVICE, "cpu"), ("cuda:1", DEVICE))),
    ],
)
def test_saliency_through_a_model(name: str, of_model: str, of_images: str) -> None:
    """Maps come back where the images are, whatever holds the model and the labels."""
    images, labels = IMAGES[:2, :, 8:24, 8:24].contiguous(), LABELS[:2]
    backend = get_backend(name, model=network().to(of_model))
    for place in ("cpu", of_images):
        maps = backend.coarse(on(of_images, images), on(place, labels))
        assert str(maps.device) == of_images
    expected = get_backend(name, model=network()).coarse(images, labels)
    torch.testing.assert_close(maps.cpu(), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("labels", ["cpu", DEVICE])
@pytest.mark.parametrize(
    ("saliency", "options"),
    [
        ("manifold_ranking", {"memory": 4}),
        ("manifold_ranking", {"memory": 4, "fill": "inpaint"}),
        ("manifold_ranking", {"memory": 4, "place": "random"}),
        ("gradcam", {}),
        ("given", {}),
    ],
)
def test_the_torchvision_face(saliency: str, options: dict[str, Any], labels: str) -> None:
    if saliency == "gradcam":
        options = {"model": network()}
    mix = SGDMix(saliency, target_class="different", p=0.9, **options)
    images = on(DEVICE, IMAGES)
    for _ in range(2):
        sample = {"image": images, "label": on(labels, LABELS)}
        if saliency == "given":
            sample["saliency"] = IMAGES.mean(1).clamp(0, 1)  # beside the images, but still on the CPU
        mixed = mix(sample)
        assert str(mixed["image"].device) == DEVICE
        assert not torch.equal(mixed["image"].cpu(), IMAGES)


def test_a_teacher_may_be_elsewhere() -> None:
    for of_model, of_images in ((DEVICE, "cpu"), ("cpu", DEVICE)):
        teacher = network().to(of_model)
        found = vouched(teacher, on(of_images, IMAGES), LABELS.tolist(), 0.1)
        assert found == vouched(network(), IMAGES, LABELS.tolist(), 0.1)
