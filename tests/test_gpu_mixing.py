"""Mixing on a GPU is what it is on the CPU: the same draws, the same targets, the same pixels up to rounding.

Needs torch, torchvision and pytest alone, so that it runs on a machine that was lent for an hour.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sgdmix_albu import SGDMix, mix_batch
from sgdmix_albu.mixing import draw
from sgdmix_albu.refusals import read_together
from sgdmix_albu.saliency import SaliencyMap, get_backend
from sgdmix_albu.types import Draws

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
IMAGES = torch.rand(6, 3, 40, 48, generator=torch.Generator().manual_seed(0)) * 0.3
for _row in range(6):  # a light object in each, of its own size and place
    IMAGES[_row, :, 8 : 24 + _row, 6 + 2 * _row : 26] += 0.5
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("mask", ["otsu", "guided"])
@pytest.mark.parametrize(("fill", "place"), [("source", "source"), ("inpaint", "source"), ("inpaint", "random")])
@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_a_mix_is_the_cpus(mask: str, fill: Any, place: Any, kind: str) -> None:
    images = (IMAGES * 255).to(torch.uint8) if kind == "uint8" else IMAGES
    maps = get_backend("spectral_residual").coarse(images)
    options: dict[str, Any] = {"mask": mask, "fill": fill, "place": place, "candidates": 3}
    expected = mix_batch(images, maps, **options, generator=torch.Generator().manual_seed(1))
    found = mix_batch(images.to("cuda"), maps.to("cuda"), **options, generator=torch.Generator().manual_seed(1))
    assert found.images.device.type == "cuda"
    assert expected.plan.applied.any()
    assert torch.equal(found.plan.target.cpu(), expected.plan.target)
    assert torch.equal(found.plan.applied.cpu(), expected.plan.applied)
    wrong = (found.plan.masks.cpu() != expected.plan.masks).float().mean()
    assert wrong <= 0.002  # pixels at the threshold, where rounding decides
    difference = (found.images.cpu().float() - expected.images.float()).abs() / (255 if kind == "uint8" else 1)
    assert (difference > 0.01).float().mean() <= 0.005


@pytest.mark.parametrize("name", ["manifold_ranking", "salient_object", "spectral_residual"])
def test_maps_are_the_cpus(name: str) -> None:
    backend = get_backend(name)
    torch.testing.assert_close(backend.coarse(IMAGES.to("cuda")).cpu(), backend.coarse(IMAGES), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("memory", [0, 16])
def test_the_transform_stays_on_the_device(memory: int) -> None:
    mix = SGDMix("given", memory=memory)
    maps = SaliencyMap((IMAGES.mean(1) > 0.4).to("cuda"))
    for _ in range(2):
        images, found, labels = mix(IMAGES.to("cuda"), maps, LABELS.to("cuda"))
    assert images.device == found.device == labels.device == torch.device("cuda", torch.cuda.current_device())
    assert torch.equal(labels.cpu(), LABELS)
    assert not torch.equal(images.cpu(), IMAGES)


@pytest.mark.parametrize("options", [{"mask": "otsu", "fill": "source"}, {}, {"place": "random"}], ids=str)
def test_a_mix_can_be_captured_as_a_graph(options: dict[str, Any]) -> None:
    """Nothing waits and all shapes are known: the same mix, of other images, by one launch."""
    images, other = IMAGES.to("cuda"), IMAGES.flip(0).to("cuda")
    place: Any = options.get("place", "source")
    drawn = draw(len(images), len(images), place=place, generator=torch.Generator().manual_seed(0))
    draws = Draws(*(None if part is None else part.to("cuda") for part in drawn))
    maps, graph = images.mean(1), torch.cuda.CUDAGraph()
    with read_together():
        for _ in range(3):  # libraries are loaded, and the allocator has its memory
            mix_batch(images, maps, draws=draws, **options)
        with torch.cuda.graph(graph):
            found = mix_batch(images, maps, draws=draws, **options)
        graph.replay()  # what is refused is read at the end, and until now nothing was computed
    assert torch.equal(found.images, mix_batch(images, maps, draws=draws, **options).images)
    images.copy_(other)
    maps.copy_(other.mean(1))
    graph.replay()
    expected = mix_batch(other, other.mean(1), draws=draws, **options)
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.plan.target, expected.plan.target)
