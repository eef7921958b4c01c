"""The learned saliency: its network against timm's, its files, and what it sees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
import skimage.data
import timm
import torch
from fake_gpu import back, fake_gpu, on_gpu
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from make.saliency import take_encoder
from sgdmix_albu.datasets import get_dataset
from sgdmix_albu.errors import DataError, InvalidInputError
from sgdmix_albu.masks import otsu
from sgdmix_albu.saliency import get_backend
from sgdmix_albu.saliency.fingerprint import fingerprint
from sgdmix_albu.saliency.network import SaliencyNetwork
from sgdmix_albu.saliency.squashing import squashed

WEIGHTS = Path(__file__).parents[1] / "sgdmix_albu/saliency/embedded/salient_object.safetensors"
OBJECTS = Path(__file__).parents[2] / "shared/data/objects"


def iou(masks: Tensor, truth: Tensor) -> Tensor:
    return (masks & truth).flatten(1).sum(1) / (masks | truth).flatten(1).sum(1)


def test_the_encoder_is_efficientnet_lite0() -> None:
    torch.manual_seed(0)
    model = timm.create_model("efficientnet_lite0", bn_eps=1e-3).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as if it had been trained
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)
    network = SaliencyNetwork().eval()
    take_encoder(network, model.state_dict())
    with torch.no_grad():
        ours = theirs = torch.randn(2, 3, 64, 96)
        ours, theirs = network.stem(ours), model.bn1(model.conv_stem(theirs))
        torch.testing.assert_close(ours, theirs)
        for i, stage in enumerate(network.stages):
            ours = stage(ours)
            theirs = (model.blocks[i] if i < 5 else model.blocks[5][:1])(theirs)
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_it_gives_the_same_with_and_without_gradients() -> None:
    """Without, a CPU has convolution and ReLU6 as one."""
    network, images = get_backend("salient_object").network, torch.rand(3, 3, 160, 160)
    plain = network(images.requires_grad_())
    with torch.no_grad():
        torch.testing.assert_close(network(images), plain, rtol=1e-4, atol=1e-4)
    assert plain.std() > 0.5


@pytest.mark.parametrize("size", [(224, 224), (160, 224), (100, 90), (161, 159), (33, 500), (1, 7), (1000, 37)])
def test_bytes_are_squashed_as_torch_does_on_a_cpu(size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(0)).byte()
    expected = torch.nn.functional.interpolate(images, (160, 160), mode="bilinear", antialias=True)
    assert torch.equal(squashed(images, 160), expected)
    with fake_gpu():
        assert torch.equal(back(squashed(on_gpu(images), 160)), expected)


def test_passes_are_of_one_size() -> None:
    sizes = []
    backend = get_backend(lambda images: sizes.append(len(images)) or images[:, 0], microbatch=12)
    backend.coarse(torch.rand(27, 3, 8, 8))
    assert sizes == [9, 9, 9]


def test_the_weights_are_small_and_in_half_precision() -> None:
    assert WEIGHTS.stat().st_size <= 3_000_000
    with safetensors.safe_open(WEIGHTS, framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
        assert json.loads(file.metadata()["about"])["teacher"] == "U2-Net"


def test_it_sees_drawn_birds() -> None:
    birds = get_dataset("aviary", split="test", species=8, per_species=4, size=128)
    samples = [birds.render(i) for i in range(len(birds))]
    images = torch.stack([torch.from_numpy(np.array(sample.image)).movedim(-1, 0) for sample in samples])
    truth = torch.stack([torch.from_numpy(sample.mask) for sample in samples])
    found = otsu(get_backend("salient_object").coarse(images), images).masks
    assert iou(found, truth).mean() > 0.75


def test_it_sees_the_cat() -> None:
    photograph = torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0)[None]
    saliency = get_backend("salient_object")(photograph)[0]
    height, width = saliency.shape
    face = saliency[height // 3 : 2 * height // 3, 2 * width // 5 : 3 * width // 5]
    assert face.mean() > 0.9
    assert saliency[: height // 8, -width // 8 :].mean() < 0.2


@pytest.mark.skipif(not OBJECTS.exists(), reason="shared/data/objects is not here")
def test_it_passes_the_twenty_percent_rule_on_photographs() -> None:
    paths = sorted((OBJECTS / "images").iterdir())[::4]
    images = torch.stack([pixels(path, Image.Resampling.BILINEAR).movedim(-1, 0) for path in paths])
    truth = torch.stack([pixels(OBJECTS / "masks" / f"{path.stem}.png")[..., 0] > 127 for path in paths])
    found = otsu(get_backend("salient_object").coarse(images), images).masks
    covered = (found & truth).flatten(1).sum(1) / truth.flatten(1).sum(1)
    assert (covered < 0.75).float().mean() <= 0.2
    assert iou(found, truth).mean() > 0.7


def pixels(path: Path, how: Image.Resampling = Image.Resampling.NEAREST) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB").resize((224, 224), how)))


def test_one_plain_image_changes_nothing_for_the_others() -> None:
    backend = get_backend("salient_object")
    photograph = torch.from_numpy(skimage.data.chelsea()).movedim(-1, 0)[None, :, :96, :96]
    both = backend.coarse(torch.cat([torch.full_like(photograph, 90), photograph]))
    assert not both[0].any()
    torch.testing.assert_close(both[1:], backend.coarse(photograph), rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_is_a_backend(tmp_path: Path, kind: type) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(WEIGHTS.read_bytes())
    image = torch.rand(1, 3, 64, 64)
    mine, embedded = get_backend(kind(path)), get_backend("salient_object")
    assert torch.equal(mine.coarse(image), embedded.coarse(image))
    assert str(path) in repr(mine)
    # What a bank compares: the weights, not where they lie.
    assert fingerprint(mine.settings()) == fingerprint(embedded.settings())
    save_file({name: value * 2 for name, value in load_file(path).items()}, path)
    assert fingerprint(get_backend(kind(path)).settings()) != fingerprint(embedded.settings())


def test_options_of_a_path_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"the network .*mine.safetensors has no option 'steps'"):
        get_backend(str(tmp_path / "mine.safetensors"), steps=3)


def changed(weights: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    if how == "more":
        return {**weights, "fc.weight": torch.zeros(2)}
    if how == "less":
        return {name: value for name, value in weights.items() if name != "head.bias"}
    if how == "shape":
        return {**weights, "head.bias": torch.zeros(2, dtype=torch.float16)}
    return {**weights, "head.bias": torch.full_like(weights["head.bias"], torch.nan)}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("more", "holds no saliency network: expected .* tensors as sgdmix distil writes them, got"),
        ("less", "for .* of shape"),
        ("shape", r"for head.bias, of shape \(1,\), \(2,\)"),
        ("nan", "head.bias holds NaN"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, how: str, message: str) -> None:
    path = tmp_path / "other.safetensors"
    save_file(changed(load_file(WEIGHTS), how), path)
    with pytest.raises(DataError, match=message):
        get_backend(str(path))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"nowhere\.safetensors"):
        get_backend("nowhere.safetensors")
