"""Saliency and masks on a GPU: the host waits once, when all refusals of a call are read, and numbers are the CPU's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fake_gpu import back, fake_gpu, on_gpu
from torch import Tensor
from torchvision.transforms.v2 import functional

from sgdmix_albu.errors import InvalidInputError, SGDMixError
from sgdmix_albu.masks import get_mask
from sgdmix_albu.refusals import read_together
from sgdmix_albu.saliency import SaliencyBackend, get_backend
from sgdmix_albu.saliency.given import given_maps

BYTES = torch.randint(0, 90, (3, 3, 64, 80), generator=torch.Generator().manual_seed(0)).byte()
BYTES[..., 20:44, 30:60] += 120
FLOATS = BYTES / 255
IMAGES = {
    "bytes": BYTES,
    "floats": FLOATS,
    "halves": FLOATS.half(),
    "grey": FLOATS[:, :1],
    "normalised": functional.normalize(FLOATS, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}
MAPS = torch.nn.functional.avg_pool2d((BYTES[:, 0] > 100).float(), 9, 1, 4).clamp(0, 1)


def once(call: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """What a call gives on a GPU for which it waits once, and not at all while a caller holds the refusals."""
    with fake_gpu() as gpu:
        there = [on_gpu(tensor) for tensor in tensors]
        call(*there)  # whatever is moved there once
        gpu.waits.clear()
        found = call(*there)
        assert len(gpu.waits) <= 1, gpu.waits
        gpu.waits.clear()
        with read_together():
            call(*there)
            assert gpu.waits == []
        assert len(gpu.waits) <= 1
    return back(found)


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("name", ["spectral_residual", "manifold_ranking", "salient_object"])
def test_saliency(name: str, kind: str) -> None:
    images = IMAGES[kind]
    expected = get_backend(name).coarse(images)
    torch.testing.assert_close(once(get_backend(name).coarse, images), expected, rtol=0, atol=2 / 65535)


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("name", ["otsu", "guided"])
def test_masks(name: str, kind: str) -> None:
    images = IMAGES[kind]
    expected = get_mask(name)(MAPS, images)
    assert expected.masks.any()
    assert torch.equal(once(lambda *given: get_mask(name)(*given).masks, MAPS, images), expected.masks)
    assert torch.equal(once(lambda *given: get_mask(name)(*given).thresholds, MAPS, images), expected.thresholds)


@pytest.mark.parametrize("maps", [MAPS, MAPS > 0.5, (MAPS * 255).byte(), (MAPS > 0.5).byte() * 255, MAPS.half()])
def test_given_maps(maps: Tensor) -> None:
    assert torch.equal(once(lambda there: given_maps(there, BYTES.shape), maps), given_maps(maps, BYTES.shape))


BROKEN = FLOATS.clone()
BROKEN[1, 0, 3, 3] = float("nan")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: get_backend("manifold_ranking").coarse(on_gpu(BROKEN)), r"image\(s\) \[1\] .* NaN"),
        (lambda: get_backend("salient_object").coarse(on_gpu(FLOATS * 9)), "cannot tell how these images were normal"),
        (lambda: get_backend("spectral_residual").coarse(on_gpu(BROKEN)), r"image\(s\) \[1\] .* NaN"),
        (lambda: get_backend(lambda x: x[:, 0] / 0).coarse(on_gpu(FLOATS - 0.5)), "NaN or infinite saliency"),
        (lambda: get_mask("guided")(on_gpu(MAPS * 2), on_gpu(BYTES)), r"must lie in \[0, 1\], got values from 0 to 2"),
        (lambda: get_mask("guided")(on_gpu(MAPS), on_gpu(BROKEN)), r"image\(s\) \[1\] .* NaN"),
        (lambda: get_mask("otsu")(on_gpu(MAPS - 1), on_gpu(BYTES)), r"must lie in \[0, 1\], got values from -1 to 0"),
        (lambda: given_maps(on_gpu(BYTES[:, 0] % 5), BYTES.shape), "which look like class ids"),
        (lambda: given_maps(on_gpu(MAPS + 1), BYTES.shape), r"given saliency in \[0, 1\], got values from 1 to 2"),
    ],
)
def test_what_a_gpu_is_given_is_refused_when_it_is_done(call: Callable[[], object], told: str) -> None:
    with fake_gpu(), pytest.raises((InvalidInputError, SGDMixError), match=told):
        call()


class Counted(SaliencyBackend):
    """Notes how many images come at once."""

    at_once = (2, None)

    def __init__(self, *, microbatch: int | None = None) -> None:
        super().__init__(microbatch=microbatch)
        self.sizes: list[int] = []

    def _raw(self, images: Tensor, labels: Tensor | None) -> Tensor:
        self.sizes.append(len(images))
        return images[:, 0]


def test_passes_suit_the_device_unless_told() -> None:
    here, there, told = Counted(), Counted(), Counted(microbatch=1)
    here.coarse(FLOATS)
    with fake_gpu():
        there.coarse(on_gpu(FLOATS))
        told.coarse(on_gpu(FLOATS))
    assert (here.sizes, there.sizes, told.sizes) == ([2, 1], [3], [1, 1, 1])
