"""Fine-tuning: which data sets it takes, what it leaves out, and what it refuses to go on with."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_diffusion import tiny_base
from torch.utils.data import ConcatDataset, Subset
from torchvision.datasets import ImageFolder

from sgdmix_albu.classifiers.untouched import seeded
from sgdmix_albu.datasets import get_dataset
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.refine import Recipe, RefinerSpec, finetune, read_refiner
from sgdmix_albu.refine.components import load_base
from sgdmix_albu.refine.finetuning.data import TrainingImages

RECIPE = Recipe(steps=3, batch_size=2, learning_rate=1e-3, token_learning_rate=1e-2, rank=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "sd")


@pytest.fixture
def photos(tmp_path):
    """Two classes of three images."""
    draws = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            picture = draws.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def tune(base, data, out, **options):
    row = {"prompt": "{token} {metaclass}", "metaclass": "x"} | options.pop("row", {})
    spec = RefinerSpec("tiny", base=str(base), revision=None, resolution=32, steps=2, recipe=RECIPE, **row)
    return finetune(data, key=spec, out=out, progress=False, mixed_precision="no", **options)


# Data sets


def pixels(data):
    """(N, 3, 8, 8) and labels, as training sees them."""
    found = TrainingImages(data, 8)
    return torch.stack([found[row] for row in range(len(found))]), found.labels.tolist(), found.classes


def aircraft(root):
    """torchvision's FGVCAircraft on two pictures: its labels are in ``_labels``."""
    from torchvision.datasets import FGVCAircraft

    folder = root / "fgvc-aircraft-2013b" / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "variants.txt").write_text("707-320\nA300B4\n")
    for split in ("trainval", "test"):
        (folder / f"images_variant_{split}.txt").write_text("0001 A300B4\n0002 707-320\n")
    for number in (1, 2):
        Image.new("RGB", (30, 20), (90 * number, 0, 0)).save(folder / "images" / f"000{number}.jpg")
    return FGVCAircraft(root, split="trainval"), [1, 0], ("707-320", "A300B4")


def pets(root):
    from torchvision.datasets import OxfordIIITPet

    folder = root / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    lines = ["Abyssinian_1 1 1 1", "american_bulldog_7 2 2 1"]
    for split in ("trainval", "test"):
        (folder / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    for line in lines:
        Image.new("RGB", (30, 20), (0, 200, 0)).save(folder / "images" / f"{line.split()[0]}.jpg")
    return OxfordIIITPet(root), [0, 1], ("Abyssinian", "American Bulldog")


def flowers(root):
    from scipy.io import savemat
    from torchvision.datasets import Flowers102

    folder = root / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    savemat(folder / "imagelabels.mat", {"labels": np.array([[2, 1, 2]])})
    savemat(folder / "setid.mat", {"trnid": [[3, 2]], "valid": [[1]], "tstid": [[1]]})
    for number in (1, 2, 3):
        Image.new("RGB", (30, 20), (0, 0, 60 * number)).save(folder / "jpg" / f"image_0000{number}.jpg")

    class Small(Flowers102):
        def _check_integrity(self):  # it compares the sums of the published files
            return True

    return Small(root, split="train"), [1, 0], None


@pytest.mark.parametrize("make", [aircraft, pets, flowers])
def test_torchvisions_own(tmp_path, make):
    data, labels, classes = make(tmp_path)
    found = TrainingImages(data, 8)
    assert found.labels.tolist() == labels
    assert classes is None or found.classes == classes
    for row, label in enumerate(labels):
        image, own = data[row]
        assert own == label
        assert found[row].float().mean((1, 2)).sub(torch.tensor(np.asarray(image)).float().mean((0, 1))).abs().max() < 3


def test_parts_and_chains(photos):
    folder = ImageFolder(photos)
    images, labels, classes = pixels(photos)
    part = pixels(Subset(folder, [4, 0]))
    assert torch.equal(part[0], images[[4, 0]])
    assert part[1:] == ([1, 0], classes)
    again = pixels(ConcatDataset([folder, Subset(folder, [5])]))
    assert torch.equal(again[0], torch.cat([images, images[5:]]))
    assert again[1] == [*labels, 1]
    birds = get_dataset("aviary", species=2, per_species=1, size=32)
    with pytest.raises(InvalidInputError, match="parts of a ConcatDataset to have the same classes, got 2"):
        TrainingImages(ConcatDataset([folder, birds]), 8)


def test_hugging_face(photos):
    data = datasets.load_dataset("imagefolder", data_dir=str(photos), split="train")
    images, labels, classes = pixels(photos)
    found = pixels(data)
    assert torch.equal(found[0], images)
    assert found[1:] == (labels, classes)
    with pytest.raises(InvalidInputError, match=r"one ClassLabel column, got image \(Image\).*class_encode_column"):
        TrainingImages(data.remove_columns("label"), 8)


def odd(targets):
    """One image, one class, and these labels."""
    return type("Odd", (list,), {"classes": ["a"], "targets": targets})([(Image.new("RGB", (9, 9)), 0)])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1, 2], "classes and targets"),
        (
            type("Odd", (list,), {"classes": ["a"], "targets": [1]})([(Image.new("RGB", (9, 9)), 1)]),
            "1 classes.*label 1",
        ),
        (type("Odd", (list,), {"classes": ["a"], "targets": ["a"]})([(None, 0)]), "the labels of Odd as class numbers"),
    ],
)
def test_what_is_no_labelled_data_set(data, message):
    with pytest.raises(InvalidInputError, match=message):
        TrainingImages(data, 8)


# Images that cannot be read


def test_an_unreadable_image_is_left_out_and_named(base, photos, tmp_path):
    whole = TrainingImages(photos, 32)
    (photos / "ant" / "1.png").write_bytes(b"no picture")
    found = TrainingImages(photos, 32)
    assert found.labels.tolist() == [0, 0, 1, 1, 1]
    assert [found[row].tolist() for row in range(5)] == [whole[row].tolist() for row in (0, 2, 3, 4, 5)]
    card = tune(base, photos, tmp_path / "out")
    assert card.training["images"] == 5
    ((key, reason),) = read_refiner(tmp_path / "out").training["skipped"]
    assert key == "ant/1.png"
    assert "not an image" in reason


def test_an_image_outside_the_class_folders_is_named(photos):
    shutil.copy(photos / "ant" / "1.png", photos / "stray.png")
    assert TrainingImages(photos, 32).skipped == [("stray.png", "it is not in a class folder, so it has no label")]


@pytest.mark.parametrize("wrapped", [str, ImageFolder])
def test_no_file_tells_on_which_machine_or_from_where(base, photos, tmp_path, monkeypatch, wrapped):
    """Neither by its name nor by its content; TensorBoard's own files have the machine's name in theirs."""
    monkeypatch.setattr(socket, "gethostname", lambda: "some-host")
    (photos / "ant" / "1.png").write_bytes(b"no picture")
    card = tune(base, wrapped(str(photos)), tmp_path / "out")
    assert len(card.training["skipped"]) == 1
    assert "1.png" in str(card.training["skipped"])
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    (log,) = (tmp_path / "out" / "logs").iterdir()
    assert log.name.startswith("events.out.tfevents.")
    for path in files:
        for secret in ("some-host", str(photos)):
            assert secret not in str(path.relative_to(tmp_path))
            assert secret.encode() not in path.read_bytes()


def test_a_class_of_which_nothing_is_left_is_refused(base, photos, tmp_path):
    for number in range(3):
        (photos / "bee" / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no image of class 'bee' can be read; 3 image\(s\) cannot.*bee/0\.png"):
        tune(base, photos, tmp_path / "out")
    assert not (tmp_path / "out" / "refiner.json").exists()


# Going on with another run


@pytest.fixture
def begun(base, photos, tmp_path, stopped_at):
    """A run that was stopped after two steps."""
    own = Path(shutil.copytree(base, tmp_path / "base"))
    with stopped_at(2):
        tune(own, photos, tmp_path / "out", checkpoint_every=1, saliency=left)
    return own, photos, tmp_path / "out"


def left(images):
    return (torch.arange(images.shape[-1]) < 9).float().expand(len(images), *images.shape[-2:])


def right(images):
    return 1 - left(images)


def change_weight(path):
    state = load_file(path)
    name = sorted(state)[0]
    state[name].view(-1)[0] += 0.25
    save_file(state, path, {"format": "pt"})


def test_the_same_run_goes_on(begun):
    own, photos, out = begun
    assert tune(own, photos, out, saliency=left).training["steps"] == 3


@pytest.mark.parametrize(
    ("part", "file", "name"),
    [
        ("unet", "diffusion_pytorch_model.safetensors", "UNet"),
        ("text_encoder", "model.safetensors", "text encoder"),
        ("vae", "diffusion_pytorch_model.safetensors", "autoencoder"),
    ],
)
def test_another_base_is_refused(begun, part, file, name):
    own, photos, out = begun
    change_weight(own / part / file)
    with pytest.raises(DataError, match=f"was started with other {name}; use those to resume, or pass --overwrite"):
        tune(own, photos, out, saliency=left)


def rewrite(path, **changes):
    """The same checkpoint with other tensors, None for none, or another header (settings, basis)."""
    with safe_open(path, "pt") as file:
        header = file.metadata()
    state = load_file(path)
    header.update({key: value for key, value in changes.items() if key in header})
    for key, value in changes.items():
        for name in [name for name in state if name.startswith(key)]:
            state[name] = None if value is None else value.clone()
    save_file({name: value for name, value in state.items() if value is not None}, path, header)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": "{"}, "not JSON"),
        ({"settings": "[" * 100_000}, "not JSON"),
        ({"settings": "[]"}, "expected an object"),
        ({"settings": '{"steps": {"a": 1}}'}, "'steps': expected a number"),
        ({"settings": '{"steps": 1' + "0" * 400 + "}"}, "'steps': expected a number"),
        ({"basis": "3"}, "expected an object"),
        ({"basis": '{"images": [1]}'}, "'images': expected a string"),
        ({"losses": None}, "expected the losses of 3 steps at most"),
        ({"losses": torch.zeros(4)}, "expected the losses of 3 steps at most"),
        ({"losses": torch.tensor(0.0)}, "expected the losses of 3 steps at most"),
        ({"parameter:": None}, "expected 'parameter:.* of shape .*, got nothing"),
        ({"parameter:": torch.ones(1)}, r"expected 'parameter:.* of shape .*, got \(1,\)"),
        ({"exp_avg:": torch.ones(1)}, r"expected 'exp_avg:.* of shape .*, got \(1,\)"),
        ({"step:": torch.tensor(10.0)}, "what Adam remembers of .* cannot be"),
        ({"step:": torch.tensor(-1.0)}, "what Adam remembers of .* cannot be"),
    ],
)
def test_a_checkpoint_that_is_none(begun, changes, message):
    own, photos, out = begun
    rewrite(out / "checkpoint.safetensors", **changes)
    with pytest.raises(DataError, match=rf"checkpoint\.safetensors is damaged \({message}.*delete it to start over"):
        tune(own, photos, out, saliency=left)


def test_a_checkpoint_without_its_header(begun):
    own, photos, out = begun
    save_file(load_file(out / "checkpoint.safetensors"), out / "checkpoint.safetensors")
    with pytest.raises(DataError, match="is damaged .expected an object, got None"):
        tune(own, photos, out, saliency=left)


def test_another_schedule_is_refused(begun):
    own, photos, out = begun
    path = own / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "v_prediction"}))
    with pytest.raises(DataError, match="was started with other scheduler;"):
        tune(own, photos, out, saliency=left)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"saliency": right}, "saliency"),
        ({"row": {"prompt": "a {token} {metaclass}"}}, "prompt or metaclass"),
        ({"row": {"metaclass": "y"}}, "prompt or metaclass"),
    ],
)
def test_another_saliency_or_prompt_is_refused(begun, options, name):
    own, photos, out = begun
    with pytest.raises(DataError, match=f"was started with other {name};"):
        tune(own, photos, out, **{"saliency": left} | options)


def test_an_image_in_another_class_is_refused(begun):
    """The pictures are the same, and in the same order."""
    own, photos, out = begun
    (photos / "ant" / "2.png").rename(photos / "bee" / "!2.png")
    with pytest.raises(DataError, match="was started with other classes;"):
        tune(own, photos, out, saliency=left)


def test_another_class_name_is_refused(begun):
    own, photos, out = begun
    (photos / "bee").rename(photos / "cow")
    with pytest.raises(DataError, match="was started with other classes;"):
        tune(own, photos, out, saliency=left)


def test_other_images_are_refused(begun):
    own, photos, out = begun
    Image.new("RGB", (24, 20)).save(photos / "ant" / "2.png")
    with pytest.raises(
        DataError, match="was started with other images and other saliency;|was started with other images;"
    ):
        tune(own, photos, out, saliency=left)


# Latents


def test_latents_are_scaled_by_their_own_statistics(tmp_path):
    """(z - mean) * factor / deviation, as the stock pipelines do; both ways."""
    folder = tiny_base(tmp_path / "base")
    path = folder / "vae" / "config.json"
    mean, deviation = [0.1, -0.2, 0.3, 0.0], [1.5, 0.5, 2.0, 1.0]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"latents_mean": mean, "latents_std": deviation}))
    components, latents = load_base(folder), torch.randn(2, 4, 3, 5)
    columns = (torch.tensor(values)[:, None, None] for values in (mean, deviation))
    expected = (latents - next(columns)) * components.vae.config.scaling_factor / next(columns)
    torch.testing.assert_close(components.scaled(latents), expected)
    torch.testing.assert_close(components.unscaled(expected), latents)


@pytest.mark.parametrize(
    ("architecture", "dtype", "upcast", "wanted"),
    [
        ("sdxl", torch.float16, True, torch.float32),
        ("sdxl", torch.float16, False, torch.float16),
        ("sdxl", torch.float32, True, torch.float32),
        ("sd", torch.float16, True, torch.float16),  # what diffusers says of a config that does not mention it
    ],
)
def test_an_autoencoder_that_overflows_half_precision_is_kept_in_single(tmp_path, architecture, dtype, upcast, wanted):
    folder = tiny_base(tmp_path / "base", architecture=architecture)
    path = folder / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"force_upcast": upcast}))
    components = load_base(folder, dtype=dtype)
    components.widen_vae()
    assert components.vae.dtype == wanted
    assert components.unet.dtype == dtype


def test_seeding_leaves_other_generators_alone(monkeypatch):
    """torch.manual_seed seeds all GPUs as well, and nothing brings them back."""
    before, seen = torch.get_rng_state(), []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seen.append)
    with seeded(5):
        found = torch.rand(3)
    assert torch.equal(found, torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert torch.equal(torch.get_rng_state(), before)
    assert seen == []
