"""Visibility of boxes and points against counting pixels and against a fine grid."""

from __future__ import annotations

import math

import pytest
import torch

from sgdmix_albu.errors import InvalidInputError
from sgdmix_albu.mixing.visibility import visible_fractions, visible_points


def region(seed: int = 0, height: int = 21, width: int = 30) -> torch.Tensor:
    return torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) > 0.4


def test_whole_pixels_are_counted() -> None:
    kept = region()
    boxes = torch.tensor([[3, 2, 9, 20], [0, 0, 30, 21], [29, 20, 30, 21], [-5, -5, 4, 6], [25, 10, 99, 99]])
    expected = [kept[max(0, y1) : y2, max(0, x1) : x2].float().mean().item() for x1, y1, x2, y2 in boxes.tolist()]
    torch.testing.assert_close(visible_fractions(kept, boxes), torch.tensor(expected))


def test_cut_pixels_count_in_part() -> None:
    kept = region()
    fine = kept.repeat_interleave(10, 0).repeat_interleave(10, 1)
    boxes = torch.tensor([[1.3, 2.7, 8.1, 19.9], [0.1, 0.0, 0.4, 0.2], [4.5, 3.5, 5.5, 4.5]])
    tenths = (boxes * 10).round().long()
    expected = [fine[y1:y2, x1:x2].float().mean().item() for x1, y1, x2, y2 in tenths.tolist()]
    torch.testing.assert_close(visible_fractions(kept, boxes), torch.tensor(expected), atol=1e-5, rtol=0)


def test_boxes_without_area_in_the_image_show_nothing() -> None:
    kept = torch.ones(4, 4, dtype=torch.bool)
    boxes = torch.tensor([[1.0, 1, 1, 3], [3, 3, 1, 1], [9, 9, 12, 12], [-3, 0, 0, 4], [torch.nan, 0, 4, 4]])
    assert visible_fractions(kept, boxes).tolist() == [0.0] * 5
    assert visible_fractions(kept, torch.zeros(0, 4)).shape == (0,)


def corners_of(x1: float, y1: float, x2: float, y2: float, angle: float = 0.0) -> torch.Tensor:
    centre = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2])
    upright = torch.tensor([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]) - centre
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return upright @ turn + centre


def test_an_erased_box_of_any_fraction_shows_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    kept = torch.rand(64, 64, generator=generator) > 0.5
    kept[10:40, 10:40] = False
    ends = 10 + 30 * torch.rand(2000, 2, 2, generator=generator, dtype=torch.float64)
    boxes = torch.cat([ends.amin(1), ends.amax(1)], 1)
    assert not visible_fractions(kept, boxes).any()
    assert (visible_fractions(~kept, boxes) == 1).all()


def test_oriented_boxes() -> None:
    kept = region()
    upright = torch.tensor([[3.0, 2, 9, 20], [-5, -5, 4, 6]])
    corners = torch.stack([corners_of(*box) for box in upright.tolist()])
    torch.testing.assert_close(visible_fractions(kept, corners), visible_fractions(kept, upright), atol=0.02, rtol=0)
    half = torch.zeros(40, 40, dtype=torch.bool)
    half[:, :20] = True
    turned = torch.stack([corners_of(10, 15, 30, 25, angle) for angle in (0.3, 1.0, 2.0)])
    torch.testing.assert_close(visible_fractions(half, turned), torch.full((3,), 0.5), atol=0.01, rtol=0)
    diamond = corners_of(15, 15, 25, 25, math.pi / 4)[None]
    square = torch.zeros(40, 40, dtype=torch.bool)
    square[15:25, 15:25] = True
    # A square and the same turned by 45 degrees share the regular octagon, 2 (sqrt 2 - 1) of the area.
    torch.testing.assert_close(visible_fractions(square, diamond), torch.tensor([0.8284]), atol=0.01, rtol=0)
    assert visible_fractions(kept, torch.zeros(1, 4, 2)).tolist() == [0.0]


def test_points() -> None:
    kept = region()
    points = torch.tensor([[x + 0.5, y + 0.25] for y in range(21) for x in range(30)])
    assert torch.equal(visible_points(kept, points).view(21, 30), kept)
    outside = torch.tensor([[-0.1, 3.0], [30.0, 3.0], [3.0, 21.0], [3.0, -0.1], [torch.nan, 1.0]])
    assert not visible_points(torch.ones_like(kept), outside).any()
    assert visible_points(torch.ones_like(kept), torch.tensor([[29, 20], [0, 0]])).all()


@pytest.mark.parametrize(
    ("kept", "boxes", "message"),
    [
        (torch.ones(2, 2).bool(), [[0, 0, 1, 1]], r"expected boxes .* in pixels, got list"),
        (torch.ones(2, 2).bool().numpy(), torch.zeros(1, 4), "got ndarray"),
        (torch.ones(2, 2), torch.zeros(1, 4), r"got torch.float32 \(2, 2\)"),
        (torch.ones(1, 2, 2).bool(), torch.zeros(1, 4), r"got torch.bool \(1, 2, 2\)"),
        (torch.ones(2, 2).bool(), torch.zeros(4), r"got torch.float32 \(4,\)"),
        (torch.ones(2, 2).bool(), torch.zeros(1, 5), r"got torch.float32 \(1, 5\)"),
    ],
)
def test_wrong_arguments(kept, boxes, message) -> None:
    with pytest.raises(InvalidInputError, match=message):
        visible_fractions(kept, boxes)


def test_points_are_pairs() -> None:
    with pytest.raises(InvalidInputError, match=r"points \(N, 2\)"):
        visible_points(torch.ones(2, 2).bool(), torch.zeros(1, 3))


def test_no_boxes_at_all() -> None:
    kept = torch.ones(4, 4, dtype=torch.bool)
    for boxes in (torch.zeros(0, 4), torch.zeros(0, 4, 2)):
        assert visible_fractions(kept, boxes).shape == (0,)
    assert visible_points(kept, torch.zeros(0, 2)).shape == (0,)
