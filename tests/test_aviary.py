"""The aviary: what the same seed gives, what a mask is, how many images a class has, and who lives where."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import pickle
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from sgdmix_albu.datasets import get_dataset, list_datasets
from sgdmix_albu.datasets.aviary import HABITATS, MAX_SPECIES, Aviary, describe, draw, export, species_table
from sgdmix_albu.datasets.aviary.bird import _BILL_COLOURS, _PIGMENTS
from sgdmix_albu.errors import DataError, InvalidInputError, SGDMixError, UnknownNameError


def fingerprint(dataset: Aviary) -> str:
    digest = hashlib.sha256()
    for index in range(len(dataset)):
        sample = dataset.render(index)
        digest.update(sample.image.tobytes() + sample.mask.tobytes() + sample.caption.encode())
    return digest.hexdigest()


# --- determinism ------------------------------------------------------------------------------------------------------
def test_same_arguments_give_the_same_pixels_in_another_process():
    script = "\n".join(
        [
            "import hashlib",
            "from sgdmix_albu.datasets.aviary import Aviary",
            inspect.getsource(fingerprint),
            "print(fingerprint(Aviary('val', species=5, per_species=2, seed=9)))",
        ]
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    birds = Aviary("val", species=5, per_species=2, seed=9)
    assert fingerprint(birds) == fingerprint(birds) == other.stdout.strip()


def test_no_global_random_state_is_used():
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002 (the state that must not move)
    fingerprint(Aviary(species=2, per_species=1))
    assert np.array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


def test_an_image_depends_only_on_seed_split_species_and_number():
    few, many = Aviary(species=[7, 3], per_species=2), Aviary(species=9, per_species=5)
    for label, species, number in ((0, 7, 1), (1, 3, 0)):
        assert few.scene(2 * label + number) == many.scene(5 * species + number)


@pytest.mark.parametrize("other", [{"seed": 1}, {"split": "val"}, {"split": "test"}])
def test_seed_and_split_change_every_scene(other):
    here, there = Aviary(species=4, per_species=3), Aviary(**{"species": 4, "per_species": 3, **other})
    assert all(here.scene(i) != there.scene(i) for i in range(len(here)))
    assert here.species == there.species


def test_pickle_and_workers_give_what_direct_access_gives():
    birds = Aviary(species=3, per_species=4, transform=np.array)
    direct = np.stack([birds[i][0] for i in range(len(birds))])
    again = pickle.loads(pickle.dumps(birds))
    assert np.array_equal(direct, np.stack([again[i][0] for i in range(len(again))]))
    batches = list(DataLoader(birds, batch_size=5, num_workers=2))
    assert np.array_equal(direct, torch.cat([images for images, _ in batches]).numpy())
    assert torch.cat([labels for _, labels in batches]).tolist() == birds.targets


# --- sizes ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [32, 64, 97, 512])
def test_sizes(size):
    sample = Aviary(species=1, per_species=1, size=size).render(0)
    assert sample.image.shape == (size, size, 3)
    assert sample.image.dtype == np.uint8
    assert sample.mask.shape == (size, size)
    assert sample.mask.dtype == bool


@pytest.mark.parametrize("size", [32, 64, 97])
def test_a_scene_looks_the_same_at_any_size(size):
    for index in range(8):
        scene = Aviary(species=8, per_species=1).scene(index)
        (small, mask), (large, large_mask) = draw(scene, size), draw(scene, 512)
        shrunk = cv2.resize(large_mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) >= 0.5
        assert (mask & shrunk).sum() / (mask | shrunk).sum() > 0.9
        shrunk_image = cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)
        assert np.abs(shrunk_image.astype(float) - small).mean() < 5


# --- masks ------------------------------------------------------------------------------------------------------------
def test_the_mask_is_what_does_not_change_with_the_habitat():
    for index in range(12):
        scene = replace(Aviary(species=12, per_species=1).scene(index), distractors=())
        (here, mask), (there, same) = (draw(replace(scene, habitat=h), 128) for h in ("sky", "forest"))
        assert np.array_equal(mask, same)
        assert 0.04 < mask.mean() < 0.35
        changed = (here != there).any(axis=2)
        core = cv2.erode(mask.astype(np.uint8), np.ones((5, 5))).astype(bool)
        outside = ~cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))).astype(bool)
        assert not changed[core].any()
        assert changed[outside].mean() > 0.97


def test_what_lies_before_the_bird_leaves_the_mask():
    hidden = 0
    for index in range(60):
        scene = Aviary(species=12, per_species=5).scene(index)
        bare = replace(scene, distractors=tuple(t for t in scene.distractors if not t.front))
        (image, mask), (bare_image, bare_mask) = draw(scene, 96), draw(bare, 96)
        lost = bare_mask & ~mask
        assert not (mask & ~bare_mask).any()
        assert (image != bare_image).any(axis=2)[lost].all()
        hidden += bool(lost.any())
    assert 0 < hidden < 30


def test_the_whole_bird_lies_inside_the_picture():
    for index in range(0, MAX_SPECIES, 7):
        _, mask = draw(Aviary(species=[index], per_species=1).scene(0), 96)
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert not border.any()


def test_a_sign_is_drawn_on_request_and_changes_nothing_else():
    plain, signed = Aviary(species=2, per_species=3), Aviary(species=2, per_species=3, signs=1.0)
    for index in range(6):
        here, there = plain.scene(index), signed.scene(index)
        assert replace(there, distractors=there.distractors[:-1]) == here
        assert there.distractors[-1].kind == "sign"
        assert not np.array_equal(plain.render(index).image, signed.render(index).image)


# --- habitats ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_share_of_birds_at_home(correlation):
    birds = Aviary(species=8, per_species=250, correlation=correlation)
    habitats = np.array([HABITATS.index(birds.scene(i).habitat) for i in range(len(birds))])
    home = np.array([birds.species[label].index % 8 for label in birds.targets])
    expected = correlation + (1 - correlation) / 8
    tolerance = 4 * np.sqrt(expected * (1 - expected) / len(birds))
    assert abs((habitats == home).mean() - expected) <= tolerance
    if correlation == 0:
        table = np.zeros((8, 8))
        np.add.at(table, (birds.targets, habitats), 1)
        chi_square = ((table - 250 / 8) ** 2 / (250 / 8)).sum()
        assert chi_square < 95  # 56 degrees of freedom: exceeded with probability 0.001


def test_correlation_changes_nothing_but_the_habitat():
    free, bound = Aviary(species=4, per_species=5), Aviary(species=4, per_species=5, correlation=1.0)
    for index in range(20):
        assert replace(free.scene(index), habitat=bound.scene(index).habitat) == bound.scene(index)


def test_shifted_habitats_mislead_in_the_test_split_only():
    def homes(split: str, shift: bool) -> list[set[str]]:
        birds = Aviary(split, species=8, per_species=3, correlation=1.0, habitat_shift=shift)
        return [{birds.scene(3 * s + k).habitat for k in range(3)} for s in range(8)]

    assert homes("train", shift=True) == homes("test", shift=False) == [{h} for h in HABITATS]
    moved = homes("test", shift=True)
    assert sorted(map(sorted, moved)) == sorted([h] for h in HABITATS)
    assert all(after != {before} for before, after in zip(HABITATS, moved, strict=True))


# --- class counts -----------------------------------------------------------------------------------------------------
# CIFAR-10-LT's class sizes as published with Cui et al. 2019, for imbalance factors 10 and 100.
CIFAR_LT = {
    0.1: [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500],
    0.01: [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50],
}


@pytest.mark.parametrize("imbalance", [0.1, 0.01])
def test_long_tailed_counts_are_the_published_ones(imbalance):
    birds = Aviary(species=10, per_species=5000, layout="long_tailed", imbalance=imbalance)
    assert birds.counts == CIFAR_LT[imbalance]


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({"layout": "balanced"}, [6] * 3),
        ({"layout": "few_shot", "shots": 2}, [2] * 3),
        ({"layout": "few_shot", "shots": 2, "split": "test"}, [6] * 3),
        ({"layout": "long_tailed", "imbalance": 0.5, "split": "val"}, [6] * 3),
        ({"layout": "long_tailed", "imbalance": 0.5}, [6, 4, 3]),
        ({"layout": "long_tailed", "imbalance": 1.0}, [6] * 3),
    ],
)
def test_labels_targets_and_counts_agree(options, counts):
    birds = Aviary(**{"species": 3, "per_species": 6, "size": 32, **options})
    assert list(Counter(birds.targets).values()) == counts == birds.counts
    labels = [birds.render(i).label for i in range(len(birds))]
    assert labels == birds.targets == [label for _, label in birds]
    assert all(birds.scene(i).species == birds.species[label] for i, label in enumerate(labels))
    assert birds.class_to_idx == {name: label for label, name in enumerate(birds.classes)}


def test_one_species_can_be_long_tailed():
    assert Aviary(species=1, per_species=4, layout="long_tailed").counts == [4]


# --- species ----------------------------------------------------------------------------------------------------------
def test_species_are_pairwise_distinct():
    table = species_table()
    assert len(table) == MAX_SPECIES >= 200
    assert len({each.name for each in table}) == len({each.folder for each in table}) == MAX_SPECIES
    assert len({tuple(each.marks.values()) for each in table}) == MAX_SPECIES
    assert [each.index for each in table] == list(range(MAX_SPECIES))
    assert [each.folder for each in table] == sorted(each.folder for each in table)


def test_the_nearest_relative_differs_in_one_or_two_parts():
    """A part counts once: a crown that appears brings its colour."""
    part = {"crown_colour": "crown", "bill_length": "bill", "bill_colour": "bill", "breast_colour": "breast"}
    marks = [each.marks for each in species_table()]
    for a in marks:
        differences = [{part.get(name, name) for name in a if a[name] != b[name]} for b in marks if b is not a]
        assert 1 <= min(map(len, differences)) <= 2


@pytest.mark.parametrize("count", [12, 24])
def test_every_pair_of_species_can_be_told_apart_by_its_pixels(count):
    scene = replace(Aviary(species=1, per_species=1).scene(0), scale=0.4, looks_back=False)
    images = [draw(replace(scene, species=species), 64)[0].astype(int) for species in species_table()[:count]]
    for a, b in itertools.combinations(images, 2):
        assert (np.abs(a - b).max(axis=2) > 40).sum() >= 4


def test_every_colour_of_the_table_has_a_pigment():
    for each in species_table():
        colours = {each.back, each.under, each.crown_colour, each.breast_colour, each.tail_tip} - {"", "plain"}
        assert colours <= set(_PIGMENTS)
        assert each.bill_colour in _BILL_COLOURS


def test_captions_tell_species_and_habitats_apart():
    birds = Aviary(species=MAX_SPECIES, per_species=1)
    captions = [birds.caption(i) for i in range(len(birds))]
    assert captions[3] == birds.render(3).caption
    looks = {re.split(", (?:perched|standing)", caption)[0] for caption in captions}
    assert len(looks) == MAX_SPECIES
    assert all(caption.startswith(("a ", "an ")) and "  " not in caption for caption in captions)
    scene = birds.scene(0)
    assert len({describe(replace(scene, habitat=habitat)) for habitat in HABITATS}) == len(HABITATS)


# --- the dataset's face -----------------------------------------------------------------------------------------------
def test_items_are_pil_images_through_the_transforms():
    birds = Aviary(species=2, per_species=2)
    image, label = birds[3]
    assert isinstance(image, Image.Image)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), birds.render(3).image)
    turned = Aviary(species=2, per_species=2, transform=lambda x: x.size, target_transform=lambda y: -y)
    assert turned[3] == ((64, 64), -label)
    assert birds.scene(-1) == birds.scene(len(birds) - 1)
    for outside in (4, -5):
        with pytest.raises(IndexError, match="dataset of 4"):
            birds[outside]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "training"}, "split must be one of train, val, test, got 'training'"),
        ({"species": 0}, "species must be a whole number from 1 to 216, got 0"),
        ({"species": 217}, "1 to 216, got 217"),
        ({"species": "12"}, "1 to 216, got '12'"),
        ({"species": [3, 216]}, "species must be indices from 0 to 215, got 216"),
        ({"species": [3, 3]}, "each once"),
        ({"species": []}, "one index or more"),
        ({"per_species": 0}, "per_species must be 1 or more, got 0"),
        ({"per_species": True}, "per_species .* got True"),
        ({"size": 16}, "size must be a whole number from 32 to 512, got 16"),
        ({"size": 64.0}, "size .* got 64.0"),
        ({"correlation": 1.5}, r"correlation must lie in \[0, 1\], got 1.5"),
        ({"correlation": float("nan")}, "correlation .* got nan"),
        ({"signs": "yes"}, "signs .* got 'yes'"),
        ({"layout": "longtail"}, "layout must be one of .* got 'longtail'"),
        ({"imbalance": 0}, r"imbalance must lie in \(0, 1\], got 0"),
        ({"layout": "long_tailed", "per_species": 5}, "leaves the rarest class without an image"),
        ({"shots": -1}, "shots must be 1 or more, got -1"),
        ({"seed": -1}, "seed must be a number from 0 .* got -1"),
        ({"habitat_shift": "yes"}, "habitat_shift must be True or False, got 'yes'"),
        ({"transform": 3}, "transform must be a function or None, got 3"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(InvalidInputError, match=message):
        Aviary(**options)


def test_datasets_by_name():
    assert "aviary" in list_datasets()
    assert get_dataset("aviary", species=2, per_species=1).scene(1) == Aviary(species=2, per_species=1).scene(1)
    with pytest.raises(UnknownNameError, match="did you mean 'aviary'"):
        get_dataset("aviery")
    with pytest.raises(SGDMixError):
        get_dataset("aviary", size=8)


# --- export -----------------------------------------------------------------------------------------------------------
def test_exported_files_are_the_dataset(tmp_path):
    birds = Aviary(species=3, per_species=4, size=48, layout="long_tailed", imbalance=0.5)
    export(birds, tmp_path / "birds")
    images, masks = (ImageFolder(tmp_path / "birds" / kind) for kind in ("images", "masks"))
    assert images.classes == masks.classes == birds.classes
    assert images.targets == birds.targets
    for index in range(len(birds)):
        sample = birds.render(index)
        assert np.array_equal(np.asarray(images[index][0]), sample.image)
        assert np.array_equal(np.asarray(masks[index][0])[..., 0], sample.mask * 255)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".png"}


def test_export_keeps_what_is_there(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(DataError, match="expected an empty folder"):
        export(Aviary(species=1, per_species=1), tmp_path)
    with pytest.raises(DataError, match="expected an empty folder"):
        export(Aviary(species=1, per_species=1), tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
