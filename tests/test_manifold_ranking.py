"""Object saliency without a model: the kernels against scipy and plain loops, and the promise on photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.masks import get_mask
from sgdmix_albu.saliency import get_backend
from sgdmix_albu.saliency import manifold_ranking as module
from sgdmix_albu.saliency.lab import rgb_to_lab
from sgdmix_albu.saliency.manifold_ranking import manifold_ranking


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def scene(size: tuple[int, int] = (90, 120)) -> tuple[torch.Tensor, torch.Tensor]:
    """A textured disc on a gradient that reaches the border, and its mask."""
    height, width = size
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    mask = (y - 0.1) ** 2 + (x + 0.15) ** 2 < 0.2
    image = torch.stack([0.3 + 0.2 * y, 0.5 + 0.2 * x, 0.4 + 0 * x])
    image[:, mask] = torch.tensor([0.9, 0.3, 0.1])[:, None] * (0.9 + 0.1 * noise(1, int(mask.sum())))
    return image[None], mask[None]


def test_lab_equals_scikit_image():
    images = noise(2, 3, 5, 7)
    expected = rgb2lab(images.movedim(1, -1).double().numpy())
    np.testing.assert_allclose(rgb_to_lab(images).movedim(1, -1), expected, atol=2e-2)


def test_ranking_solves_the_papers_equation():
    nodes = noise(1, module._GRID**2, 3).double() * 20
    gaps = torch.cdist(nodes, nodes)
    weights = np.zeros((module._GRID**2,) * 2)
    cells = [(i // module._GRID, i % module._GRID) for i in range(len(weights))]
    last = module._GRID - 1
    for i, (yi, xi) in enumerate(cells):
        for j, (yj, xj) in enumerate(cells):
            on_border = {yi, xi} & {0, last} and {yj, xj} & {0, last}
            if i != j and (max(abs(yi - yj), abs(xi - xj)) <= 2 or on_border):
                weights[i, j] = np.exp(-float(gaps[0, i, j]) / 10)
    system = np.diag(weights.sum(1)) - 0.99 * weights  # Yang et al., equation 3: f = (D - aW)^-1 y
    sides = np.array([[y == 0, y == last, x == 0, x == last] for y, x in cells], float)
    like = np.linalg.solve(system, sides)
    unlike = (1 - like / like.max(0)).prod(1)
    unlike = (unlike - unlike.min()) / np.ptp(unlike)
    ranks = np.linalg.solve(system, (unlike > unlike.mean()).astype(float))
    expected = (ranks - ranks.min()) / np.ptp(ranks)
    np.testing.assert_allclose(module._ranking(gaps)[0], expected, atol=2e-3)


def test_likelihood_is_the_ratio_of_two_densities():
    count = module._GRID**2
    kernel, inside = noise(1, count, count), noise(1, module._GRID, module._GRID)
    weights = inside.flatten()
    within = (kernel[0] * weights).sum(1) / weights.sum() + 1e-3 / count
    without = (kernel[0] * (1 - weights)).sum(1) / (1 - weights).sum() + 1e-3 / count
    expected = (within / (within + without)).view_as(inside)
    torch.testing.assert_close(module._likelihood(kernel, inside), expected)


def test_kernel_is_a_gaussian_of_feature_and_place():
    side = module._GRID
    nodes = noise(1, side**2, 3) * 30
    kernel = module._kernel(nodes)
    for i, j in [(0, 0), (0, 1), (5, side * 7 + 3), (side**2 - 1, 2 * side)]:
        colour = (nodes[0, i] - nodes[0, j]) / 5
        place = np.subtract(divmod(i, side), divmod(j, side)) / side / 0.4
        expected = np.exp(-(float(colour.square().sum()) + (place**2).sum()) / 2)
        assert float(kernel[0, i, j]) == pytest.approx(expected, rel=1e-3, abs=1e-7)


def test_edges_of_a_ramp():
    ramp = torch.arange(6.0).expand(1, 1, 5, 6)
    across, down, falling, rising = module._edges(ramp)[0]
    assert (across[:, :-1] == 1).all()
    assert (down == 0).all()
    assert (falling[:, :-1] == 1).all()
    assert (rising[:, 1:] == 1).all()


@pytest.mark.parametrize("size", [(90, 120), (64, 64), (31, 17), (8, 8)])
def test_the_object_stands_out(size):
    image, mask = scene(size)
    saliency = get_backend("manifold_ranking")(image)
    assert saliency.shape == mask.shape
    assert saliency[mask].mean() > 0.6
    assert saliency[~mask].mean() < 0.2


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_constant_images_have_no_object(level):
    assert (manifold_ranking(torch.full((2, 3, 40, 30), level)) == 0).all()


def test_wrong_images():
    with pytest.raises(InvalidInputError, match=r"got torch.float32 \(1, 1, 4, 4\)"):
        manifold_ranking(torch.zeros(1, 1, 4, 4))


def test_figures_on_photographs_are_kept(shared_data: Path):
    """Every fifth photograph of the ladder; all of them: otsu 0.82 / 0.10, guided 0.84 / 0.10, grabcut 0.86 / 0.10."""
    names = ("otsu", "guided", "grabcut")
    coverage, spill = ({name: [] for name in names} for _ in range(2))
    for path in sorted((shared_data / "objects" / "images").iterdir())[::5]:
        photograph = Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
        outline = Image.open(shared_data / "objects" / "masks" / f"{path.stem}.png").convert("L")
        image = torch.from_numpy(np.array(photograph)).movedim(-1, 0)[None]
        truth = torch.from_numpy(np.array(outline.resize((224, 224), Image.Resampling.NEAREST)) > 127)
        maps = get_backend("manifold_ranking").coarse(image)
        for name in names:
            mask = get_mask(name)(maps, image).masks[0]
            coverage[name].append(mask[truth].double().mean())
            spill[name].append(mask[~truth].double().mean())
    assert np.mean(coverage["otsu"]) > 0.76
    assert np.mean(spill["otsu"]) < 0.13
    assert np.mean(coverage["guided"]) > 0.78
    assert np.mean(spill["guided"]) < 0.13
    assert np.mean(coverage["grabcut"]) > 0.80
    assert np.mean(spill["grabcut"]) < 0.13


def test_likelihood_of_rare_colours_by_hand():
    """Densities of 0.001 over all nodes are added to both sides: (c + r) / (c + 2 r), by hand."""
    nodes = module._GRID**2
    inside = torch.zeros(1, module._GRID, module._GRID, dtype=torch.float64)
    inside[0, 0, 0] = 1
    kernel = torch.zeros(1, nodes, nodes, dtype=torch.float64)
    kernel[0, 1, 0] = 0.001 / nodes
    found = module._likelihood(kernel, inside).flatten()
    assert found[1].item() == pytest.approx(2 / 3, abs=1e-6)
    assert found[2].item() == pytest.approx(1 / 2, abs=1e-6)


def test_the_border_is_what_lies_on_a_side() -> None:
    at = torch.device("cpu")
    assert torch.equal(module._border(at), module._sides(at).amax(1).nonzero()[:, 0])
