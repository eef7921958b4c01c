"""``benchmarks/accuracy/shifted.py``: classifiers whose answers are known by hand, on drawn images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.accuracy.shifted import Shifted, in_place, make_plates, make_shifted, measure, placed

SIDE, CLASSES, EACH, OBJECT = 72, 4, 6, 12
LEVELS = 60.0 * torch.arange(1, CLASSES + 1)  # of a class, in red on the background and in blue on the object
FORAUG = ("mixed", "foraug")


def drawn() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, masks, labels and true plates: a square that is blue by class on a background that is red by class."""
    labels = torch.arange(CLASSES).repeat(EACH)
    plates = torch.zeros(len(labels), 3, SIDE, SIDE, dtype=torch.uint8)
    plates[:, 0] = LEVELS[labels, None, None].to(torch.uint8)
    masks = torch.zeros(len(labels), SIDE, SIDE, dtype=torch.bool)
    for row, (top, left) in enumerate(torch.randint(2, SIDE - OBJECT - 2, (len(labels), 2)).tolist()):
        masks[row, top : top + OBJECT, left : left + OBJECT] = True
    objects = torch.zeros_like(plates)
    objects[:, 2] = LEVELS[labels, None, None].to(torch.uint8)
    return torch.where(masks[:, None], objects, plates), masks, labels, plates


def reads(channel: int, where: tuple[slice, slice] = (slice(None), slice(None))) -> Callable[[Tensor], Tensor]:
    """A classifier that sees the brightest pixel of one channel, in a part of the image, and takes the nearest level.

    Of the squared distance what all classes share is left out, so that the gradient is not zero where it fits.
    """
    return lambda images: 2 * LEVELS * images[:, channel, *where].float().amax((1, 2))[:, None] - LEVELS**2


@pytest.fixture
def shifted() -> Shifted:
    return make_shifted(*drawn())


def test_the_object_alone(shifted: Shifted) -> None:
    found = measure(reads(2), shifted)
    cells = [found[f"cell_{row}_{column}"] for row in range(3) for column in range(3)]
    assert [found[name] for name in ("original", "mixed_same", "mixed_rand", "background_robustness")] == [1] * 4
    assert cells == [1] * 9
    assert [found[name] for name in ("gap", "drop", "centre_bias", "size_bias", "left_out")] == [0] * 5
    # All of the gradient is on the object: its share of the attribution is 1, its share of the area this:
    assert found["foreground_focus"] == pytest.approx(SIDE**2 / OBJECT**2)


def test_the_background_alone(shifted: Shifted) -> None:
    found = measure(reads(0), shifted)
    assert [found[name] for name in ("original", "mixed_same", "gap", "drop")] == [1] * 4
    assert [found[name] for name in ("mixed_rand", "background_robustness", "foreground_focus")] == [0] * 3
    assert math.isnan(found["centre_bias"])
    assert math.isnan(found["size_bias"])


def test_only_what_is_in_the_middle(shifted: Shifted) -> None:
    third = slice(SIDE // 3 + 1, 2 * SIDE // 3 - 1)  # an object of a whole cell fades over one pixel beyond it
    found = measure(reads(2, (third, third)), shifted)
    assert found["cell_1_1"] == 1
    assert found["cell_1_0"] == found["cell_2_1"] < 1
    # Without blue the darkest class is the nearest: a quarter is right by chance.
    assert found["centre_bias"] == pytest.approx(1 - (0.25 + 0.25) / 2)


def test_worst_corner_and_worst_side(shifted: Shifted) -> None:
    """Blind to the lower third: one corner and one side do not see the object, and these count."""
    found = measure(reads(2, (slice(0, 2 * SIDE // 3 - 1), slice(None))), shifted)
    assert (found["cell_0_0"], found["cell_1_2"], found["cell_2_0"], found["cell_2_1"]) == (1, 1, 0.25, 0.25)
    assert found["centre_bias"] == pytest.approx(0.75)


def test_only_what_is_large(shifted: Shifted) -> None:
    def large(images: Tensor) -> Tensor:
        seen = (images[:, 2] > 30).sum((1, 2))[:, None] > 0.8 * OBJECT**2
        return F.pad(reads(2)(images), (0, 1), value=-1e9) + ~seen * 2e9 * torch.eye(CLASSES + 1)[-1]

    found = measure(large, shifted)
    assert [found[f"size_{area}"] for area in ("0.25", "0.5", "1", "2")] == [0, 0, 1, 1]
    assert found["size_bias"] == pytest.approx(1 - 1 / 3)


def test_plates_are_of_the_right_classes(shifted: Shifted) -> None:
    rows = torch.arange(len(shifted.labels))
    assert bool((shifted.labels[shifted.same] == shifted.labels).all())
    assert bool((shifted.same != rows).all())
    assert bool((shifted.labels[shifted.other] != shifted.labels).all())
    again, another = make_shifted(*drawn()), make_shifted(*drawn(), seed=1)
    assert torch.equal(again.other, shifted.other)
    assert not torch.equal(another.other, shifted.other)


def test_in_place(shifted: Shifted) -> None:
    rows = torch.tensor([3, 5])
    mixed = in_place(shifted, shifted.other, rows)
    inside = F.max_pool2d((~shifted.masks[rows, None]).float(), 3, 1, 1) == 0
    outside = F.max_pool2d(shifted.masks[rows, None].float(), 3, 1, 1) == 0
    whole = inside.expand_as(mixed), outside.expand_as(mixed)
    assert torch.equal(mixed[whole[0]], shifted.images[rows][whole[0]])
    assert torch.equal(mixed[whole[1]], shifted.plates[shifted.other[rows]][whole[1]])


@pytest.mark.parametrize("area", [1 / 9, 0.25, 1.0, 2.0])
@pytest.mark.parametrize("centre", [(0.0, 0.0), (-0.5, 0.25)])
def test_placed(shifted: Shifted, centre: tuple[float, float], area: float) -> None:
    """Where the blue is, and how much of it, by its first moments."""
    rows = torch.arange(len(shifted.labels))
    seen = placed(shifted, centre, area, rows)[:, 2].double() / LEVELS[shifted.labels, None, None]
    at = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    mass = seen.sum((1, 2))
    x, y = (seen.sum(1) * at).sum(1) / mass, (seen.sum(2) * at).sum(1) / mass
    pixel = 2 / SIDE
    assert torch.allclose(x, torch.full_like(x, centre[0]), atol=0.1 * pixel)
    assert torch.allclose(y, torch.full_like(y, centre[1]), atol=0.1 * pixel)
    blue = (OBJECT - 2 + 2 * 2 / 3) ** 2  # the object's outermost pixels have a third of the black around them
    assert torch.allclose(mass / (blue * area), torch.ones(len(rows), dtype=torch.float64), atol=0.01)


@pytest.mark.parametrize(("area", "reach"), [(0.25, 3), (4.0, 12), (49.0, 36)])
def test_objects_stay_whole(shifted: Shifted, area: float, reach: int) -> None:
    """In the corner an object is as near as its half extent in pixels; one larger than the image is central."""
    rows = torch.arange(len(shifted.labels))
    seen = placed(shifted, (-1.0, -1.0), area, rows)[:, 2].double()
    at = torch.arange(SIDE) + 0.5
    x, y = ((seen.sum(along) * at).sum(1) / seen.sum((1, 2)) for along in (1, 2))
    assert torch.allclose(torch.stack([x, y]), torch.full((2, len(rows)), float(reach)).double(), atol=0.2)


def test_specks_and_frames_are_left_out() -> None:
    images, masks, labels, plates = drawn()
    masks[0] = False
    masks[1] = True
    masks[2, : SIDE - 7] = True  # 65 of 72 rows are 90.3%
    masks[3] = False
    masks[3, :1, :51] = True  # 51 pixels of 5184 are 0.98%
    found = make_shifted(images, masks, labels, plates)
    assert found.left_out == 4
    assert found.rows.tolist() == list(range(4, len(labels)))
    scores = torch.zeros(len(labels), CLASSES)
    scores[4:7, :] = torch.eye(CLASSES)[labels[4:7]]  # three of those that count, one of them class 0 as the others are
    right = 3 + int((labels[7:] == 0).sum())
    assert measure(reads(2), found, scores, which=["mixed"])["original"] == pytest.approx(right / (len(labels) - 4))


def test_batches_and_what_is_given_stay(shifted: Shifted) -> None:
    before = replace(shifted, **{n: v.clone() for n, v in vars(shifted).items() if isinstance(v, Tensor)})
    whole = measure(reads(2), shifted)
    assert measure(reads(2), shifted, batch=5) == pytest.approx(whole)
    assert all(torch.equal(v, getattr(before, n)) for n, v in vars(shifted).items() if isinstance(v, Tensor))
    assert set(measure(reads(2), shifted, which=["mixed"])) == {
        "left_out", "original", "mixed_same", "mixed_rand", "gap", "drop",
    }  # fmt: skip


def test_plates_are_painted() -> None:
    images, masks, _, true = drawn()
    images[masks[:, None].expand_as(images)] = 255
    assert (make_plates(images, masks).int() - true.int()).abs().max() <= 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": lambda x: x.float()}, r"expected images \(N, 3, H, W\) uint8, got \(24, 3, 72, 72\) torch.float32"),
        ({"masks": lambda x: x[:, :9]}, r"expected masks \(24, 72, 72\) bool, got \(24, 9, 72\) torch.bool"),
        ({"labels": lambda x: x[:5]}, r"expected 24 labels, int64, got \(5,\) torch.int64"),
        ({"plates": lambda x: x[:5]}, r"expected plates \(24, 3, 72, 72\) uint8, got \(5, 3, 72, 72\) torch.uint8"),
        ({"labels": lambda x: x * 0}, r"two classes or more with two objects or more each, found .* \{0: 24\}"),
        ({"labels": lambda x: x.clamp(max=1).index_fill(0, torch.tensor(7), 9)}, r"\{0: 6, 1: 17, 9: 1\}"),
        ({"masks": torch.zeros_like}, r"found \(class: objects\) \{\}"),
    ],
)
def test_refused(change: dict[str, Callable[[Tensor], Tensor]], message: str) -> None:
    parts = dict(zip(("images", "masks", "labels", "plates"), drawn(), strict=True))
    parts |= {name: made(parts[name]) for name, made in change.items()}
    with pytest.raises(ValueError, match=message):
        make_shifted(**parts)


def test_unknown_measures_and_lost_gradients(shifted: Shifted) -> None:
    with pytest.raises(ValueError, match=r"expected which from \('mixed', 'foraug'\), got \('colour',\)"):
        measure(reads(2), shifted, which=["colour"])
    with pytest.raises(ValueError, match=r"passes no gradients on"):
        measure(torch.no_grad()(reads(2)), shifted, which=FORAUG)
